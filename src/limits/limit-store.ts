import type { Sql, Transaction } from '../storage/postgres.ts'
import type { LimitName, LimitRule, LimitScope } from './limit-rule.ts'

/** Statements on limit_rules, one a function. Errors are Postgres's own. */

/** All rules, in the order of the primary key. */
export async function selectLimitRules(sql: Sql | Transaction): Promise<LimitRule[]> {
  const rows = await sql<LimitRow[]>`select * from limit_rules order by scope, subject_id, service_id, name`
  return rows.map(limitRule)
}

interface LimitRow {
  readonly scope: LimitScope
  readonly subject_id: string
  /** Empty: all services. */
  readonly service_id: string
  readonly name: LimitName
  readonly amount: number
  readonly burst: number | null
  readonly currency: string | null
  readonly updated_at: Date
}

function limitRule(row: LimitRow): LimitRule {
  return {
    scope: row.scope,
    subjectId: row.subject_id,
    serviceId: row.service_id === '' ? undefined : row.service_id,
    name: row.name,
    amount: row.amount,
    burst: row.burst ?? undefined,
    currency: row.currency ?? undefined,
  }
}
