import type { UsageEvent } from '../metering/usage-event.ts'
import type { PeriodLimit, PeriodSeed } from './limits.ts'
import type { RecentEvents } from './recent-events.ts'
import { askSeed } from './seeds.ts'
import type { PeriodBase } from './share.ts'

/**
 * What this replica's shares of periods start from, by the keys of the limits: as of the first time that each was asked
 * for in an outage. Later answers of the ledger hold what was spent from shares meanwhile, so they change nothing.
 */
export class ShareBases {
  readonly #seed: PeriodSeed
  readonly #recent: RecentEvents
  readonly #bases = new Map<string, PeriodBase>()

  constructor(seed: PeriodSeed, recent: RecentEvents) {
    this.#seed = seed
    this.#recent = recent
  }

  /** Seed of the local counters. */
  readonly seed = async (limit: PeriodLimit, waiting: readonly UsageEvent[]): Promise<number> => {
    // In this order: what the ledger gets between the two is taken for our own, which is too strict and never too lax.
    const ledger = await askSeed(this.#seed, limit, [])
    const used = await askSeed(this.#seed, limit, [...waiting, ...this.#recent.of(limit)])
    if (!this.#bases.has(limit.key)) this.#bases.set(limit.key, { ledger, own: Math.max(0, used - ledger) })
    return used
  }

  of(key: string): PeriodBase | undefined {
    return this.#bases.get(key)
  }

  /** Begins an outage; returns the keys whose local counters stand as the last one left them. */
  forget(): string[] {
    const keys = [...this.#bases.keys()]
    this.#bases.clear()
    return keys
  }
}
