import { microsPerUnit, refilled, type Slot, type Slots } from './buckets.ts'
import type { Limit, LimitCost, PeriodLimit } from './limits.ts'

/** As in Redis: period counters outlive their period for late settlements. */
const periodMarginMs = 40 * 86_400_000

/** The counters of all organizations in memory. */
export class LocalSlots {
  readonly #slots = new Map<string, Slot>()
  readonly #limits = new Map<string, Limit>()

  /** The counters of one organization, as the arithmetic sees them. */
  of(organizationId: string): Slots {
    return {
      get: (key) => this.#slots.get(scoped(organizationId, key)),
      set: (key, slot) => this.#slots.set(scoped(organizationId, key), slot),
    }
  }

  /** Remembers what the counters of these costs mean, for {@link evict}. */
  learn(organizationId: string, costs: readonly LimitCost[]): void {
    for (const { limit } of costs) this.#limits.set(scoped(organizationId, limit.key), limit)
  }

  /** Starts a period counter, unless somebody else did meanwhile. */
  seed(organizationId: string, limit: PeriodLimit, used: number): void {
    const key = scoped(organizationId, limit.key)
    if (this.#slots.has(key)) return
    this.#slots.set(key, { kind: 'period', used })
    this.#limits.set(key, limit)
  }

  /** Forgets full buckets, which are the same as unknown ones, and periods that ended long ago. */
  evict(nowMs: number): void {
    for (const [key, limit] of this.#limits) {
      const gone =
        limit.kind === 'period'
          ? limit.endsAtMs + periodMarginMs < nowMs
          : refilled(this.#slots.get(key), limit, nowMs * 1_000).level >= limit.capacity * microsPerUnit
      if (!gone) continue
      this.#slots.delete(key)
      this.#limits.delete(key)
    }
  }
}

/** A key as it is unique over all organizations. */
export function scoped(organizationId: string, key: string): string {
  return `${organizationId} ${key}`
}
