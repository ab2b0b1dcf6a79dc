import type { Sql } from '../storage/postgres.ts'
import type { Outcome, Severity } from './decision.ts'

/** Statements on recorded violations. */

export type RecordedOutcome = Outcome | 'reported'

export interface ViolationRow {
  readonly id: string
  readonly created_at: Date
  readonly policy_id: string
  readonly policy_name: string
  readonly policy_version: number
  readonly severity: Severity
  readonly outcome: RecordedOutcome
  readonly message: string
  readonly request_id: string
  readonly organization_id: string
  readonly consumer_id: string
  readonly service_id: string
  readonly reported_by: string
}

/** At least one; those that are there already stay. */
export async function insertViolations(sql: Sql, rows: readonly ViolationRow[]): Promise<void> {
  await sql`insert into policy_violations ${sql(rows)} on conflict (id) do nothing`
}

export interface ViolationFilter {
  /** Empty or undefined here and below: any. */
  readonly policyId: string
  readonly consumerId: string
  readonly serviceId: string
  readonly severity: Severity | undefined
  readonly fromMs: number | undefined
  readonly beforeMs: number | undefined
}

/** Newest first. */
export async function selectViolations(
  sql: Sql,
  filter: ViolationFilter,
  beforeId: string | undefined,
  limit: number,
): Promise<ViolationRow[]> {
  const { policyId, consumerId, serviceId, severity, fromMs, beforeMs } = filter
  const none = sql``
  return await sql<ViolationRow[]>`
    select * from policy_violations where true
      ${beforeId === undefined ? none : sql`and id < ${beforeId}`}
      ${policyId === '' ? none : sql`and policy_id = ${policyId}`}
      ${consumerId === '' ? none : sql`and consumer_id = ${consumerId}`}
      ${serviceId === '' ? none : sql`and service_id = ${serviceId}`}
      ${severity === undefined ? none : sql`and severity = ${severity}`}
      ${fromMs === undefined ? none : sql`and created_at >= to_timestamp(${fromMs}::int8 / 1000.0)`}
      ${beforeMs === undefined ? none : sql`and created_at < to_timestamp(${beforeMs}::int8 / 1000.0)`}
    order by id desc limit ${limit}`
}
