import type { DataClassification } from '../registry/classification.ts'
import type { OrganizationRecord, Tier } from '../registry/records.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { one } from './one-row.ts'
import type { Standing } from './standing.ts'

/** Statements on organizations, one a function. Errors are Postgres's own. */

export interface OrganizationRow {
  readonly id: string
  readonly name: string
  readonly status: Standing
  readonly tier: Tier
  readonly clearance: DataClassification
  readonly home_region: string
  readonly granted_services: readonly string[]
  readonly revision: number
  readonly created_at: Date
}

export type NewOrganizationRow = Omit<OrganizationRow, 'revision' | 'created_at'>

export async function insertOrganization(tx: Transaction, row: NewOrganizationRow): Promise<OrganizationRow> {
  return one(
    await tx<OrganizationRow[]>`
      insert into organizations (id, name, status, tier, clearance, home_region, granted_services)
      values (${row.id}, ${row.name}, ${row.status}, ${row.tier}, ${row.clearance}, ${row.home_region},
        ${[...row.granted_services]})
      returning *`,
  )
}

/** `id` must be a UUID. */
export async function selectOrganization(sql: Sql | Transaction, id: string): Promise<OrganizationRow | undefined> {
  const [row] = await sql<OrganizationRow[]>`select * from organizations where id = ${id}`
  return row
}

/** Held until the transaction ends, without keeping out those who only refer to it. `id` must be a UUID. */
export async function lockOrganization(tx: Transaction, id: string): Promise<OrganizationRow | undefined> {
  const [row] = await tx<OrganizationRow[]>`select * from organizations where id = ${id} for no key update`
  return row
}

/** Writes what may change of an organization, and moves its revision. */
export async function updateOrganization(tx: Transaction, row: OrganizationRow): Promise<OrganizationRow> {
  return one(
    await tx<OrganizationRow[]>`
      update organizations
      set name = ${row.name}, status = ${row.status}, tier = ${row.tier}, clearance = ${row.clearance},
        home_region = ${row.home_region}, granted_services = ${[...row.granted_services]}, revision = revision + 1
      where id = ${row.id}
      returning *`,
  )
}

export interface OrganizationFilter {
  /** Undefined: any, here and below. */
  readonly id: string | undefined
  readonly status: Standing | undefined
  readonly tier: Tier | undefined
}

/** By id, from after `afterId`, which must be a UUID. */
export async function selectOrganizations(
  sql: Sql,
  { id, status, tier }: OrganizationFilter,
  afterId: string | undefined,
  limit: number,
): Promise<OrganizationRow[]> {
  return sql<OrganizationRow[]>`
    select * from organizations
    where ${id === undefined ? sql`true` : sql`id = ${id}`} ${status === undefined ? sql`` : sql`and status = ${status}`}
      ${tier === undefined ? sql`` : sql`and tier = ${tier}`} ${afterId === undefined ? sql`` : sql`and id > ${afterId}`}
    order by id limit ${limit}`
}

/** All of them, as snapshots hold them. */
export async function selectOrganizationRecords(tx: Transaction): Promise<OrganizationRecord[]> {
  const rows = await tx<OrganizationRow[]>`select * from organizations order by id`
  return rows.map(({ id, name, status, tier, clearance, home_region: homeRegion }) => {
    return { id, name, status, tier, clearance, homeRegion }
  })
}
