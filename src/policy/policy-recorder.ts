import { createEventBuffer, type EventBuffer, type EventBufferState } from '../events/event-buffer.ts'
import type { EventSink } from '../events/event-sink.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql, StorageLog } from '../storage/postgres.ts'
import type { PolicyViolation, Severity } from './decision.ts'
import { insertDecisions, type RecordedDecision } from './decision-store.ts'
import type { PolicyTold } from './told.ts'
import { insertViolations, type RecordedOutcome, type ViolationRow } from './violation-store.ts'

/** Records what policies decide, beside the path of calls: a call neither waits for it nor fails with it. */
export interface PolicyRecorder {
  /** Takes every violation of a decision, and of as many calls as may be kept what was known of them. */
  decided(told: PolicyTold): void
  /** Records a violation that somebody else found; resolves with its id when it is stored. Throws as storage does. */
  report(reported: ReportedViolation): Promise<string>
  /** Of the violations that wait to be stored. */
  state(): EventBufferState
  /** Stores what waits, within a bound. Never rejects. */
  close(): Promise<void>
}

export interface ReportedViolation {
  readonly policyId: string
  readonly severity: Severity
  readonly message: string
  readonly organizationId: string
  readonly consumerId: string
  readonly serviceId: string
  readonly requestId: string
  /** Subject of the reporter. */
  readonly reportedBy: string
}

/** A violation, for counters and events. */
export interface ToldViolation extends ReportedViolation {
  readonly keyId: string
  readonly policyName: string
  readonly policyVersion: number
  readonly outcome: RecordedOutcome
}

export interface PolicyRecorderOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** UUIDv7. */
  readonly newId: () => string
  /** Unix milliseconds. */
  readonly now: () => number
  /** Calls a second of which the facts are kept; more are let go. 0 keeps none. */
  readonly decisionsPerSecond: number
  /** Told of every violation; must not throw or wait. */
  readonly onViolation: (violation: ToldViolation) => void
  /** Told of records that are given up, because Postgres does not take them; must not throw. */
  readonly onDropped: (kind: 'violation' | 'decision') => void
}

const lingerMs = 500
const batchMax = 500
/** Decisions that wait at most; they hold more than violations do. */
const decisionCapacity = 1_000

export function createPolicyRecorder(options: PolicyRecorderOptions): PolicyRecorder {
  const { sql, log, newId, now, decisionsPerSecond, onViolation, onDropped } = options
  let second = 0
  let kept = 0

  function buffer<T>(
    kind: 'violation' | 'decision',
    insert: (rows: readonly T[]) => Promise<void>,
    capacity?: number,
  ): EventBuffer<T> {
    const sink: Pick<EventSink<T>, 'send' | 'check'> = {
      send: insert,
      check: async () => {
        await sql`select 1`
      },
    }
    return createEventBuffer<T>({
      sink,
      lingerMs,
      batchMax,
      ...(capacity === undefined ? {} : { capacity }),
      onSent: () => {},
      onDropped: () => onDropped(kind),
      onChange: (failing) => {
        if (failing !== undefined) log.warn({ kind, failing }, 'policy records cannot be stored and wait')
        else log.info({ kind }, 'policy records are stored again')
      },
    })
  }

  const violations = buffer<ViolationRow>('violation', (rows) => insertViolations(sql, rows))
  const decisions = buffer<RecordedDecision>('decision', (rows) => insertDecisions(sql, rows), decisionCapacity)

  function isKept(): boolean {
    const current = Math.floor(now() / 1000)
    if (current !== second) {
      second = current
      kept = 0
    }
    kept += 1
    return kept <= decisionsPerSecond
  }

  function record(violation: ToldViolation): ViolationRow {
    onViolation(violation)
    return rowOf(violation, newId(), now())
  }

  return {
    decided(told) {
      const { decision, requestId } = told
      for (const violation of decision.violations) violations.publish(record(toldViolation(told, violation)))
      // What a built-in rule refuses, no policy can allow.
      if (decision.violations.some(({ policyVersion }) => policyVersion === 0) || !isKept()) return
      const facts = told.facts()
      if (facts === undefined) return
      const deniedBy = decision.violations.filter(isDenial).map(({ policyId }) => policyId)
      decisions.publish({ id: newId(), requestId, allowed: decision.allowed, facts, deniedBy })
    },
    async report(reported) {
      const row = rowOf({ ...reported, ...byOthers }, newId(), now())
      await storing(() => insertViolations(sql, [row]))
      onViolation({ ...reported, ...byOthers })
      return row.id
    },
    state: violations.state,
    async close() {
      await Promise.all([violations.close(), decisions.close()])
    },
  }
}

const byOthers = { keyId: '', policyName: '', policyVersion: 0, outcome: 'reported' } as const

function isDenial({ outcome }: PolicyViolation): boolean {
  return outcome === 'denied'
}

function toldViolation({ consumer, service, requestId, keyId }: PolicyTold, violation: PolicyViolation): ToldViolation {
  return {
    ...violation,
    organizationId: consumer.organizationId,
    consumerId: consumer.id,
    serviceId: service.id,
    requestId,
    keyId,
    reportedBy: '',
  }
}

function rowOf(violation: ToldViolation, id: string, nowMs: number): ViolationRow {
  return {
    id,
    created_at: new Date(nowMs),
    policy_id: violation.policyId,
    policy_name: violation.policyName,
    policy_version: violation.policyVersion,
    severity: violation.severity,
    outcome: violation.outcome,
    message: violation.message,
    request_id: violation.requestId,
    organization_id: violation.organizationId,
    consumer_id: violation.consumerId,
    service_id: violation.serviceId,
    reported_by: violation.reportedBy,
  }
}
