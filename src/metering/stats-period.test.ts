import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { keptPeriod, type PeriodRequest, periodOf, splitPeriod } from './stats-period.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs
const nowMs = Date.UTC(2026, 10, 18, 12, 34, 56, 789)
const unstated: PeriodRequest = { days: 0, startMs: undefined, endMs: undefined }
const period = fc
  .tuple(fc.nat({ max: 5 * hourMs }), fc.nat({ max: 5 * hourMs }))
  .map(([a, b]) => ({ fromMs: nowMs + Math.min(a, b), toMs: nowMs + Math.max(a, b) }))

test.for<[string, Partial<PeriodRequest>, number, number]>([
  ['nothing: 30 days until now', {}, nowMs - 30 * dayMs, nowMs],
  ['days until now, to the millisecond', { days: 1 }, nowMs - dayMs, nowMs],
  ['a start: until now', { startMs: nowMs - 5 }, nowMs - 5, nowMs],
  ['an end: the 30 days before it', { endMs: nowMs - dayMs }, nowMs - 31 * dayMs, nowMs - dayMs],
  ['both, even in the future', { startMs: nowMs, endMs: nowMs + 366 * dayMs }, nowMs, nowMs + 366 * dayMs],
])('takes %s', ([, request, fromMs, toMs]) => {
  expect(periodOf({ ...unstated, ...request }, nowMs)).toEqual({ fromMs, toMs })
})

test.for<[string, Partial<PeriodRequest>, string]>([
  ['days beside a start', { days: 1, startMs: nowMs - 1 }, 'days'],
  ['days beside an end', { days: 1, endMs: nowMs }, 'days'],
  ['an empty period', { startMs: nowMs, endMs: nowMs }, 'start_time'],
  ['a start in the future without an end', { startMs: nowMs + 1 }, 'start_time'],
  ['a period of more than 366 days', { startMs: nowMs - 366 * dayMs - 1 }, 'start_time'],
  ['a start before 1970', { startMs: -1, endMs: 5 }, 'start_time'],
  ['an end that no calendar has', { startMs: nowMs, endMs: 9e18 }, 'end_time'],
])('refuses %s', ([, request, field]) => {
  expect(() => periodOf({ ...unstated, ...request }, nowMs)).toThrow(
    expect.objectContaining({ reason: 'INVALID_ARGUMENT', fields: [expect.objectContaining({ field })] }),
  )
})

describe('a split period', () => {
  test('has no gap, no overlap, and part hours shorter than an hour', () => {
    fc.assert(
      fc.property(period, (whole) => {
        const { head, wholeHours, tail } = splitPeriod(whole)
        expect([head.fromMs, head.toMs, wholeHours.toMs, tail.toMs]).toEqual([
          whole.fromMs,
          wholeHours.fromMs,
          tail.fromMs,
          whole.toMs,
        ])
        for (const { fromMs, toMs } of [head, tail]) {
          expect(toMs - fromMs).toBeGreaterThanOrEqual(0)
          expect(toMs - fromMs).toBeLessThan(hourMs)
        }
        expect(wholeHours.toMs).toBeGreaterThanOrEqual(wholeHours.fromMs)
        if (wholeHours.toMs > wholeHours.fromMs) {
          expect([wholeHours.fromMs % hourMs, wholeHours.toMs % hourMs]).toEqual([0, 0])
        }
      }),
    )
  })
})

describe('what is kept of a period', () => {
  const hour = Date.UTC(2026, 10, 1)
  test.for<[string, number, number, number, number]>([
    ['all of it after the drop', hour + 1, hour + 2, hour + 1, hour + 2],
    ['a begin before the drop moves to the next hour', hour - dayMs + 1, hour + 2, hour - dayMs + hourMs, hour + 2],
    ['both ends before the drop move inward', hour - dayMs + 1, hour - 1, hour - dayMs + hourMs, hour - hourMs],
    ['whole hours stay', hour - dayMs, hour - hourMs, hour - dayMs, hour - hourMs],
    ['nothing is left of a part of one hour', hour - hourMs + 1, hour - 1, hour, hour],
  ])('%s', ([, fromMs, toMs, keptFromMs, keptToMs]) => {
    expect(keptPeriod({ fromMs, toMs }, hour)).toEqual({ fromMs: keptFromMs, toMs: keptToMs })
  })
})
