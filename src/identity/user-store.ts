import type { Sql, Transaction } from '../storage/postgres.ts'
import { isRole } from './principal.ts'
import type { Standing } from './standing.ts'
import type { UserRecord } from './user-record.ts'

/** Statements on users, one a function. Errors are Postgres's own. */

export interface UserRow {
  readonly id: string
  readonly organization_id: string | null
  readonly issuer: string
  readonly subject: string
  readonly display_name: string
  readonly email: string
  readonly status: Standing
  readonly roles: readonly string[]
  readonly consumer_id: string | null
  readonly revision: number
  readonly created_at: Date
}

export type NewUserRow = Omit<UserRow, 'revision' | 'created_at'>

export async function insertUser(tx: Transaction, row: NewUserRow): Promise<UserRow> {
  const [stored] = await tx<UserRow[]>`
    insert into users (id, organization_id, issuer, subject, display_name, email, status, roles, consumer_id)
    values (${row.id}, ${row.organization_id}, ${row.issuer}, ${row.subject}, ${row.display_name}, ${row.email},
      ${row.status}, ${[...row.roles]}, ${row.consumer_id})
    returning *`
  if (stored === undefined) throw new Error('an insert returned no row')
  return stored
}

/** `id` must be a UUID. */
export async function selectUser(sql: Sql, id: string): Promise<UserRow | undefined> {
  const [row] = await sql<UserRow[]>`select * from users where id = ${id}`
  return row
}

/** Held until the transaction ends, without keeping out those who only refer to it. `id` must be a UUID. */
export async function lockUser(tx: Transaction, id: string): Promise<UserRow | undefined> {
  const [row] = await tx<UserRow[]>`select * from users where id = ${id} for no key update`
  return row
}

/** Writes what may change of a user, and moves its revision. */
export async function updateUser(tx: Transaction, row: UserRow): Promise<UserRow> {
  const [stored] = await tx<UserRow[]>`
    update users
    set display_name = ${row.display_name}, email = ${row.email}, status = ${row.status}, roles = ${[...row.roles]},
      consumer_id = ${row.consumer_id}, revision = revision + 1
    where id = ${row.id}
    returning *`
  if (stored === undefined) throw new Error('an update returned no row')
  return stored
}

export interface UserFilter {
  /** Undefined: of all organizations and of none. */
  readonly organizationId: string | undefined
  readonly status: Standing | undefined
  /** Empty: any, here and below. */
  readonly issuer: string
  readonly subject: string
}

/** By id, from after `afterId`, which must be a UUID. */
export async function selectUsers(
  sql: Sql,
  { organizationId, status, issuer, subject }: UserFilter,
  afterId: string | undefined,
  limit: number,
): Promise<UserRow[]> {
  const after = afterId === undefined ? sql`` : sql`and id > ${afterId}`
  return sql<UserRow[]>`
    select * from users
    where ${organizationId === undefined ? sql`true` : sql`organization_id = ${organizationId}`}
      ${status === undefined ? sql`` : sql`and status = ${status}`}
      ${issuer === '' ? sql`` : sql`and issuer = ${issuer}`} ${subject === '' ? sql`` : sql`and subject = ${subject}`}
      ${after}
    order by id limit ${limit}`
}

/** All of them, as snapshots hold them. */
export async function selectUserRecords(sql: Transaction): Promise<UserRecord[]> {
  return (await sql<UserRow[]>`select * from users`).map(userRecord)
}

function userRecord(row: UserRow): UserRecord {
  return {
    id: row.id,
    organizationId: row.organization_id ?? undefined,
    issuer: row.issuer,
    subject: row.subject,
    displayName: row.display_name,
    email: row.email,
    status: row.status,
    // A role that this version does not know gives nothing.
    roles: row.roles.filter(isRole),
    consumerId: row.consumer_id ?? undefined,
  }
}
