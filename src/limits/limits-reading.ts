import type { UsageEvent } from '../metering/usage-event.ts'

/** What a store of limits holds at a moment, read without changing anything: one side of the books. */
export interface LimitsReading {
  /** Every period counter; undefined when the store keeps no counters of its own while nothing runs. */
  readonly counters: readonly CounterReading[] | undefined
  readonly reservations: readonly OpenReservation[]
  /** What replicas hold of period counters for calls to come; undefined where nobody does. */
  readonly slices?: readonly Hold[]
  /** Every event that the usage log still holds, those included that the ledger may have already. */
  readonly events: readonly LoggedEvent[]
  /** Entries that are no usage event: nobody can say what they are worth. */
  readonly unreadable: number
}

/** A period counter. */
export interface CounterReading {
  /** As `periodKey` of limit-keys.ts writes it. */
  readonly key: string
  /** Settled units; undefined while the counter is unknown. */
  readonly used: number | undefined
  /** Units of open reservations and slices. */
  readonly held: number
}

/** A call that was admitted and not settled. */
export interface OpenReservation {
  /** What is recorded if its lease runs out; has the id of the attempt's event. */
  readonly event: UsageEvent
  /** What it holds of period counters; empty when it was admitted without any. */
  readonly holds: readonly Hold[]
}

/** Units of a period counter that are held. */
export interface Hold {
  readonly key: string
  readonly units: number
}

/** An event in the usage log. */
export interface LoggedEvent {
  readonly event: UsageEvent
  /** True when its reader said that the ledger has it, so it will not be delivered again. */
  readonly acknowledged: boolean
}
