import { expect, test } from 'vitest'
import { eventually } from '../test/support/eventually.ts'
import { repeat } from './repeat.ts'

test('works at once, and again after each end', async () => {
  let begun = 0
  let atOnce = 0
  let most = 0
  const repeating = repeat(1, async () => {
    begun += 1
    atOnce += 1
    most = Math.max(most, atOnce)
    await new Promise((resolve) => setImmediate(resolve))
    atOnce -= 1
  })
  expect(begun).toBe(1)
  await eventually(() => begun >= 5)
  await repeating.stop()
  expect(most).toBe(1)
})

test('stop tells the work that runs, waits for its end, and lets no other begin', async () => {
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  let begun = 0
  let told: AbortSignal | undefined
  const repeating = repeat(0, async (signal) => {
    begun += 1
    told = signal
    await held
  })
  let isOver = false
  const over = repeating.stop().then(() => {
    isOver = true
  })
  expect(told?.aborted).toBe(true)
  await new Promise((resolve) => setImmediate(resolve))
  expect(isOver).toBe(false)
  release()
  await over
  expect(begun).toBe(1)
})

test('stop does not wait for the pause', async () => {
  let begun = 0
  const repeating = repeat(86_400_000, async () => {
    begun += 1
  })
  await repeating.stop()
  expect(begun).toBe(1)
})
