import { expect, test } from 'vitest'
import { within } from './within.ts'

test('settles as the work does', async () => {
  expect(await within(60_000, Promise.resolve(1))).toBe(1)
  await expect(within(60_000, Promise.reject(new Error('broken')))).rejects.toThrow('broken')
})

test('rejects when the time is up, and a failure after that ends nothing', async () => {
  const { promise, reject } = Promise.withResolvers<never>()
  await expect(within(1, promise)).rejects.toThrow('no end within 1 ms')
  await expect(within(1, promise, () => new RangeError('too late'))).rejects.toBeInstanceOf(RangeError)
  reject(new Error('nobody hears it'))
  await new Promise((resolve) => setImmediate(resolve))
})
