import { isUuid } from '../ids.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { LimitName, LimitRule, LimitScope } from './limit-rule.ts'

/** Statements on limit_rules, one a function. Errors are Postgres's own. */

export interface LimitRow {
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

/** What makes a rule one and the same: the primary key, in its order. */
export type RuleKey = Pick<LimitRow, 'scope' | 'subject_id' | 'service_id' | 'name'>

/** All rules, in the order of the primary key. */
export async function selectLimitRules(sql: Sql | Transaction): Promise<LimitRule[]> {
  const rows = await sql<LimitRow[]>`select * from limit_rules order by scope, subject_id, service_id, name`
  return rows.map((row) => ({
    scope: row.scope,
    subjectId: row.subject_id,
    serviceId: row.service_id === '' ? undefined : row.service_id,
    name: row.name,
    amount: row.amount,
    burst: row.burst ?? undefined,
    currency: row.currency ?? undefined,
  }))
}

export interface LimitFilter {
  /** Undefined: of any scope. */
  readonly scope: LimitScope | undefined
  /** Empty: of any subject. */
  readonly subjectId: string
  /** Only calls to this service, its own rules included; empty: any. */
  readonly serviceId: string
}

/** A page of rules in the order of the primary key, from after `after`. */
export async function selectLimits(
  sql: Sql,
  filter: LimitFilter,
  after: RuleKey | undefined,
  limit: number,
): Promise<LimitRow[]> {
  const { scope, subjectId, serviceId } = filter
  return sql<LimitRow[]>`
    select * from limit_rules
    where true
      ${scope === undefined ? sql`` : sql`and scope = ${scope}`}
      ${subjectId === '' ? sql`` : sql`and subject_id = ${subjectId}`}
      ${
        serviceId === ''
          ? sql``
          : sql`and (service_id = ${serviceId} or scope in ('service', 'service_consumer') and subject_id = ${serviceId})`
      }
      ${
        after === undefined
          ? sql``
          : sql`and (scope, subject_id, service_id, name)
              > (${after.scope}, ${after.subject_id}, ${after.service_id}, ${after.name})`
      }
    order by scope, subject_id, service_id, name limit ${limit}`
}

/** The rule as it is afterwards. One that is so already stays as it is, with its time. */
export async function upsertLimit(sql: Sql, row: Omit<LimitRow, 'updated_at'>): Promise<LimitRow> {
  const { scope, subject_id, service_id, name, amount, burst, currency } = row
  const [same] = await sql<LimitRow[]>`
    select * from limit_rules where ${theOne(sql, row)}
      and amount = ${amount} and burst is not distinct from ${burst} and currency is not distinct from ${currency}`
  // An update to the same would still tell every gateway of a change.
  if (same !== undefined) return same
  const [stored] = await sql<[LimitRow]>`
    insert into limit_rules (scope, subject_id, service_id, name, amount, burst, currency)
    values (${scope}, ${subject_id}, ${service_id}, ${name}, ${amount}, ${burst}, ${currency})
    on conflict (scope, subject_id, service_id, name) do update
      set amount = excluded.amount, burst = excluded.burst, currency = excluded.currency, updated_at = now()
    returning *`
  return stored
}

/** False when there is none. */
export async function deleteLimit(sql: Sql, key: RuleKey): Promise<boolean> {
  const [found] = await sql`select from limit_rules where ${theOne(sql, key)}`
  // Deleting nothing would still tell every gateway of a change.
  if (found === undefined) return false
  const gone = await sql`delete from limit_rules where ${theOne(sql, key)} returning 1`
  return gone.length > 0
}

/** Whether the organization, consumer, key or service that a rule names is there. */
export async function subjectExists(sql: Sql, scope: LimitScope, id: string): Promise<boolean> {
  if (scope !== 'key' && !isUuid(id)) return false
  const rows = await sql`select from ${sql(subjectTables[scope])} where id = ${id}`
  return rows.length > 0
}

const subjectTables: Readonly<Record<LimitScope, string>> = {
  organization: 'organizations',
  consumer: 'consumers',
  key: 'api_keys',
  service: 'services',
  service_consumer: 'services',
}

function theOne(sql: Sql, key: RuleKey) {
  return sql`scope = ${key.scope} and subject_id = ${key.subject_id} and service_id = ${key.service_id}
    and name = ${key.name}`
}
