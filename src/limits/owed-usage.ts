import { join } from 'node:path'
import type { Logger } from 'pino'
import type { UsageEvent } from '../metering/usage-event.ts'
import { LateSettlements } from './late-settlements.ts'
import { periodKeysOf } from './limit-keys.ts'
import type { Limits, Settlement } from './limits.ts'
import { isUnreachable } from './redis-scripts.ts'
import { UncorrectedKeys } from './uncorrected-keys.ts'

const countersAtOnce = 500

/** What the shared store must still be told of an outage, on disk until it was: settlements, and counters to correct. */
export class OwedUsage {
  readonly #primary: Limits
  readonly #log: Logger
  readonly #late: LateSettlements
  readonly #uncorrected: UncorrectedKeys

  private constructor(primary: Limits, log: Logger, late: LateSettlements, uncorrected: UncorrectedKeys) {
    this.#primary = primary
    this.#log = log
    this.#late = late
    this.#uncorrected = uncorrected
  }

  /** Takes up what an earlier process left in the folder. */
  static async open(primary: Limits, folder: string, log: Logger): Promise<OwedUsage> {
    const late = await LateSettlements.open({ folder: join(folder, 'settlements'), log })
    try {
      return new OwedUsage(primary, log, late, await UncorrectedKeys.open(folder))
    } catch (error) {
      await late.close()
      throw error
    }
  }

  /** How much it is, for the log. */
  get left(): { unsettled: number; uncorrected: number } {
    return { unsettled: this.#late.size, uncorrected: this.#uncorrected.size }
  }

  /** Resolves when the settlement is durable. */
  settleLater(settlement: Settlement): Promise<void> {
    return this.#late.add(settlement)
  }

  /** Resolves when it is durable that these counters must ask the ledger. */
  correctLater(counters: readonly string[]): Promise<void> {
    return this.#uncorrected.add(counters)
  }

  /** The same for the counters of events that the ledger got past the shared store. */
  bookLater(events: readonly UsageEvent[]): Promise<void> {
    return this.correctLater([...new Set(events.flatMap(periodKeysOf))])
  }

  /** Settles what waits, and returns how many; throws when the shared store is away. */
  async settle(): Promise<number> {
    return this.#pay(this.#late.settleAll((settlement) => this.#primary.settle(settlement)))
  }

  /** Makes the counters unknown in the shared store, and returns how many; throws when it is away. */
  async correct(): Promise<number> {
    const work = this.#uncorrected.correctAll(countersAtOnce, (counters) =>
      this.#primary.correct({ events: [], counters }),
    )
    return this.#pay(work)
  }

  async close(): Promise<void> {
    await this.#late.close()
    await this.#uncorrected.close()
  }

  /** What fails for another reason than that the store is away stays owed. */
  async #pay(work: Promise<number>): Promise<number> {
    try {
      return await work
    } catch (error) {
      if (isUnreachable(error)) throw error
      this.#log.error({ err: error, ...this.left }, 'usage of an outage cannot be told to redis')
      return 0
    }
  }
}
