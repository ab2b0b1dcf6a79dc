import { type DataClassification, mayReceive } from '../registry/classification.ts'
import type { ConsumerRecord, LimitOverrides, Tier } from '../registry/records.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { one } from './one-row.ts'
import type { Standing } from './standing.ts'

/** Statements on consumers, one a function. Errors are Postgres's own. */

export interface ConsumerRow {
  readonly id: string
  readonly organization_id: string
  /** Null for none. */
  readonly project_id: string | null
  readonly name: string
  readonly tier: Tier
  readonly status: Standing
  readonly granted_services: readonly string[]
  readonly overrides: LimitOverrides
  /** Null: the organization's. */
  readonly clearance: DataClassification | null
  /** Empty: the organization's. */
  readonly home_region: string
  readonly revision: number
  readonly created_at: Date
}

export type NewConsumerRow = Omit<ConsumerRow, 'revision' | 'created_at'>

export async function insertConsumer(tx: Transaction, row: NewConsumerRow): Promise<ConsumerRow> {
  return one(
    await tx<ConsumerRow[]>`
      insert into consumers (id, organization_id, project_id, name, tier, status, granted_services, overrides, clearance,
        home_region)
      values (${row.id}, ${row.organization_id}, ${row.project_id}, ${row.name}, ${row.tier}, ${row.status},
        ${[...row.granted_services]}, ${tx.json({ ...row.overrides })}, ${row.clearance}, ${row.home_region})
      returning *`,
  )
}

/** `id` must be a UUID. */
export async function selectConsumer(sql: Sql, id: string): Promise<ConsumerRow | undefined> {
  const [row] = await sql<ConsumerRow[]>`select * from consumers where id = ${id}`
  return row
}

/** Held until the transaction ends, without keeping out those who only refer to it. `id` must be a UUID. */
export async function lockConsumer(tx: Transaction, id: string): Promise<ConsumerRow | undefined> {
  const [row] = await tx<ConsumerRow[]>`select * from consumers where id = ${id} for no key update`
  return row
}

/** Writes what may change of a consumer, and moves its revision. */
export async function updateConsumer(tx: Transaction, row: ConsumerRow): Promise<ConsumerRow> {
  return one(
    await tx<ConsumerRow[]>`
      update consumers
      set project_id = ${row.project_id}, name = ${row.name}, tier = ${row.tier}, status = ${row.status},
        granted_services = ${[...row.granted_services]}, overrides = ${tx.json({ ...row.overrides })},
        clearance = ${row.clearance}, home_region = ${row.home_region}, revision = revision + 1
      where id = ${row.id}
      returning *`,
  )
}

export interface ConsumerFilter {
  /** Undefined: any, here and below. */
  readonly organizationId: string | undefined
  readonly projectId: string | undefined
  readonly status: Standing | undefined
  readonly tier: Tier | undefined
}

/** By id, from after `afterId`, which must be a UUID. */
export async function selectConsumers(
  sql: Sql,
  { organizationId, projectId, status, tier }: ConsumerFilter,
  afterId: string | undefined,
  limit: number,
): Promise<ConsumerRow[]> {
  return sql<ConsumerRow[]>`
    select * from consumers
    where ${organizationId === undefined ? sql`true` : sql`organization_id = ${organizationId}`}
      ${projectId === undefined ? sql`` : sql`and project_id = ${projectId}`}
      ${status === undefined ? sql`` : sql`and status = ${status}`} ${tier === undefined ? sql`` : sql`and tier = ${tier}`}
      ${afterId === undefined ? sql`` : sql`and id > ${afterId}`}
    order by id limit ${limit}`
}

/** All of them, as snapshots hold them. */
export async function selectConsumerRecords(tx: Transaction): Promise<ConsumerRecord[]> {
  const rows = await tx<RecordRow[]>`
    select c.*, o.clearance as organization_clearance, o.home_region as organization_home_region
    from consumers c join organizations o on o.id = c.organization_id
    order by c.id`
  return rows.map((row) => ({
    id: row.id,
    organizationId: row.organization_id,
    projectId: row.project_id ?? undefined,
    name: row.name,
    tier: row.tier,
    status: row.status,
    grantedServices: new Set(row.granted_services),
    overrides: row.overrides,
    clearance: lowerOf(row.clearance ?? row.organization_clearance, row.organization_clearance),
    homeRegion: row.home_region === '' ? row.organization_home_region : row.home_region,
  }))
}

interface RecordRow extends ConsumerRow {
  readonly organization_clearance: DataClassification
  readonly organization_home_region: string
}

function lowerOf(one: DataClassification, other: DataClassification): DataClassification {
  return mayReceive(one, other) ? other : one
}
