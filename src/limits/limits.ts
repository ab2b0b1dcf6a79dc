import type { EventBatch } from '../metering/event-batch.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { UsageScope } from '../metering/used-units.ts'

export type { UsageScope }

/**
 * Admission, settlement and the usage log: one component, because settling a reservation and recording what was used
 * must be one atomic step.
 *
 * - A **limit** is a *bucket* (refills continuously), a *period* (a counter of one UTC month) or a *concurrency* (a
 *   counter of open calls).
 * - To **admit** a call is to take its cost from every limit at once, or from none, and to hold a **reservation**.
 * - To **settle** is to replace the reserved cost by the actual one and to append the usage event, atomically and
 *   durably. What was reserved too much returns, clipped at capacity; what was reserved too little is **debt**.
 * - A **lease** bounds a reservation. When it runs out, the reservation settles at the reserved amount and its
 *   `ifAbandoned` event is recorded, so that an admitted call leaves a record even if its gateway dies. A settlement
 *   that comes after that corrects the record and the counters.
 * - A **seed** is what the ledger knows of a period. A period counter that the store does not know is *unknown*, and
 *   admits nothing until it was seeded; whoever doubts a counter makes it unknown again.
 * - A **threshold** of a period is told once, by the first settlement that finds the counter beyond it.
 * - A **claim** belongs to a call with an idempotency key: one call at a time holds it, and when that call was answered,
 *   the claim keeps the answer for the others.
 *
 * Two implementations, one conformance suite: `redis-limits.ts` (shared by all replicas) and `local-limits.ts` (one
 * process, usage log in segment files).
 */
export interface Limits {
  /**
   * Takes every limit of the call or none. Throws LIMITS_UNAVAILABLE when the store cannot be reached or a period's
   * seed cannot be had.
   */
  admit(admission: Admission): Promise<AdmissionResult>
  /**
   * Settles once; a second settlement of the same id changes nothing. Resolves when the event is durable: then it
   * survives everything that the store survives.
   */
  settle(settlement: Settlement): Promise<Settled>
  /**
   * Appends correcting entries to the usage log and makes the named period counters unknown, so that they follow the
   * ledger. May be repeated: the ledger absorbs events that it has.
   */
  correct(correction: Correction): Promise<void>
  /** State of limits without taking anything, in the order asked. */
  read(limits: readonly Limit[]): Promise<LimitState[]>
  /** The reading end of the usage log. */
  readonly usageLog: UsageLog
  /** Ok, or what is wrong, for health. */
  health(): Promise<LimitsHealth>
  close(): Promise<void>
}

export interface LimitsHealth {
  /** False when calls fail. */
  readonly ok: boolean
  /** True when calls go on, and something needs a look. Default false. */
  readonly isDegraded?: boolean
  readonly detail: string
}

export type Limit = BucketLimit | PeriodLimit | ConcurrencyLimit

/** What an amount counts; `nanos` are nano-units of the limit's currency, `calls` are calls at once. */
export type LimitUnit = 'requests' | 'tokens' | 'nanos' | 'calls'

interface AnyLimit {
  /** Name that refusals show, for example "requests_per_second". */
  readonly name: string
  readonly unit: LimitUnit
  /** "<scope>:<id>" of whom it limits, for example "consumer:<uuid>". */
  readonly subject: string
  /** Of the subject's calls only those to this service count; empty: all of them. */
  readonly serviceId: string
  /** Storage key, unique in the whole deployment: see `limit-keys.ts`. */
  readonly key: string
}

/** Token bucket: `capacity` units at most, refilled by `refill` units in every `windowMs`. */
export interface BucketLimit extends AnyLimit {
  readonly kind: 'bucket'
  /** Integer, 1 to 1e8; at most 5e7 with a window of a minute. */
  readonly capacity: number
  /** Integer, 1 to 1e6 a second, to 5e7 a minute. */
  readonly refill: number
  readonly windowMs: 1_000 | 60_000
}

/** Counter of one UTC month; `capacity` 0 refuses everything. */
export interface PeriodLimit extends AnyLimit {
  readonly kind: 'period'
  /** Integer, 0 to 8e15. */
  readonly capacity: number
  /** Unix milliseconds at which the period ends. */
  readonly endsAtMs: number
  /** ISO 4217; only with the unit `nanos`, else empty. */
  readonly currency: string
  /** Whose usage it counts: what the ledger must add up to know the counter. */
  readonly scope: UsageScope
}

/** Calls that are open at once. */
export interface ConcurrencyLimit extends AnyLimit {
  readonly kind: 'concurrency'
  /** Integer, 1 to 1e6. */
  readonly capacity: number
}

export interface LimitCost {
  readonly limit: Limit
  /** Integer units to take, 0 to 1e15. */
  readonly amount: number
}

export interface Admission {
  /** UUIDv7 of the reservation: that of the call, unless another service takes the call over. */
  readonly id: string
  readonly costs: readonly LimitCost[]
  /** How long the reservation may stay open before it counts as abandoned. */
  readonly leaseMs: number
  /** Recorded when the lease runs out; same event id as the settlement's event. */
  readonly ifAbandoned: UsageEvent
  /** Only of a call with an idempotency key. */
  readonly claim?: Claim
}

export interface Claim {
  /** Storage key, unique in the deployment. */
  readonly key: string
  /** Digest of all that must be the same in a repetition. */
  readonly fingerprint: string
}

export type AdmissionResult =
  | {
      readonly outcome: 'admitted'
      /** After the take, in the order of `costs`. */
      readonly limits: readonly LimitState[]
    }
  | {
      readonly outcome: 'refused'
      /** Index into `costs` of the limit that refuses: of several the one with the longest wait. */
      readonly refusedBy: number
      readonly limits: readonly LimitState[]
      /** Milliseconds until the same cost could be taken, at least 1. A guess where a concurrency refuses. */
      readonly retryAfterMs: number
    }
  /** Another call holds the claim: ask again. Nothing was taken. */
  | { readonly outcome: 'running' }
  /** The claim keeps this answer. Nothing was taken. */
  | { readonly outcome: 'answered'; readonly answer: Uint8Array }
  /** The claim belongs to a call with another fingerprint. Nothing was taken. */
  | { readonly outcome: 'mismatch' }

export interface LimitState {
  /** Units left; negative when in debt. What open reservations hold is not left. */
  readonly remaining: number
  /** Unix milliseconds, by the store's clock, at which the limit is whole again; for a concurrency, now. */
  readonly resetAtMs: number
}

export interface Settlement {
  /** What is settled: the same that was admitted. */
  readonly admission: Admission
  /** Actual units, in the order of the admission's `costs`; of a concurrency it is ignored, the call is over. */
  readonly actual: readonly number[]
  readonly event: UsageEvent
  /** What the call's claim keeps for repetitions; without it the claim is given up, and a repetition is a new call. */
  readonly answer?: Uint8Array
}

export interface Settled {
  /**
   * Period limits of the call whose settled use is beyond a threshold, in percent of the capacity, of which nobody was told
   * in this month: this settlement passed it, or something else did that nobody hears of, like an abandoned call, a
   * correction, or a settlement while the counter was unknown.
   */
  readonly crossed: readonly { readonly limit: PeriodLimit; readonly used: number; readonly threshold: 80 | 100 }[]
}

/** A settlement that led no counter beyond a threshold. */
export const nothingCrossed: Settled = { crossed: [] }

export interface Correction {
  readonly events: readonly UsageEvent[]
  /** Keys of period limits, existing or not. */
  readonly counters: readonly string[]
}

/** At-least-once reading end of the usage log; several readers share the work, the ledger's dedupe absorbs repeats. */
export interface UsageLog {
  /**
   * Up to `max` events that nobody holds, or that their reader gave up on. Waits up to `waitMs` for the first one; an
   * empty batch means that none came.
   */
  read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageBatch>
  /** Events not acknowledged yet. */
  backlog(): Promise<number>
  /** Records the reservations whose lease ran out, as abandoned; returns how many. Safe to call from every replica. */
  sweep(): Promise<number>
}

/** What a reader of the usage log holds until it acknowledges it, or gives up on it. */
export interface UsageBatch extends EventBatch {
  /** The events are in the ledger: they may be forgotten. May be repeated. */
  acknowledge(): Promise<void>
}

/**
 * Units used in a period according to the ledger, and according to those of `waiting` that the ledger does not have yet,
 * both as of one moment. `waiting` are the events of the limit's scope and month that the usage log holds.
 */
export type PeriodSeed = (limit: PeriodLimit, waiting: readonly UsageEvent[]) => Promise<number>
