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

/**
 * The rule as it is, for a transaction that changes it. Whoever else changes a rule waits for its end, also where there is no
 * rule yet: else two who add the same one would both say that there was none before.
 */
export async function lockLimit(tx: Transaction, key: RuleKey): Promise<LimitRow | undefined> {
  await tx`select from control_version for update`
  const [row] = await tx<LimitRow[]>`select * from limit_rules where ${theOne(tx, key)}`
  return row
}

/** The rule as it is afterwards. */
export async function upsertLimit(tx: Transaction, row: Omit<LimitRow, 'updated_at'>): Promise<LimitRow> {
  const { scope, subject_id, service_id, name, amount, burst, currency } = row
  const [stored] = await tx<[LimitRow]>`
    insert into limit_rules (scope, subject_id, service_id, name, amount, burst, currency)
    values (${scope}, ${subject_id}, ${service_id}, ${name}, ${amount}, ${burst}, ${currency})
    on conflict (scope, subject_id, service_id, name) do update
      set amount = excluded.amount, burst = excluded.burst, currency = excluded.currency, updated_at = now()
    returning *`
  return stored
}

export async function deleteLimit(tx: Transaction, key: RuleKey): Promise<void> {
  await tx`delete from limit_rules where ${theOne(tx, key)}`
}

/** Organization that the subject of a rule belongs to; empty for a service, and for what is not there any more. */
export async function selectLimitOwner(tx: Transaction, { scope, subject_id }: RuleKey): Promise<string> {
  if (scope === 'organization') return subject_id
  if (scope === 'service' || scope === 'service_consumer') return ''
  const [owner] =
    scope === 'consumer'
      ? await tx<{ id: string }[]>`select organization_id as id from consumers where id = ${subject_id}`
      : await tx<{ id: string }[]>`
          select c.organization_id as id from api_keys k join consumers c on c.id = k.consumer_id where k.id = ${subject_id}`
  return owner?.id ?? ''
}

/** Whether the organization, consumer, key or service that a rule names is there. */
export async function subjectExists(sql: Sql | Transaction, scope: LimitScope, id: string): Promise<boolean> {
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

function theOne(sql: Transaction, key: RuleKey) {
  return sql`scope = ${key.scope} and subject_id = ${key.subject_id} and service_id = ${key.service_id}
    and name = ${key.name}`
}
