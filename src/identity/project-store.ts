import type { ProjectRecord } from '../registry/records.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { one } from './one-row.ts'
import type { Standing } from './standing.ts'

/** Statements on projects, one a function. Errors are Postgres's own. */

export interface ProjectRow {
  readonly id: string
  readonly organization_id: string
  readonly name: string
  readonly status: Standing
  readonly labels: Readonly<Record<string, string>>
  readonly revision: number
  readonly created_at: Date
}

export type NewProjectRow = Omit<ProjectRow, 'revision' | 'created_at'>

export async function insertProject(tx: Transaction, row: NewProjectRow): Promise<ProjectRow> {
  return one(
    await tx<ProjectRow[]>`
      insert into projects (id, organization_id, name, status, labels)
      values (${row.id}, ${row.organization_id}, ${row.name}, ${row.status}, ${tx.json({ ...row.labels })})
      returning *`,
  )
}

/** `id` must be a UUID. */
export async function selectProject(sql: Sql, id: string): Promise<ProjectRow | undefined> {
  const [row] = await sql<ProjectRow[]>`select * from projects where id = ${id}`
  return row
}

/** Held until the transaction ends, without keeping out those who only refer to it. `id` must be a UUID. */
export async function lockProject(tx: Transaction, id: string): Promise<ProjectRow | undefined> {
  const [row] = await tx<ProjectRow[]>`select * from projects where id = ${id} for no key update`
  return row
}

/** Writes what may change of a project, and moves its revision. */
export async function updateProject(tx: Transaction, row: ProjectRow): Promise<ProjectRow> {
  return one(
    await tx<ProjectRow[]>`
      update projects
      set name = ${row.name}, status = ${row.status}, labels = ${tx.json({ ...row.labels })}, revision = revision + 1
      where id = ${row.id}
      returning *`,
  )
}

export interface ProjectFilter {
  /** Undefined: any, here and below. */
  readonly organizationId: string | undefined
  readonly status: Standing | undefined
}

/** By id, from after `afterId`, which must be a UUID. */
export async function selectProjects(
  sql: Sql,
  { organizationId, status }: ProjectFilter,
  afterId: string | undefined,
  limit: number,
): Promise<ProjectRow[]> {
  return sql<ProjectRow[]>`
    select * from projects
    where ${organizationId === undefined ? sql`true` : sql`organization_id = ${organizationId}`}
      ${status === undefined ? sql`` : sql`and status = ${status}`}
      ${afterId === undefined ? sql`` : sql`and id > ${afterId}`}
    order by id limit ${limit}`
}

/** All of them, as snapshots hold them. */
export async function selectProjectRecords(tx: Transaction): Promise<ProjectRecord[]> {
  const rows = await tx<ProjectRow[]>`select * from projects order by id`
  return rows.map(({ id, organization_id: organizationId, name, status, labels }) => {
    return { id, organizationId, name, status, labels }
  })
}
