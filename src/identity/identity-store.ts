import type { ConsumerStatus, LimitOverrides, Tier } from '../registry/records.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { KeyRecord } from './key-verifier.ts'

/** Statements on organizations, consumers and api_keys, one a function. Errors are Postgres's own. */

export interface OrganizationRow {
  readonly id: string
  readonly name: string
  readonly created_at: Date
}

export interface ConsumerRow {
  readonly id: string
  readonly organization_id: string
  readonly name: string
  readonly tier: Tier
  readonly status: ConsumerStatus
  readonly granted_services: readonly string[]
  readonly overrides: LimitOverrides
  readonly created_at: Date
}

export interface KeyRow {
  readonly id: string
  readonly consumer_id: string
  readonly name: string
  readonly created_at: Date
  readonly expires_at: Date | null
  readonly revoked_at: Date | null
}

export async function insertOrganization(
  sql: Sql | Transaction,
  row: { id: string; name: string },
): Promise<OrganizationRow> {
  const rows = await sql<OrganizationRow[]>`
    insert into organizations (id, name) values (${row.id}, ${row.name})
    returning id, name, created_at`
  return one(rows)
}

export async function insertConsumer(
  sql: Sql | Transaction,
  row: Omit<ConsumerRow, 'created_at'>,
): Promise<ConsumerRow> {
  const rows = await sql<ConsumerRow[]>`
    insert into consumers (id, organization_id, name, tier, status, granted_services, overrides)
    values (${row.id}, ${row.organization_id}, ${row.name}, ${row.tier}, ${row.status},
      ${[...row.granted_services]}, ${sql.json({ ...row.overrides })})
    returning *`
  return one(rows)
}

/** `id` must be a UUID. */
export async function selectConsumer(sql: Sql, id: string): Promise<ConsumerRow | undefined> {
  const [row] = await sql<ConsumerRow[]>`select * from consumers where id = ${id}`
  return row
}

/** By id, from after `afterId`, which must be a UUID. */
export async function selectConsumers(sql: Sql, afterId: string | undefined, limit: number): Promise<ConsumerRow[]> {
  const after = afterId === undefined ? sql`` : sql`where id > ${afterId}`
  return sql<ConsumerRow[]>`select * from consumers ${after} order by id limit ${limit}`
}

export interface NewKey {
  readonly id: string
  readonly consumerId: string
  readonly name: string
  readonly secretHash: string
  readonly secretTag: number
  /** 0 means never. */
  readonly expiresInDays: number
}

export async function insertKey(sql: Sql, key: NewKey): Promise<KeyRow> {
  const days = key.expiresInDays === 0 ? null : key.expiresInDays
  const rows = await sql<KeyRow[]>`
    insert into api_keys (id, consumer_id, name, secret_hash, secret_tag, expires_at)
    values (${key.id}, ${key.consumerId}, ${key.name}, ${key.secretHash}, ${key.secretTag},
      now() + make_interval(days => ${days}::int))
    returning id, consumer_id, name, created_at, expires_at, revoked_at`
  return one(rows)
}

/** A consumer's keys, newest first; by api_keys_consumer_id_created_at_id_idx. */
export async function selectKeys(
  sql: Sql,
  consumerId: string,
  after: { createdAt: string; id: string } | undefined,
  limit: number,
): Promise<KeyRow[]> {
  const older = after === undefined ? sql`` : sql`and (created_at, id) < (${after.createdAt}::timestamptz, ${after.id})`
  return sql<KeyRow[]>`
    select id, consumer_id, name, created_at, expires_at, revoked_at from api_keys
    where consumer_id = ${consumerId} ${older}
    order by created_at desc, id desc limit ${limit}`
}

/** The key as it is afterwards; undefined when the consumer has no such key. A first revocation's time stays. */
export async function revokeKey(sql: Sql, consumerId: string, keyId: string): Promise<KeyRow | undefined> {
  const [found] = await sql<KeyRow[]>`
    select id, consumer_id, name, created_at, expires_at, revoked_at from api_keys
    where id = ${keyId} and consumer_id = ${consumerId}`
  // An update of nothing would still tell every gateway of a change.
  if (found === undefined || found.revoked_at !== null) return found
  const [row] = await sql<KeyRow[]>`
    update api_keys set revoked_at = coalesce(revoked_at, now())
    where id = ${keyId} and consumer_id = ${consumerId}
    returning id, consumer_id, name, created_at, expires_at, revoked_at`
  return row
}

/** Id of the consumer that a key belongs to, revoked or not; undefined when there is no such key. */
export async function selectKeyOwner(sql: Sql, keyId: string): Promise<string | undefined> {
  const [row] = await sql<{ consumer_id: string }[]>`select consumer_id from api_keys where id = ${keyId}`
  return row?.consumer_id
}

/** What the verifier needs of each key; unknown ids are left out. */
export async function selectKeyRecords(sql: Sql, keyIds: readonly string[]): Promise<KeyRecord[]> {
  const rows = await sql<KeyRecordRow[]>`
    select k.id, k.consumer_id, c.organization_id, c.status, k.secret_hash, k.secret_tag, k.expires_at, k.revoked_at
    from api_keys k join consumers c on c.id = k.consumer_id
    where k.id = any(${[...keyIds]}::text[])`
  return rows.map((row) => ({
    id: row.id,
    consumerId: row.consumer_id,
    organizationId: row.organization_id,
    consumerStatus: row.status,
    secretHash: row.secret_hash,
    secretTag: row.secret_tag,
    expiresAtMs: row.expires_at?.getTime(),
    revokedAtMs: row.revoked_at?.getTime(),
  }))
}

interface KeyRecordRow {
  readonly id: string
  readonly consumer_id: string
  readonly organization_id: string
  readonly status: ConsumerStatus
  readonly secret_hash: string
  readonly secret_tag: number
  readonly expires_at: Date | null
  readonly revoked_at: Date | null
}

function one<T>(rows: readonly T[]): T {
  const [row] = rows
  if (row === undefined) throw new Error('an insert returned no row')
  return row
}
