import type { ConsumerStatus } from '../registry/records.ts'
import type { Sql } from '../storage/postgres.ts'
import type { KeyRecord } from './key-verifier.ts'
import { one } from './one-row.ts'

/** Statements on api_keys, one a function. Errors are Postgres's own. */

export interface KeyRow {
  readonly id: string
  readonly consumer_id: string
  readonly name: string
  readonly created_at: Date
  readonly expires_at: Date | null
  readonly revoked_at: Date | null
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
