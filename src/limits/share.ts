/**
 * A replica's share of the limits while the shared store is away: what replicas may admit without asking each other, so
 * that all of them together stay within the limit.
 *
 * What a replica knows to be used or open outside the ledger (`own`, `open`) comes out of its own share. When N replicas
 * count N of each other, and none has more of its own than its share, then Σ admitted ≤ capacity − used. Shares of a
 * bucket or of a concurrency are at least 1: where more replicas live than the limit has units, the sum is N.
 */
import type { Limit, PeriodLimit } from './limits.ts'

export interface PeriodBase {
  /** Units used according to the ledger, when the period was first asked for in this outage. */
  readonly ledger: number
  /** Units beyond that which this replica knows of, because it recorded them itself. */
  readonly own: number
}

/** A replica's share of a bucket or concurrency; `open` are the calls that it has open in the shared store. */
export function shareOf(limit: Exclude<Limit, PeriodLimit>, replicas: number, open = 0): Limit {
  const capacity = atLeastOne(limit.capacity, replicas)
  if (limit.kind === 'concurrency') return { ...limit, capacity: Math.max(0, capacity - open) }
  return { ...limit, capacity, refill: atLeastOne(limit.refill, replicas) }
}

/**
 * A replica's share of a period, for a counter that starts at `ledger + own`: up to an equal part of what the ledger says
 * is left. `open` is what its calls take that the shared store admitted and that are not in the ledger.
 */
export function periodShare(limit: PeriodLimit, replicas: number, base: PeriodBase, open: number): PeriodLimit {
  // A capacity of 0 refuses everything, whatever is left.
  if (limit.capacity === 0) return limit
  const { ledger, own } = base
  const share = Math.max(0, Math.floor((limit.capacity - ledger) / replicas))
  return { ...limit, capacity: Math.min(limit.capacity, ledger + own + Math.max(0, share - own - open)) }
}

function atLeastOne(units: number, replicas: number): number {
  return Math.max(1, Math.floor(units / replicas))
}
