import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Deadline, DeadlineTimer } from './deadline-timer.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('each deadline passes when its time has passed, and no other', () => {
  const names = fc.constantFrom<Deadline>('phase', 'first_token', 'total')
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ start: names, ms: fc.integer({ min: 1, max: 100 }) }) },
    { weight: 1, arbitrary: fc.record({ stop: names }) },
    { weight: 2, arbitrary: fc.constantFrom('pause' as const, 'resume' as const) },
    { weight: 6, arbitrary: fc.record({ advanceMs: fc.integer({ min: 1, max: 40 }) }) },
  )
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 60 }), (steps) => {
      const passed: string[] = []
      const expected: string[] = []
      const timer = new DeadlineTimer((deadline, ms) => passed.push(`${deadline} ${ms}`))
      /** What is left of each that runs. */
      const left = new Map<Deadline, { ms: number; leftMs: number }>()
      let isPaused = false
      for (const each of steps) {
        if (each === 'pause' || each === 'resume') {
          timer[each]()
          isPaused = each === 'pause'
        } else if ('start' in each) {
          // While they stand still, none begins.
          if (isPaused) continue
          timer.start(each.start, each.ms)
          left.set(each.start, { ms: each.ms, leftMs: each.ms })
        } else if ('stop' in each) {
          timer.stop(each.stop)
          left.delete(each.stop)
        } else {
          vi.advanceTimersByTime(each.advanceMs)
          if (isPaused) continue
          for (const [deadline, { ms, leftMs }] of left) {
            left.set(deadline, { ms, leftMs: leftMs - each.advanceMs })
            if (leftMs > each.advanceMs) continue
            expected.push(`${deadline} ${ms}`)
            left.delete(deadline)
          }
        }
        expect(passed.toSorted()).toEqual(expected.toSorted())
      }
      timer.end()
      expect(vi.getTimerCount()).toBe(0)
    }),
  )
})

test('a deadline that is put off again and again leaves its timer alone', () => {
  const set = vi.spyOn(globalThis, 'setTimeout')
  const passed: Deadline[] = []
  const timer = new DeadlineTimer((deadline) => passed.push(deadline))
  for (let n = 0; n < 99; n += 1) {
    timer.start('phase', 1_000)
    vi.advanceTimersByTime(10)
  }
  expect(set).toHaveBeenCalledTimes(1)
  vi.advanceTimersByTime(989)
  expect(passed).toEqual([])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['phase'])
  set.mockRestore()
})

test('one that is longer than a timer can be does not pass early', () => {
  const set = vi.spyOn(globalThis, 'setTimeout')
  const passed: Deadline[] = []
  const timer = new DeadlineTimer((deadline) => passed.push(deadline))
  timer.start('total', 2 ** 32)
  expect(set).toHaveBeenLastCalledWith(expect.anything(), 2 ** 31 - 1)
  set.mockRestore()
  vi.advanceTimersByTime(2 ** 31 + 1_000)
  expect(passed).toEqual([])
  vi.advanceTimersByTime(2 ** 31)
  expect(passed).toEqual(['total'])
})
