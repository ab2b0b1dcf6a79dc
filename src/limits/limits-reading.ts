import type { UsageEvent } from '../metering/usage-event.ts'

/** What a store of limits holds at a moment, read without changing anything: one side of the books. */
export interface LimitsReading {
  /** Monthly token quotas; undefined when the store keeps no counters of its own while nothing runs. */
  readonly counters: readonly QuotaCounter[] | undefined
  readonly reservations: readonly OpenReservation[]
  /** Every event that the usage log still holds, those included that the ledger may have already. */
  readonly events: readonly LoggedEvent[]
  /** Entries that are no usage event: nobody can say what they are worth. */
  readonly unreadable: number
}

/** The counter of a `tokens_per_month` limit. */
export interface QuotaCounter {
  readonly consumerId: string
  readonly serviceId: string
  /** UTC, "YYYY-MM". */
  readonly month: string
  readonly tokens: number
}

/** A call that was admitted and not settled. */
export interface OpenReservation {
  /** What is recorded if its lease runs out; has the id of the attempt's event. */
  readonly event: UsageEvent
  /** What it holds of monthly token quotas; empty when it was admitted without limits. */
  readonly holds: readonly QuotaCounter[]
}

/** An event in the usage log. */
export interface LoggedEvent {
  readonly event: UsageEvent
  /** True when its reader said that the ledger has it, so it will not be delivered again. */
  readonly acknowledged: boolean
}
