import type { BucketLimit, Limit, LimitCost, LimitState, PeriodLimit } from './limits.ts'

/**
 * The arithmetic of limits, without I/O: what the scripts do in Redis, this does in process, number by number.
 *
 * A bucket's level is kept in **parts**: a unit is as many parts as its window has microseconds, so that a refill of r
 * units a window is exactly r parts a microsecond. Refilling is integer multiplication and never loses a fraction. The
 * level goes below zero as debt, down to {@link maxDebtParts}, which keeps every intermediate value an exact double.
 * Time never goes backwards: a clock that does is treated as standing still.
 *
 * A period knows what is `used` (settled, also beyond its capacity: that is debt) and what is `held` by open
 * reservations. It is **unknown** while nobody can say what was used; what is held is known all the same. Each event that
 * an unknown period sees moves its `version`: a seed is right when it was asked at the version that it is given to.
 *
 * A **threshold** is told by the first settlement that finds a known period beyond it, whatever passed it. What was told
 * is kept, also while the period is unknown, and never falls: a correction that leads below a threshold makes nobody hear
 * of it twice. It is kept as the capacity that it was told of, so that a raised limit has thresholds of its own.
 */
export interface Slots {
  get(key: string): Slot | undefined
  set(key: string, slot: Slot): void
}

export type Slot = BucketSlot | PeriodSlot | UnknownSlot | ConcurrencySlot

export interface BucketSlot {
  readonly kind: 'bucket'
  /** Parts; negative in debt. */
  readonly level: number
  /** Unix microseconds at which `level` was true. */
  readonly at: number
}

/** What was told of a period: of each threshold the largest capacity that it was told of; 0 if it never was. */
export interface Told {
  readonly told80: number
  readonly told100: number
}

export interface PeriodSlot extends Told {
  readonly kind: 'period'
  /** Units, settled. */
  readonly used: number
  /** Units of open reservations. */
  readonly held: number
}

export interface UnknownSlot extends Told {
  readonly kind: 'unknown'
  readonly held: number
  readonly version: number
}

export interface ConcurrencySlot {
  readonly kind: 'concurrency'
  readonly open: number
}

export type Threshold = 80 | 100

export const nothingTold: Told = { told80: 0, told100: 0 }

export type Verdict =
  /** Periods that nobody knows, as indices into the costs; nothing was taken. */
  | { readonly kind: 'unseeded'; readonly indices: readonly number[] }
  | { readonly kind: 'admitted'; readonly limits: readonly LimitState[] }
  | {
      readonly kind: 'refused'
      readonly refusedBy: number
      readonly retryAfterMs: number
      readonly limits: readonly LimitState[]
    }

/** Deepest debt of a bucket, and the most that one call takes from it. */
export const maxDebtParts = 4e15

/** When a call may be tried again that a concurrency refused: nobody knows when an open call will end. */
export const concurrencyRetryMs = 500

/**
 * Takes every cost or none. A bucket passes when its level covers the amount; a period when used, held and amount stay
 * within capacity, and never with capacity 0; a concurrency when its open calls and the amount do. Costs on the same key
 * add up.
 */
export function admit(slots: Slots, costs: readonly LimitCost[], nowMicros: number): Verdict {
  const after: Slot[] = []
  let refusedBy = -1
  let longest = 0
  for (const { limit, amount } of costs) {
    const index = after.length
    const before = after[lastWith(costs, limit.key, index)] ?? current(slots, limit, nowMicros)
    if (before.kind === 'unknown') return { kind: 'unseeded', indices: unseeded(slots, costs.map(limitOf)) }
    const wait = waitMs(before, limit, amount, nowMicros)
    if (wait > longest) {
      longest = wait
      refusedBy = index
    }
    after.push(take(before, limit, amount))
  }
  if (refusedBy >= 0) {
    return { kind: 'refused', refusedBy, retryAfterMs: longest, limits: states(slots, costs, nowMicros) }
  }
  // Of costs on the same key the last one takes for all.
  for (let index = 0; index < costs.length; index++) {
    const [cost, slot] = [costs[index], after[index]]
    if (cost !== undefined && slot !== undefined) slots.set(cost.limit.key, slot)
  }
  return { kind: 'admitted', limits: states(slots, costs, nowMicros) }
}

/**
 * Replaces what was taken by what was used, and says of which periods a threshold is to be told (indices into `taken`).
 * The difference returns, clipped at the bucket's capacity, or becomes debt.
 */
export function settle(
  slots: Slots,
  taken: readonly LimitCost[],
  actual: readonly number[],
  nowMicros: number,
): { index: number; used: number; threshold: Threshold }[] {
  const crossed: { index: number; used: number; threshold: Threshold }[] = []
  taken.forEach(({ limit, amount }, index) => {
    const after = settled(current(slots, limit, nowMicros), limit, amount, actual[index] ?? amount)
    slots.set(limit.key, after)
    const threshold = after.kind === 'period' ? untold(after, limit.capacity) : undefined
    if (after.kind !== 'period' || threshold === undefined) return
    crossed.push({ index, used: after.used, threshold })
    remind(slots, limit.key, toldOf(threshold, limit.capacity))
  })
  return crossed
}

/** Settles what was taken at that amount, because nobody says what was used. Nobody hears of thresholds then. */
export function abandon(slots: Slots, taken: readonly LimitCost[], nowMicros: number): void {
  for (const { limit, amount } of taken) {
    // A bucket paid it already.
    if (limit.kind === 'bucket') continue
    slots.set(limit.key, settled(current(slots, limit, nowMicros), limit, amount, amount))
  }
}

/** Gives back what was taken for a call that never began. Nobody hears of thresholds then. */
export function release(slots: Slots, taken: readonly LimitCost[], nowMicros: number): void {
  for (const { limit, amount } of taken) {
    slots.set(limit.key, settled(current(slots, limit, nowMicros), limit, amount, 0))
  }
}

/**
 * Holds what a reservation held before the store lost its data: its calls run, whatever the limits say. A bucket is full
 * then and pays nothing; the rest is held again.
 */
export function declare(slots: Slots, costs: readonly LimitCost[], nowMicros: number): void {
  for (const { limit, amount } of costs) {
    if (limit.kind !== 'bucket') slots.set(limit.key, take(current(slots, limit, nowMicros), limit, amount))
  }
}

/** Makes a period unknown; what is held stays held. A seed that was asked before this is not taken any more. */
export function forget(slots: Slots, key: string, nowMicros: number): void {
  const slot = periodSlot(slots, key)
  const { held, told80, told100 } = slot
  // By the clock, so that no version comes twice, whatever the counter was meanwhile.
  const version = Math.max(nowMicros, slot.kind === 'unknown' ? slot.version + 1 : 1)
  slots.set(key, { kind: 'unknown', held, version, told80, told100 })
}

/** Notes what was told of a period, by whoever remembers it. */
export function remind(slots: Slots, key: string, told: Told): void {
  const slot = periodSlot(slots, key)
  const told80 = Math.max(slot.told80, told.told80)
  const told100 = Math.max(slot.told100, told.told100)
  slots.set(key, { ...slot, told80, told100 })
}

/** What is told with a threshold: whoever hears that all is used need not hear of 80 percent. */
export function toldOf(threshold: Threshold, capacity: number): Told {
  return { told80: capacity, told100: threshold === 100 ? capacity : 0 }
}

/** Version of an unknown period, to ask a seed for; 0 when nothing is there. */
export function seedVersion(slots: Slots, key: string): number {
  const slot = slots.get(key)
  return slot?.kind === 'unknown' ? slot.version : 0
}

/** Makes an unknown period known, if nothing happened to it since `version`. */
export function seed(slots: Slots, limit: PeriodLimit, used: number, version: number): void {
  const slot = slots.get(limit.key)
  if (slot !== undefined && (slot.kind !== 'unknown' || slot.version !== version)) return
  if (slot === undefined && version !== 0) return
  const { held, told80, told100 } = periodSlot(slots, limit.key)
  slots.set(limit.key, { kind: 'period', used, held, told80, told100 })
}

/** States without taking anything; an unknown period counts as unused: see {@link unseeded}. */
export function states(slots: Slots, limits: readonly (Limit | LimitCost)[], nowMicros: number): LimitState[] {
  return limits.map((entry) => {
    const limit = 'limit' in entry ? entry.limit : entry
    return stateOf(current(slots, limit, nowMicros), limit, nowMicros)
  })
}

/** Indices of the periods that are not known. */
export function unseeded(slots: Slots, limits: readonly Limit[]): number[] {
  return limits.flatMap((limit, index) =>
    limit.kind === 'period' && slots.get(limit.key)?.kind !== 'period' ? [index] : [],
  )
}

/** The bucket as it stands at a moment; full when it is unknown. */
export function refilled(slot: Slot | undefined, limit: BucketLimit, nowMicros: number): BucketSlot {
  const full = limit.capacity * partsOf(limit)
  if (slot?.kind !== 'bucket') return { kind: 'bucket', level: full, at: nowMicros }
  const elapsed = nowMicros - slot.at
  if (elapsed <= 0) return slot.level <= full ? slot : { kind: 'bucket', level: full, at: slot.at }
  const missing = full - slot.level
  // Compared by division first: rate times a long absence would leave the range of exact integers.
  const whole = missing <= 0 || elapsed > missing / limit.refill + 1
  const level = whole ? full : Math.min(full, slot.level + elapsed * limit.refill)
  return { kind: 'bucket', level, at: nowMicros }
}

/** Parts of a unit. */
export function partsOf(limit: BucketLimit): number {
  return limit.windowMs * 1_000
}

/** Index of the last cost before `end` on this key, or -1. */
function lastWith(costs: readonly LimitCost[], key: string, end: number): number {
  let index = end - 1
  while (index >= 0 && costs[index]?.limit.key !== key) index--
  return index
}

function limitOf(cost: LimitCost): Limit {
  return cost.limit
}

function current(slots: Slots, limit: Limit, nowMicros: number): Slot {
  const slot = slots.get(limit.key)
  if (limit.kind === 'bucket') return refilled(slot, limit, nowMicros)
  if (limit.kind === 'concurrency') return slot?.kind === 'concurrency' ? slot : { kind: 'concurrency', open: 0 }
  return periodSlot(slots, limit.key)
}

function periodSlot(slots: Slots, key: string): PeriodSlot | UnknownSlot {
  const slot = slots.get(key)
  if (slot?.kind === 'period' || slot?.kind === 'unknown') return slot
  return { kind: 'unknown', held: 0, version: 0, ...nothingTold }
}

function take(slot: Slot, limit: Limit, amount: number): Slot {
  switch (slot.kind) {
    case 'bucket':
      return { kind: 'bucket', level: slot.level - bucketParts(amount, limit), at: slot.at }
    case 'concurrency':
      return { kind: 'concurrency', open: slot.open + amount }
    case 'unknown':
      return { ...slot, held: slot.held + amount }
    case 'period':
      return periodWith(slot, slot.used, slot.held + amount)
  }
}

function settled(slot: Slot, limit: Limit, amount: number, used: number): Slot {
  switch (slot.kind) {
    case 'bucket': {
      const full = limit.capacity * bucketParts(1, limit)
      const level = Math.min(full, slot.level + bucketParts(amount, limit) - bucketParts(used, limit))
      return { kind: 'bucket', level: Math.max(level, -maxDebtParts), at: slot.at }
    }
    case 'concurrency':
      return { kind: 'concurrency', open: Math.max(0, slot.open - amount) }
    case 'unknown':
      return { ...slot, held: Math.max(0, slot.held - amount), version: slot.version + 1 }
    case 'period':
      return periodWith(slot, slot.used + used, Math.max(0, slot.held - amount))
  }
}

/** Field by field: to spread a slot costs as much as the rest of a take. */
function periodWith({ told80, told100 }: PeriodSlot, used: number, held: number): PeriodSlot {
  return { kind: 'period', used, held, told80, told100 }
}

/** The highest threshold that was passed, if nobody was told of it. */
function untold({ used, told80, told100 }: PeriodSlot, capacity: number): Threshold | undefined {
  if (capacity === 0 || used < capacity * 0.8) return undefined
  if (used < capacity) return told80 < capacity ? 80 : undefined
  return told100 < capacity ? 100 : undefined
}

/** 0 when the limit covers the amount, else milliseconds until it could, at least 1. */
function waitMs(slot: Slot, limit: Limit, amount: number, nowMicros: number): number {
  if (limit.kind === 'period') {
    const { used, held } = slot.kind === 'period' ? slot : { used: 0, held: 0 }
    if (limit.capacity > 0 && used + held + amount <= limit.capacity) return 0
    return Math.max(1, limit.endsAtMs - Math.floor(nowMicros / 1_000))
  }
  if (limit.kind === 'concurrency') {
    return (slot.kind === 'concurrency' ? slot.open : 0) + amount <= limit.capacity ? 0 : concurrencyRetryMs
  }
  const level = slot.kind === 'bucket' ? slot.level : 0
  const deficit = bucketParts(amount, limit) - level
  return deficit <= 0 ? 0 : Math.max(1, Math.ceil(refillMicros(deficit, limit) / 1_000))
}

function stateOf(slot: Slot, limit: Limit, nowMicros: number): LimitState {
  if (limit.kind === 'period') {
    const used = slot.kind === 'period' ? slot.used + slot.held : slot.kind === 'unknown' ? slot.held : 0
    return { remaining: limit.capacity - used, resetAtMs: limit.endsAtMs }
  }
  if (limit.kind === 'concurrency') {
    const open = slot.kind === 'concurrency' ? slot.open : 0
    return { remaining: limit.capacity - open, resetAtMs: Math.floor(nowMicros / 1_000) }
  }
  const { level, at } = slot.kind === 'bucket' ? slot : { level: 0, at: 0 }
  const parts = partsOf(limit)
  const missing = Math.max(0, limit.capacity * parts - level)
  return { remaining: Math.floor(level / parts), resetAtMs: Math.ceil((at + refillMicros(missing, limit)) / 1_000) }
}

/** Microseconds in which the refill yields at least `parts`; the quotient is checked, it may have been rounded down. */
function refillMicros(parts: number, limit: BucketLimit): number {
  const quotient = Math.ceil(parts / limit.refill)
  return quotient * limit.refill < parts ? quotient + 1 : quotient
}

function bucketParts(units: number, limit: Limit): number {
  return limit.kind === 'bucket' ? Math.min(units * partsOf(limit), maxDebtParts) : 0
}
