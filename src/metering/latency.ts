/**
 * Latency histograms: counts of records in buckets that grow by a constant factor. Histograms of hours and statuses are
 * merged by adding counts, which averages of percentiles never could be. Postgres makes them (`latency_bucket` in
 * migration 0003, `latency_histogram` in 0009); this side reads them.
 *
 * Bucket i holds the whole milliseconds in (growth^(i-1), growth^i]; bucket -1 holds 0. The scheme is that of DDSketch,
 * https://arxiv.org/abs/1908.10693, section 2.
 */

/** Greatest distance of an estimate from the exact value, as a share of the latter. */
export const latencyError = 0.05

const growth = (1 + latencyError) / (1 - latencyError)

/** Number of records in a bucket; never 0, and below 0 only while a reversal is in the ledger before its record. */
export interface LatencyCount {
  readonly bucket: number
  readonly requests: number
}

/**
 * The counts of a histogram as Postgres stores it: one whole number, in which the count of bucket i stands at the decimal
 * places 12 (i + 1) and up. A sum of such numbers holds the sums of the counts, as long as these stay below 5 · 10^11; a
 * negative one borrows from the place above it, and gives back here.
 */
export function latencyCounts(histogram: string): LatencyCount[] {
  const counts: LatencyCount[] = []
  let rest = BigInt(histogram)
  for (let bucket = -1; rest !== 0n; bucket++) {
    const remainder = rest % place
    const requests =
      remainder >= place / 2n ? remainder - place : remainder < -place / 2n ? remainder + place : remainder
    if (requests !== 0n) counts.push({ bucket, requests: Number(requests) })
    rest = (rest - requests) / place
  }
  return counts
}

const place = 10n ** 12n

/** The bucket of a duration in whole milliseconds, as `latency_bucket` in Postgres has it. */
export function latencyBucket(durationMs: number): number {
  return durationMs < 1 ? -1 : Math.ceil(Math.log(durationMs) / Math.log(growth))
}

/**
 * Estimates of percentiles, in milliseconds, in the order of `shares` (0 to 1): each is within {@link latencyError} of
 * the exact one by the nearest-rank rule, the ⌈share · n⌉-th smallest duration. Exact below 10 ms, where a bucket holds
 * one value. Counts may come in any order, a bucket more than once; without any, all estimates are 0.
 */
export function latencyPercentiles(counts: readonly LatencyCount[], shares: readonly number[]): number[] {
  const ordered = counts.toSorted((a, b) => a.bucket - b.bucket)
  const total = ordered.reduce((sum, { requests }) => sum + requests, 0)
  return shares.map((share) => {
    const rank = Math.max(1, Math.ceil(share * total))
    let below = 0
    for (const { bucket, requests } of ordered) {
      below += requests
      if (below >= rank) return middleMs(bucket)
    }
    return 0
  })
}

/** The value that is, relatively, equally far from the smallest and from the greatest millisecond of a bucket. */
function middleMs(bucket: number): number {
  if (bucket < 0) return 0
  const lowest = Math.floor(growth ** (bucket - 1)) + 1
  const highest = Math.max(lowest, Math.floor(growth ** bucket))
  return (2 * lowest * highest) / (lowest + highest)
}
