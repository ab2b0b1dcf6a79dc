import type { KeyTier } from '../limits/call-limits.ts'
import type { ConsumerStatus, Tier } from '../registry/records.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { KeyEnvironment } from './key-format.ts'
import { keyScopes } from './key-scopes.ts'
import type { KeyRecord } from './key-verifier.ts'

/** Statements on api_keys, one a function. Errors are Postgres's own. */

/** A key as it is shown; nothing in it is secret. */
export interface KeyRow {
  readonly id: string
  readonly consumer_id: string
  readonly name: string
  readonly environment: KeyEnvironment
  readonly metadata: Readonly<Record<string, string>>
  readonly scope_services: readonly string[]
  readonly scope_permissions: readonly string[]
  readonly scope_models: readonly string[]
  readonly tier: Tier | null
  readonly tier_replaces: boolean
  readonly made_with: string | null
  readonly rotated_from: string | null
  readonly rotated_to: string | null
  readonly request_digest: string | null
  readonly revision: number
  readonly created_at: Date
  readonly expires_at: Date | null
  readonly revoked_at: Date | null
  readonly used_at: Date | null
  readonly used_address: string | null
}

/** What is stored of a key when it is made. */
export type NewKey = Omit<KeyRow, 'rotated_to' | 'revision' | 'revoked_at' | 'used_at' | 'used_address'> & KeySecret

/** What a secret is checked by. */
export interface KeySecret {
  readonly secret_hash: string
  readonly secret_tag: number
}

/** What an update may change. */
export type KeyChange = Pick<
  KeyRow,
  | 'name'
  | 'metadata'
  | 'scope_services'
  | 'scope_permissions'
  | 'scope_models'
  | 'tier'
  | 'tier_replaces'
  | 'expires_at'
>

/**
 * Locks a consumer, so that its keys change one after the other; returns its organization and tier, undefined when there is
 * no such consumer.
 */
export async function lockConsumer(
  tx: Transaction,
  consumerId: string,
): Promise<{ organization_id: string; tier: Tier } | undefined> {
  const [row] = await tx<{ organization_id: string; tier: Tier }[]>`
    select organization_id, tier from consumers where id = ${consumerId} for no key update`
  return row
}

export async function insertKey(tx: Transaction, key: NewKey): Promise<void> {
  const metadata = tx.json(key.metadata)
  await tx`
    insert into api_keys ${tx({
      ...key,
      metadata,
      scope_services: [...key.scope_services],
      scope_permissions: [...key.scope_permissions],
      scope_models: [...key.scope_models],
    })}`
}

/** The consumer's key; undefined when it has none of this id. */
export async function selectKey(
  sql: Sql | Transaction,
  consumerId: string,
  keyId: string,
): Promise<KeyRow | undefined> {
  const [row] = await sql<KeyRow[]>`${shown(sql)} where k.consumer_id = ${consumerId} and k.id = ${keyId}`
  return row
}

/** A consumer's keys, newest first; by api_keys_consumer_id_created_at_id_idx. */
export async function selectKeys(
  sql: Sql,
  consumerId: string,
  after: { createdAt: string; id: string } | undefined,
  limit: number,
): Promise<KeyRow[]> {
  const older =
    after === undefined ? sql`` : sql`and (k.created_at, k.id) < (${after.createdAt}::timestamptz, ${after.id})`
  return sql<KeyRow[]>`
    ${shown(sql)} where k.consumer_id = ${consumerId} ${older} order by k.created_at desc, k.id desc limit ${limit}`
}

/** Gives a key another secret: the one before is good no more. */
export async function updateSecret(tx: Transaction, keyId: string, secret: KeySecret): Promise<void> {
  await tx`
    update api_keys set secret_hash = ${secret.secret_hash}, secret_tag = ${secret.secret_tag}, revision = revision + 1
    where id = ${keyId}`
}

export async function updateKey(tx: Transaction, keyId: string, change: KeyChange): Promise<void> {
  await tx`
    update api_keys set name = ${change.name}, metadata = ${tx.json(change.metadata)},
      scope_services = ${[...change.scope_services]}, scope_permissions = ${[...change.scope_permissions]},
      scope_models = ${[...change.scope_models]}, tier = ${change.tier}, tier_replaces = ${change.tier_replaces},
      expires_at = ${change.expires_at}, revision = revision + 1
    where id = ${keyId}`
}

export async function updateExpiry(tx: Transaction, keyId: string, expiresAt: Date): Promise<void> {
  await tx`update api_keys set expires_at = ${expiresAt}, revision = revision + 1 where id = ${keyId}`
}

export async function updateRevoked(tx: Transaction, keyId: string, revokedAt: Date): Promise<void> {
  await tx`update api_keys set revoked_at = ${revokedAt}, revision = revision + 1 where id = ${keyId}`
}

/** Keys that were made with a key, and with those, in an order in which each stands after the one that it was made with. */
export async function selectMadeWith(tx: Transaction, keyId: string): Promise<KeyRow[]> {
  return tx<KeyRow[]>`
    with recursive made (id, depth) as (
      select id, 1 from api_keys where made_with = ${keyId}
      union all select k.id, made.depth + 1 from api_keys k join made on k.made_with = made.id
    )
    ${shown(tx)} join made on made.id = k.id order by made.depth, k.id`
}

/** Whether a key is another one's, made with it or with what was made with it. */
export async function dependsOn(tx: Transaction, keyId: string, makerId: string): Promise<boolean> {
  const rows = await tx`
    with recursive makers (id) as (
      select made_with from api_keys where id = ${keyId}
      union select k.made_with from api_keys k join makers on makers.id = k.id
    )
    select 1 from makers where id = ${makerId}`
  return rows.length > 0
}

/** Hands what was made with one key over to another one. */
export async function moveMadeWith(tx: Transaction, fromId: string, toId: string): Promise<void> {
  await tx`update api_keys set made_with = ${toId}, revision = revision + 1 where made_with = ${fromId}`
}

/** Whether a key has limits of its own by rules. */
export async function hasLimitRules(tx: Transaction, keyId: string): Promise<boolean> {
  const rows = await tx`select 1 from limit_rules where scope = 'key' and subject_id = ${keyId} limit 1`
  return rows.length > 0
}

/** Gives a key the limits of another one. */
export async function copyLimitRules(tx: Transaction, fromId: string, toId: string): Promise<void> {
  await tx`
    insert into limit_rules (scope, subject_id, service_id, name, amount, burst, currency)
    select scope, ${toId}::text, service_id, name, amount, burst, currency
    from limit_rules where scope = 'key' and subject_id = ${fromId}`
}

/** Names of services by id; those that are no service are left out. */
export async function selectServiceNames(tx: Transaction, ids: readonly string[]): Promise<Map<string, string>> {
  const rows = await tx<{ id: string; name: string }[]>`
    select id::text, name from services where id::text = any(${[...ids]}::text[])`
  return new Map(rows.map(({ id, name }) => [id, name]))
}

/** Whose a key is, revoked or not, and its tier; undefined when there is no such key. */
export async function selectKeyOwner(
  sql: Sql,
  keyId: string,
): Promise<{ consumerId: string; tier: KeyTier | undefined } | undefined> {
  const [row] = await sql<Pick<KeyRow, 'consumer_id' | 'tier' | 'tier_replaces'>[]>`
    select consumer_id, tier, tier_replaces from api_keys where id = ${keyId}`
  return row && { consumerId: row.consumer_id, tier: keyTier(row) }
}

/** What the verifier needs of each key; unknown ids are left out. */
export async function selectKeyRecords(sql: Sql, keyIds: readonly string[]): Promise<KeyRecord[]> {
  const rows = await sql<KeyRecordRow[]>`
    select k.id, k.consumer_id, c.organization_id, c.status, k.secret_hash, k.secret_tag, k.expires_at, k.revoked_at,
      k.scope_services, k.scope_permissions, k.scope_models, k.tier, k.tier_replaces
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
    scopes: keyScopes({
      services: row.scope_services,
      permissions: row.scope_permissions,
      models: row.scope_models,
    }),
    tier: keyTier(row),
  }))
}

type KeyRecordRow = KeySecret &
  Pick<
    KeyRow,
    | 'id'
    | 'consumer_id'
    | 'expires_at'
    | 'revoked_at'
    | 'scope_services'
    | 'scope_permissions'
    | 'scope_models'
    | 'tier'
    | 'tier_replaces'
  > & { readonly organization_id: string; readonly status: ConsumerStatus }

function keyTier({ tier, tier_replaces: replaces }: Pick<KeyRow, 'tier' | 'tier_replaces'>): KeyTier | undefined {
  return tier === null ? undefined : { tier, replaces }
}

function shown(sql: Sql | Transaction) {
  return sql`
    select k.id, k.consumer_id, k.name, k.environment, k.metadata, k.scope_services, k.scope_permissions, k.scope_models,
      k.tier, k.tier_replaces, k.made_with, k.rotated_from, successor.id as rotated_to, k.request_digest, k.revision,
      k.created_at, k.expires_at, k.revoked_at, uses.used_at, uses.address as used_address
    from api_keys k
      left join api_keys successor on successor.rotated_from = k.id
      left join api_key_uses uses on uses.key_id = k.id`
}
