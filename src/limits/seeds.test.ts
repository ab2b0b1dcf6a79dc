import { expect, it } from 'vitest'
import { period } from './conformance-support.ts'
import { Seeds } from './seeds.ts'

it('asks the ledger once for callers that come at once, and again for a later one', async () => {
  const month = period({ capacity: 10 })
  const { promise, resolve } = Promise.withResolvers<number>()
  let asked = 0
  const seeds = new Seeds(() => {
    asked++
    return promise
  })
  const answers = [seeds.ask('a', month), seeds.ask('a', month), seeds.ask('b', month)]
  expect(asked).toBe(2)
  resolve(7)
  expect(await Promise.all(answers)).toEqual([7, 7, 7])
  await seeds.ask('a', month)
  expect(asked).toBe(3)
})

it('answers LIMITS_UNAVAILABLE when the ledger fails, and asks again the next time', async () => {
  const month = period({ capacity: 10 })
  let fail = true
  const seeds = new Seeds(async () => {
    if (fail) throw new Error('down')
    return 3
  })
  await expect(seeds.ask('a', month)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
  fail = false
  expect(await seeds.ask('a', month)).toBe(3)
})
