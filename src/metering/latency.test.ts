import fc from 'fast-check'
import { expect, test } from 'vitest'
import { latencyBucket, latencyCounts, latencyError, latencyPercentiles } from './latency.ts'

/** From nothing to a day, as often short as long. */
const duration = fc.oneof(
  fc.nat({ max: 50 }),
  fc.double({ min: 0, max: Math.log(86_400_000), noNaN: true }).map((exponent) => Math.round(Math.exp(exponent))),
)
const share = fc.double({ min: 0, max: 1, noNaN: true })

function countsOf(durations: readonly number[]) {
  return durations.map((durationMs) => ({ bucket: latencyBucket(durationMs), requests: 1 }))
}

function exactly(durations: readonly number[], part: number): number {
  const ordered = durations.toSorted((a, b) => a - b)
  return ordered[Math.max(1, Math.ceil(part * ordered.length)) - 1] ?? 0
}

test('a percentile is within the stated error of the exact one', () => {
  fc.assert(
    fc.property(fc.array(duration, { minLength: 1, maxLength: 300 }), fc.array(share), (durations, shares) => {
      const estimates = latencyPercentiles(countsOf(durations), shares)
      for (const [index, part] of shares.entries()) {
        const exact = exactly(durations, part)
        expect(Math.abs((estimates[index] ?? Number.NaN) - exact)).toBeLessThanOrEqual(exact * latencyError * 1.000_001)
      }
    }),
    { numRuns: 500 },
  )
})

test('merged histograms say what one histogram of all says, in whatever order', () => {
  fc.assert(
    fc.property(fc.array(fc.array(duration)), fc.array(share), (groups, shares) => {
      const all = groups.flat()
      const merged = groups.toReversed().flatMap(countsOf)
      expect(latencyPercentiles(merged, shares)).toEqual(latencyPercentiles(countsOf(all), shares))
    }),
  )
})

test('the number of a histogram gives back its counts, also those that are below 0 for a while', () => {
  const most = 499_999_999_999
  const counts = fc.uniqueArray(
    fc.record({
      bucket: fc.integer({ min: -1, max: 300 }),
      requests: fc.integer({ min: -most, max: most }).filter((requests) => requests !== 0),
    }),
    { selector: ({ bucket }) => bucket },
  )
  fc.assert(
    fc.property(counts, (some) => {
      const number = some.reduce(
        (sum, { bucket, requests }) => sum + BigInt(requests) * 10n ** BigInt(12 * (bucket + 1)),
        0n,
      )
      expect(latencyCounts(String(number))).toEqual(some.toSorted((a, b) => a.bucket - b.bucket))
    }),
  )
})

test('adding up numbers adds up histograms, also where a reversal comes long before its record', () => {
  const entry = fc.record({ durationMs: duration, requests: fc.constantFrom(1, 0, -1) })
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 200 }), (entries) => {
      let number = 0n
      const counts = new Map<number, number>()
      for (const { durationMs, requests } of entries) {
        const bucket = latencyBucket(durationMs)
        number += BigInt(requests) * 10n ** BigInt(12 * (bucket + 1))
        counts.set(bucket, (counts.get(bucket) ?? 0) + requests)
        const expected = [...counts].filter(([, count]) => count !== 0).sort(([a], [b]) => a - b)
        expect(latencyCounts(String(number)).map((count) => [count.bucket, count.requests])).toEqual(expected)
      }
    }),
  )
})

test('durations below 10 ms are told exactly', () => {
  for (let durationMs = 0; durationMs < 10; durationMs++) {
    expect(latencyPercentiles(countsOf([durationMs]), [0.5])).toEqual([durationMs])
  }
})

test('every bucket of a duration estimates that duration within the error, up to an hour and beyond', () => {
  for (let durationMs = 1; durationMs < 7_200_000; durationMs += 1 + Math.floor(durationMs / 500)) {
    const [estimate = Number.NaN] = latencyPercentiles(countsOf([durationMs]), [1])
    expect(Math.abs(estimate - durationMs) / durationMs).toBeLessThanOrEqual(latencyError * 1.000_001)
  }
})

test('without records every percentile is 0', () => {
  expect(latencyPercentiles([], [0.5, 0.99])).toEqual([0, 0])
})
