import type { UsageEvent } from '../metering/usage-event.ts'

/**
 * Admission, settlement and the usage log: one component, because settling a reservation and recording what was used
 * must be one atomic step.
 *
 * - A **limit** is a bucket (refills continuously) or a period (a counter that ends with its UTC month).
 * - To **admit** a call is to take its cost from every limit at once, or from none, and to hold a **reservation**.
 * - To **settle** is to replace the reserved cost by the actual one and to append the usage event, atomically and
 *   durably. What was reserved too much returns, clipped at capacity; what was reserved too little is **debt**.
 * - A **lease** bounds a reservation. When it runs out, the reservation settles at the reserved amount and its
 *   `ifAbandoned` event is recorded, so that an admitted call leaves a record even if its gateway dies.
 *
 * Two implementations, one conformance suite: `redis-limits.ts` (shared by all replicas) and `local-limits.ts` (one
 * process, usage log in segment files).
 */
export interface Limits {
  /** Takes every limit of the call or none. Throws LIMITS_UNAVAILABLE when the store cannot be reached. */
  admit(admission: Admission): Promise<AdmissionResult>
  /** Settles once; a second settlement of the same id changes nothing. Resolves when the event is durable. */
  settle(settlement: Settlement): Promise<void>
  /** State of limits without taking anything, in the order asked. */
  read(organizationId: string, limits: readonly Limit[]): Promise<LimitState[]>
  /** The reading end of the usage log. */
  readonly usageLog: UsageLog
  /** Ok, or what is wrong, for health. */
  health(): Promise<{ ok: boolean; detail: string }>
  close(): Promise<void>
}

export type Limit = BucketLimit | PeriodLimit

/** Token bucket: `capacity` units at most, refilled by `refillPerSecond` units a second. */
export interface BucketLimit {
  readonly kind: 'bucket'
  /** Name that refusals show, for example "requests_per_second". */
  readonly name: string
  readonly unit: 'requests' | 'tokens'
  /** "<scope>:<id>" of whom it limits, for example "consumer:<uuid>". */
  readonly subject: string
  /** Storage key, unique within the organization. */
  readonly key: string
  /** Integer, 1 to 1e8. */
  readonly capacity: number
  /** Integer, 1 to 1e6. */
  readonly refillPerSecond: number
}

/** Counter that ends with its period; `capacity` 0 refuses everything. */
export interface PeriodLimit {
  readonly kind: 'period'
  readonly name: string
  readonly unit: 'requests' | 'tokens'
  readonly subject: string
  /** Storage key, unique within the organization; contains the period, for example "…:2026-11". */
  readonly key: string
  /** Integer, 0 to 1e12. */
  readonly capacity: number
  /** Unix milliseconds at which the period ends. */
  readonly endsAtMs: number
}

export interface LimitCost {
  readonly limit: Limit
  /** Integer units to take, 0 to 1e12. */
  readonly amount: number
}

export interface Admission {
  /** UUIDv7 of the call; also the reservation's id. */
  readonly id: string
  readonly organizationId: string
  readonly costs: readonly LimitCost[]
  /** How long the reservation may stay open before it counts as abandoned. */
  readonly leaseMs: number
  /** Recorded when the lease runs out; same event id as the settlement's event. */
  readonly ifAbandoned: UsageEvent
}

export type AdmissionResult =
  | {
      readonly admitted: true
      /** After the take, in the order of `costs`. */
      readonly limits: readonly LimitState[]
    }
  | {
      readonly admitted: false
      /** Index into `costs` of the limit that refuses: of several the one with the longest wait. */
      readonly refusedBy: number
      readonly limits: readonly LimitState[]
      /** Milliseconds until the same cost could be taken, at least 1. */
      readonly retryAfterMs: number
    }

export interface LimitState {
  /** Units left; negative when in debt. */
  readonly remaining: number
  /** Unix milliseconds, by the store's clock, at which the limit is whole again. */
  readonly resetAtMs: number
}

export interface Settlement {
  readonly id: string
  readonly organizationId: string
  /** Actual units, in the order of the admission's `costs`. */
  readonly actual: readonly number[]
  readonly event: UsageEvent
}

/** At-least-once reading end of the usage log; several readers share the work, the ledger's dedupe absorbs repeats. */
export interface UsageLog {
  /**
   * Up to `max` entries that nobody holds, or that their reader gave up on. Waits up to `waitMs` for the first one;
   * an empty batch means that none came.
   */
  read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageLogEntry[]>
  /** The entries are in the ledger: they may be forgotten. */
  acknowledge(entries: readonly UsageLogEntry[]): Promise<void>
  /** Entries not acknowledged yet. */
  backlog(): Promise<number>
  /** Records the reservations whose lease ran out, as abandoned; returns how many. Safe to call from every replica. */
  sweep(): Promise<number>
}

export interface UsageLogEntry {
  /** Opaque position, unique in the log. */
  readonly position: string
  readonly event: UsageEvent
}

/**
 * Units already used in a period according to the ledger. Asked when the store does not know a period counter: at its
 * first use, and after the store lost its data.
 */
export type PeriodSeed = (limit: PeriodLimit) => Promise<number>
