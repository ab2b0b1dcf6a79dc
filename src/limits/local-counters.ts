import { TollgateError } from '../errors.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { forget, partsOf, refilled, type Slot, type Slots, seed, seedVersion, unseeded } from './buckets.ts'
import { periodKeysOf } from './limit-keys.ts'
import type { Limit, LimitCost, PeriodLimit, PeriodSeed } from './limits.ts'
import { askSeed } from './seeds.ts'

/** As in Redis: period counters outlive their period for late settlements. */
const periodMarginMs = 40 * 86_400_000
/** As in Redis: a full bucket is kept so long, so that it stands still when the clock jumps back by less. */
const bucketMarginMs = 60_000

/**
 * How long an unknown period is asked for again because calls settle meanwhile. They get fewer: nothing is admitted on a
 * counter before it is known.
 */
const askMaxMs = 10_000

export interface LocalCountersOptions {
  readonly seed: PeriodSeed
  /** The events of a limit's scope and month that the usage log holds. */
  readonly waiting: (limit: PeriodLimit) => readonly UsageEvent[]
}

/** The counters of all limits in memory, and how the unknown ones become known. */
export class LocalCounters implements Slots {
  readonly #options: LocalCountersOptions
  readonly #slots = new Map<string, Slot>()
  /** What the counters mean, for {@link evict}. */
  readonly #limits = new Map<string, Limit>()
  readonly #asking = new Map<string, Promise<void>>()

  constructor(options: LocalCountersOptions) {
    this.#options = options
  }

  get(key: string): Slot | undefined {
    return this.#slots.get(key)
  }

  set(key: string, slot: Slot): void {
    this.#slots.set(key, slot)
  }

  /** Remembers what the counters of these costs mean; without it they are never forgotten. */
  learn(costs: readonly LimitCost[]): void {
    for (const { limit } of costs) this.#limits.set(limit.key, limit)
  }

  /** Asks the ledger for the periods that are not known; throws LIMITS_UNAVAILABLE when it does not answer. */
  async know(limits: readonly Limit[]): Promise<void> {
    const until = performance.now() + askMaxMs
    for (let unknown = unseeded(this, limits); unknown.length > 0; unknown = unseeded(this, limits)) {
      if (performance.now() > until) {
        throw new TollgateError('LIMITS_UNAVAILABLE', 'usage of the current period is not known yet')
      }
      await Promise.all(unknown.map((index) => this.#askOnce(limits[index])))
    }
  }

  /** Makes periods unknown; what is held stays held. A counter that nobody has or asks for has nothing to forget. */
  forget(keys: readonly string[], nowMicros: number): void {
    for (const key of keys) if (this.#isThere(key)) forget(this, key, nowMicros)
  }

  /**
   * An event was recorded. The counters that `counted` names are moved by it; every other one that it should move, because
   * its limit is newer than the call's admission, for example, becomes unknown. An attempt that another one followed moves
   * none.
   */
  follow(event: UsageEvent, counted: readonly LimitCost[], nowMicros: number): void {
    if (event.requests === 0) return
    for (const key of periodKeysOf(event)) {
      if (this.#isThere(key) && !counted.some(({ limit }) => limit.key === key)) forget(this, key, nowMicros)
    }
  }

  /** Drops what is the same as unknown: full buckets, concurrencies of 0, and periods that ended long ago. */
  evict(nowMs: number): void {
    for (const [key, limit] of this.#limits) {
      if (!this.#isGone(limit, this.#slots.get(key), nowMs) || this.#asking.has(key)) continue
      this.#slots.delete(key)
      this.#limits.delete(key)
    }
  }

  #isThere(key: string): boolean {
    return this.#slots.has(key) || this.#asking.has(key)
  }

  #isGone(limit: Limit, slot: Slot | undefined, nowMs: number): boolean {
    if (limit.kind === 'period') return limit.endsAtMs + periodMarginMs < nowMs
    if (limit.kind === 'concurrency') return slot?.kind !== 'concurrency' || slot.open === 0
    if (slot?.kind !== 'bucket') return true
    const before = (nowMs - bucketMarginMs) * 1_000
    return slot.at <= before && refilled(slot, limit, before).level >= limit.capacity * partsOf(limit)
  }

  #askOnce(limit: Limit | undefined): Promise<void> | undefined {
    if (limit?.kind !== 'period') return undefined
    const running = this.#asking.get(limit.key)
    if (running !== undefined) return running
    const asking = this.#ask(limit).finally(() => this.#asking.delete(limit.key))
    this.#asking.set(limit.key, asking)
    return asking
  }

  async #ask(limit: PeriodLimit): Promise<void> {
    this.#limits.set(limit.key, limit)
    const version = seedVersion(this, limit.key)
    const used = await askSeed(this.#options.seed, limit, this.#options.waiting(limit))
    // Not taken when an event moved the version meanwhile; then the caller asks again.
    seed(this, limit, used, version)
  }
}
