import type { UsageEvent } from '../metering/usage-event.ts'
import { unitsOf } from './limit-keys.ts'
import type { PeriodLimit } from './limits.ts'

/** Events younger than this, and up to twice as old ones. */
const keepMs = 30_000
const most = 20_000

/**
 * The usage that this process recorded in the shared store within the last half minute: while that is away, its ledger
 * may not have all of it. Two lists take turns; one that is full ends its turn early.
 */
export class RecentEvents {
  readonly #clock: () => number
  #young: UsageEvent[] = []
  #old: UsageEvent[] = []
  #turnedAt: number

  constructor(clock: () => number) {
    this.#clock = clock
    this.#turnedAt = clock()
  }

  add(event: UsageEvent): void {
    const now = this.#clock()
    if (now - this.#turnedAt >= keepMs || this.#young.length >= most) {
      this.#old = this.#young
      this.#young = []
      this.#turnedAt = now
    }
    this.#young.push(event)
  }

  /** Those that a limit counts. */
  of(limit: PeriodLimit): UsageEvent[] {
    return [...this.#old, ...this.#young].filter((event) => unitsOf(limit, event) !== undefined)
  }
}
