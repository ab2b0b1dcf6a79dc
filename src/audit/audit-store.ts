import type { Sql } from '../storage/postgres.ts'
import type { AuditRecord } from './audit-record.ts'

/** Statements on the audit log, one a function. Errors are Postgres's own. */

/** A row of audit_records. */
export interface AuditRow
  extends Pick<
    AuditRecord,
    | 'id'
    | 'chain'
    | 'sequence'
    | 'kind'
    | 'action'
    | 'actor'
    | 'resource'
    | 'reason'
    | 'count'
    | 'address'
    | 'before'
    | 'after'
  > {
  readonly created_at: Date
  readonly organization_id: string
  readonly request_id: string
  readonly user_agent: string
  readonly previous_hash: string
  readonly hash: string
}

/** The record that a row holds, without its own hash. */
export function recordOf(row: AuditRow): AuditRecord {
  return {
    id: row.id,
    createdAtMs: row.created_at.getTime(),
    chain: row.chain,
    sequence: row.sequence,
    kind: row.kind,
    action: row.action,
    actor: row.actor,
    resource: row.resource,
    organizationId: row.organization_id,
    reason: row.reason,
    count: row.count,
    requestId: row.request_id,
    address: row.address,
    userAgent: row.user_agent,
    before: row.before,
    after: row.after,
    previousHash: row.previous_hash,
  }
}

/** Records in all chains together, as their heads say. */
export async function countAuditRecords(sql: Sql): Promise<number> {
  const [row] = await sql<[{ records: number }]>`select sum(length)::int8 as records from audit_chains`
  return row.records
}

/** What to list; undefined and empty: any. */
export interface AuditFilter {
  readonly kind: 'change' | 'denial' | undefined
  readonly action: string
  readonly actor: string
  /** Kind and id. */
  readonly resource: string
  readonly organizationId: string
  /** Unix milliseconds, from and before. */
  readonly startMs: number | undefined
  readonly endMs: number | undefined
}

/** The last record of the page before. */
export interface AuditPlace {
  readonly createdAtMs: number
  readonly id: string
}

/** A page of records, newest first, from after `after`. Each filter has an index in this order; several share the best one. */
export function selectAudit(
  sql: Sql,
  filter: AuditFilter,
  after: AuditPlace | undefined,
  limit: number,
): Promise<AuditRow[]> {
  const { kind, action, actor, resource, organizationId, startMs, endMs } = filter
  return Promise.resolve(sql<AuditRow[]>`
    select * from audit_records
    where true
      ${kind === undefined ? sql`` : sql`and kind = ${kind}`}
      ${action === '' ? sql`` : sql`and action = ${action}`}
      ${actor === '' ? sql`` : sql`and actor = ${actor}`}
      ${resource === '' ? sql`` : sql`and resource = ${resource}`}
      ${organizationId === '' ? sql`` : sql`and organization_id = ${organizationId}`}
      ${startMs === undefined ? sql`` : sql`and created_at >= ${new Date(startMs)}`}
      ${endMs === undefined ? sql`` : sql`and created_at < ${new Date(endMs)}`}
      ${after === undefined ? sql`` : sql`and (created_at, id) < (${new Date(after.createdAtMs)}, ${after.id}::uuid)`}
    order by created_at desc, id desc limit ${limit}`)
}
