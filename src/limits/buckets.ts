import type { BucketLimit, Limit, LimitCost, LimitState } from './limits.ts'

/**
 * The arithmetic of limits, without I/O: what `buckets.lua` does in Redis, this does in process, number by number.
 *
 * A bucket's level is kept in **micro-units** (a unit is 1,000,000 of them), because a rate of r units a second is
 * exactly r micro-units a microsecond: refilling is integer multiplication and never loses a fraction. The level goes
 * below zero as debt, down to {@link maxDebtUnits}, which keeps every intermediate value an exact double. Time never
 * goes backwards: a clock that does is treated as standing still.
 *
 * A period's `used` counts what is reserved and what is settled; it is never negative.
 */
export interface Slots {
  get(key: string): Slot | undefined
  set(key: string, slot: Slot): void
}

export type Slot = BucketSlot | PeriodSlot

export interface BucketSlot {
  readonly kind: 'bucket'
  /** Micro-units; negative in debt. */
  readonly level: number
  /** Unix microseconds at which `level` was true. */
  readonly at: number
}

export interface PeriodSlot {
  readonly kind: 'period'
  /** Units, reserved ones included. */
  readonly used: number
}

export type Verdict =
  /** Period counters that nobody knows, as indices into the costs; nothing was taken. */
  | { readonly kind: 'unseeded'; readonly indices: readonly number[] }
  | { readonly kind: 'admitted'; readonly limits: readonly LimitState[] }
  | {
      readonly kind: 'refused'
      readonly refusedBy: number
      readonly retryAfterMs: number
      readonly limits: readonly LimitState[]
    }

export const microsPerUnit = 1_000_000

/** Deepest debt of a bucket, and the most that one call takes from it, in units: forty times the largest capacity. */
export const maxDebtUnits = 4e9

/**
 * Takes every cost or none. A bucket passes when its level covers the amount; a period when used and amount stay within
 * capacity, and never with capacity 0. Costs on the same key add up.
 */
export function admit(slots: Slots, costs: readonly LimitCost[], nowMicros: number): Verdict {
  const indices = unseeded(
    slots,
    costs.map((cost) => cost.limit),
  )
  if (indices.length > 0) return { kind: 'unseeded', indices }
  const taken = new Map<string, Slot>()
  let refusedBy = -1
  let longest = 0
  costs.forEach(({ limit, amount }, index) => {
    const before = taken.get(limit.key) ?? current(slots, limit, nowMicros)
    const wait = waitMs(before, limit, amount, nowMicros)
    if (wait > longest) {
      longest = wait
      refusedBy = index
    }
    taken.set(limit.key, spend(before, amount))
  })
  if (refusedBy >= 0) {
    return { kind: 'refused', refusedBy, retryAfterMs: longest, limits: states(slots, costs, nowMicros) }
  }
  for (const [key, slot] of taken) slots.set(key, slot)
  return { kind: 'admitted', limits: states(slots, costs, nowMicros) }
}

/**
 * Replaces what was taken by what was used: the difference returns, clipped at the bucket's capacity, or becomes debt.
 * A period counter that is gone stays gone, because its seed will hold the event that belongs to this settlement.
 */
export function settle(slots: Slots, taken: readonly LimitCost[], actual: readonly number[], nowMicros: number): void {
  taken.forEach(({ limit, amount }, index) => {
    const used = actual[index] ?? amount
    if (limit.kind === 'period') {
      const slot = slots.get(limit.key)
      if (slot?.kind === 'period')
        slots.set(limit.key, { kind: 'period', used: Math.max(0, slot.used + used - amount) })
      return
    }
    const slot = refilled(slots.get(limit.key), limit, nowMicros)
    const level = Math.min(limit.capacity * microsPerUnit, slot.level + bucketMicros(amount) - bucketMicros(used))
    slots.set(limit.key, { kind: 'bucket', level: Math.max(level, -maxDebtUnits * microsPerUnit), at: slot.at })
  })
}

/** States without taking anything; an unknown period counter counts as unused: see {@link unseeded}. */
export function states(slots: Slots, limits: readonly (Limit | LimitCost)[], nowMicros: number): LimitState[] {
  return limits.map((entry) => {
    const limit = 'limit' in entry ? entry.limit : entry
    return stateOf(current(slots, limit, nowMicros), limit)
  })
}

/** Indices of the periods without a counter. */
export function unseeded(slots: Slots, limits: readonly Limit[]): number[] {
  return limits.flatMap((limit, index) =>
    limit.kind === 'period' && slots.get(limit.key) === undefined ? [index] : [],
  )
}

/** The bucket as it stands at a moment; full when it is unknown. */
export function refilled(slot: Slot | undefined, limit: BucketLimit, nowMicros: number): BucketSlot {
  const full = limit.capacity * microsPerUnit
  if (slot?.kind !== 'bucket') return { kind: 'bucket', level: full, at: nowMicros }
  const elapsed = nowMicros - slot.at
  if (elapsed <= 0) return { kind: 'bucket', level: Math.min(slot.level, full), at: slot.at }
  const missing = full - slot.level
  // Compared by division first: rate times a long absence would leave the range of exact integers.
  const whole = missing <= 0 || elapsed > missing / limit.refillPerSecond + 1
  const level = whole ? full : Math.min(full, slot.level + elapsed * limit.refillPerSecond)
  return { kind: 'bucket', level, at: nowMicros }
}

function current(slots: Slots, limit: Limit, nowMicros: number): Slot {
  const slot = slots.get(limit.key)
  if (limit.kind === 'bucket') return refilled(slot, limit, nowMicros)
  return slot?.kind === 'period' ? slot : { kind: 'period', used: 0 }
}

function spend(slot: Slot, amount: number): Slot {
  return slot.kind === 'period'
    ? { kind: 'period', used: slot.used + amount }
    : { kind: 'bucket', level: slot.level - bucketMicros(amount), at: slot.at }
}

/** 0 when the limit covers the amount, else milliseconds until it could, at least 1. */
function waitMs(slot: Slot, limit: Limit, amount: number, nowMicros: number): number {
  if (limit.kind === 'period') {
    const used = slot.kind === 'period' ? slot.used : 0
    if (limit.capacity > 0 && used + amount <= limit.capacity) return 0
    return Math.max(1, limit.endsAtMs - Math.floor(nowMicros / 1_000))
  }
  const level = slot.kind === 'bucket' ? slot.level : 0
  const deficit = bucketMicros(amount) - level
  return deficit <= 0 ? 0 : Math.max(1, Math.ceil(refillMicros(deficit, limit) / 1_000))
}

function stateOf(slot: Slot, limit: Limit): LimitState {
  if (limit.kind === 'period') {
    return { remaining: limit.capacity - (slot.kind === 'period' ? slot.used : 0), resetAtMs: limit.endsAtMs }
  }
  const { level, at } = slot.kind === 'bucket' ? slot : { level: 0, at: 0 }
  const missing = Math.max(0, limit.capacity * microsPerUnit - level)
  return {
    remaining: Math.floor(level / microsPerUnit),
    resetAtMs: Math.ceil((at + refillMicros(missing, limit)) / 1_000),
  }
}

/** Microseconds in which the rate yields at least `micros`; the quotient is checked, as it may have been rounded down. */
function refillMicros(micros: number, limit: BucketLimit): number {
  const quotient = Math.ceil(micros / limit.refillPerSecond)
  return quotient * limit.refillPerSecond < micros ? quotient + 1 : quotient
}

function bucketMicros(units: number): number {
  return Math.min(units, maxDebtUnits) * microsPerUnit
}
