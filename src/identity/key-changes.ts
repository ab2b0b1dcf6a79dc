/**
 * The transactions that change keys. Each locks the key's consumer first, so that the keys of a consumer change one after the
 * other: nothing is made with a key while it ends, and no key gets two successors. Each leaves its trail.
 */
import { timestampMs } from '@bufbuild/protobuf/wkt'
import { type ApiKey, ApiKeySchema, type UpdateKeyRequest } from '../../gen/marketplace/v1/keys_pb.ts'
import type { Call } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import type { ChangeOf } from '../control/change-types.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import { TollgateError } from '../errors.ts'
import { checkEtag, etagOf } from '../etag.ts'
import { applyMask, type MaskRules } from '../field-mask.ts'
import { consumerNotFound, consumersKeyNotFound } from '../registry/not-found.ts'
import type { Tier } from '../registry/records.ts'
import type { Transaction } from '../storage/postgres.ts'
import { earlier, endOfRotated, expiryOf, requireActive, stateOf } from './key-life.ts'
import { makerOf, requireWithin, scopesFor, tierFor } from './key-maker.ts'
import { keyMessage, lifeOf, scopesOf, scopesOfRow } from './key-message.ts'
import type { ScopeLists } from './key-scopes.ts'
import {
  copyLimitRules,
  dependsOn,
  insertKey,
  type KeyRow,
  type KeySecret,
  lockConsumer,
  moveMadeWith,
  selectKey,
  selectMadeWith,
  updateExpiry,
  updateKey,
  updateRevoked,
  updateSecret,
} from './key-store.ts'
import { tierOf } from './tier-message.ts'

/** Who changes what, when. */
export interface KeyChanging {
  readonly tx: Transaction
  readonly call: Call
  readonly consumerId: string
  /** Unix milliseconds. */
  readonly nowMs: number
}

/** What a request asks of a new key. */
export interface AskedKey extends KeySecret, Pick<KeyRow, 'id' | 'name' | 'environment' | 'metadata'> {
  /** Of a request that may be repeated; null for others. */
  readonly request_digest: string | null
  readonly scopes: ScopeLists
  readonly tier: Tier | null
  readonly expiresAtMs: number | undefined
}

/** Makes a key, or gives the key of an earlier request of this id another secret. */
export async function makeKey(changing: KeyChanging, asked: AskedKey): Promise<KeyRow> {
  const { tx, call, consumerId, nowMs } = changing
  const consumer = await lockedConsumer(changing)
  const again = await reissued(changing, consumer.organization_id, asked)
  if (again !== undefined) return again
  const maker = await makerOf(tx, call.principal, nowMs)
  const scopes = await scopesFor(tx, asked.scopes, maker, 'scopes')
  const expiresAtMs = expiryOf(asked.expiresAtMs, maker?.expires_at?.getTime(), nowMs)
  await insertKey(tx, {
    id: asked.id,
    consumer_id: consumerId,
    name: asked.name,
    environment: asked.environment,
    metadata: asked.metadata,
    ...columnsOf(scopes),
    ...tierFor(asked.tier, call.principal, consumer.tier),
    made_with: maker?.consumer_id === consumerId ? maker.id : null,
    rotated_from: null,
    request_digest: asked.request_digest,
    created_at: new Date(nowMs),
    expires_at: dateOf(expiresAtMs),
    secret_hash: asked.secret_hash,
    secret_tag: asked.secret_tag,
  })
  const made = await requireKey(changing, asked.id)
  await recordKey(changing, consumer.organization_id, 'key.created', undefined, made)
  return made
}

/** What a request asks of the successor of a key. */
export interface AskedRotation extends KeySecret, Pick<KeyRow, 'id' | 'request_digest'> {
  readonly rotatedId: string
  readonly overlapMs: number
  readonly expiresAtMs: number | undefined
}

/** Makes the successor of a key, and lets the key expire when the overlap is over. */
export async function rotateKey(
  changing: KeyChanging,
  asked: AskedRotation,
): Promise<{ readonly made: KeyRow; readonly rotated: KeyRow }> {
  const { tx, call, nowMs } = changing
  const { organization_id } = await lockedConsumer(changing)
  const before = await requireKey(changing, asked.rotatedId)
  const again = await reissued(changing, organization_id, asked)
  if (again !== undefined) return { made: again, rotated: before }
  const maker = await makerOf(tx, call.principal, nowMs)
  await requireWithin(tx, before, maker)
  if (maker !== undefined && (await dependsOn(tx, maker.id, before.id))) throw dependent(before.id)
  const endMs = endOfRotated(lifeOf(before), asked.overlapMs, nowMs)
  const { id, request_digest, secret_hash, secret_tag } = asked
  const isOther = maker !== undefined && maker.id !== before.id
  const oldEndMs = before.expires_at?.getTime()
  const ceilingMs = maker === undefined ? await endOfMaker(changing, before) : maker.expires_at?.getTime()
  const expiresAtMs = asked.expiresAtMs === undefined ? earlier(oldEndMs, ceilingMs) : asked.expiresAtMs
  await insertKey(tx, {
    id,
    consumer_id: before.consumer_id,
    name: before.name,
    environment: before.environment,
    metadata: before.metadata,
    ...columnsOf(scopesOfRow(before)),
    ...pickTier(before),
    rotated_from: before.id,
    made_with: isOther && maker.consumer_id === before.consumer_id ? maker.id : before.made_with,
    request_digest,
    created_at: new Date(nowMs),
    expires_at: dateOf(expiryOf(expiresAtMs, ceilingMs, nowMs)),
    secret_hash,
    secret_tag,
  })
  await copyLimitRules(tx, before.id, id)
  await moveMadeWith(tx, before.id, id)
  await updateExpiry(tx, before.id, new Date(endMs))
  const made = await requireKey(changing, id)
  const rotated = await requireKey(changing, before.id)
  await recordKey(changing, organization_id, 'key.created', undefined, made, `in place of key ${before.id}`)
  await recordKey(changing, organization_id, 'key.rotated', before, rotated, `key ${id} takes its place`)
  await endWithin(changing, organization_id, made)
  return { made, rotated }
}

/** Changes what a mask names of a key that is active. */
export async function changeKey(changing: KeyChanging, request: UpdateKeyRequest): Promise<KeyRow> {
  const { tx, call, nowMs } = changing
  const { apiKey: wanted, updateMask: mask } = request
  const consumer = await lockedConsumer(changing)
  if (wanted === undefined) throw new TollgateError('INVALID_ARGUMENT', 'api_key is required')
  const before = await requireKey(changing, wanted.id)
  checkEtag(wanted.etag, etagOf(before.revision), 'api_key.etag')
  requireActive(lifeOf(before), nowMs)
  const maker = await makerOf(tx, call.principal, nowMs)
  await requireWithin(tx, before, maker)
  const current = keyMessage(before, nowMs)
  const updated = applyMask(ApiKeySchema, maskRules, { current, wanted, mask, field: 'api_key' })
  const tier = tierOf(updated.tier) ?? null
  await updateKey(tx, before.id, {
    name: updated.name,
    metadata: updated.metadata,
    ...columnsOf(await scopesFor(tx, scopesOf(updated.scopes), maker, 'api_key.scopes')),
    ...(tier === before.tier ? pickTier(before) : tierFor(tier, call.principal, consumer.tier)),
    expires_at: await changedExpiry(changing, before, updated, maker),
  })
  const after = await requireKey(changing, before.id)
  await recordKey(changing, consumer.organization_id, 'key.updated', before, after)
  await endWithin(changing, consumer.organization_id, after)
  return after
}

/** Ends a key, and what was made with it. One that is revoked stays as it is, with its time. */
export async function endKey(changing: KeyChanging, keyId: string): Promise<KeyRow> {
  const { tx } = changing
  const { organization_id } = await lockedConsumer(changing)
  const before = await requireKey(changing, keyId)
  if (before.revoked_at !== null) return before
  const made = await selectMadeWith(tx, keyId)
  await revoke(changing, organization_id, before)
  for (const row of made) {
    if (row.revoked_at === null) await revoke(changing, organization_id, row, `made with key ${keyId}`)
  }
  return requireKey(changing, keyId)
}

async function revoke(changing: KeyChanging, organizationId: string, before: KeyRow, reason?: string): Promise<void> {
  await updateRevoked(changing.tx, before.id, new Date(changing.nowMs))
  const after = await requireKey(changing, before.id)
  await recordKey(changing, organizationId, 'key.revoked', before, after, reason)
}

/** What was made with a key that ends earlier now ends no later. */
async function endWithin(changing: KeyChanging, organizationId: string, key: KeyRow): Promise<void> {
  const endMs = key.expires_at?.getTime()
  if (endMs === undefined) return
  for (const before of await selectMadeWith(changing.tx, key.id)) {
    if (before.expires_at !== null && before.expires_at.getTime() <= endMs) continue
    await updateExpiry(changing.tx, before.id, new Date(endMs))
    const after = await requireKey(changing, before.id)
    await recordKey(changing, organizationId, 'key.updated', before, after, `made with key ${key.id}`)
  }
}

/** The key of an earlier request of this id, with another secret; undefined when there was none. */
async function reissued(
  changing: KeyChanging,
  organizationId: string,
  asked: Pick<AskedKey, 'id' | 'request_digest' | 'secret_hash' | 'secret_tag'>,
): Promise<KeyRow | undefined> {
  if (asked.request_digest === null) return undefined
  const before = await selectKey(changing.tx, changing.consumerId, asked.id)
  if (before === undefined) return undefined
  if (before.request_digest !== asked.request_digest) throw requestIdTaken('IDEMPOTENCY_KEY_REUSED', 'another request')
  if (before.used_at !== null || stateOf(lifeOf(before), changing.nowMs) !== 'active') {
    throw requestIdTaken('ALREADY_EXISTS', `key ${before.id}, which was used or has ended`)
  }
  await updateSecret(changing.tx, before.id, { secret_hash: asked.secret_hash, secret_tag: asked.secret_tag })
  const after = await requireKey(changing, before.id)
  await recordKey(changing, organizationId, 'key.reissued', before, after, 'the request that made it was repeated')
  return after
}

async function changedExpiry(
  changing: KeyChanging,
  before: KeyRow,
  { expireTime }: ApiKey,
  maker: KeyRow | undefined,
): Promise<Date | null> {
  const askedMs = expireTime === undefined ? undefined : timestampMs(expireTime)
  if (askedMs === before.expires_at?.getTime()) return before.expires_at
  const ceilingMs = earlier(maker?.expires_at?.getTime(), await endOfMaker(changing, before))
  return dateOf(expiryOf(askedMs, ceilingMs, changing.nowMs, 'api_key.expire_time'))
}

/** When the key expires that a key was made with; undefined: never, or there is none. */
async function endOfMaker({ tx, consumerId }: KeyChanging, { made_with }: KeyRow): Promise<number | undefined> {
  const maker = made_with === null ? undefined : await selectKey(tx, consumerId, made_with)
  return maker?.expires_at?.getTime()
}

async function lockedConsumer({ tx, consumerId }: KeyChanging): Promise<{ organization_id: string; tier: Tier }> {
  const consumer = await lockConsumer(tx, consumerId)
  if (consumer === undefined) throw consumerNotFound(consumerId, 'consumer_id')
  return consumer
}

async function requireKey({ tx, consumerId }: KeyChanging, keyId: string): Promise<KeyRow> {
  const row = await selectKey(tx, consumerId, keyId)
  if (row === undefined) throw consumersKeyNotFound(keyId, consumerId)
  return row
}

async function recordKey(
  { tx, call, nowMs }: KeyChanging,
  organizationId: string,
  type: ChangeOf<'key'>,
  before: KeyRow | undefined,
  after: KeyRow,
  reason = '',
): Promise<void> {
  await recordChange(tx, actorOf(call), {
    type,
    id: after.id,
    organizationId,
    before: before && resourceJson(ApiKeySchema, keyMessage(before, nowMs)),
    after: resourceJson(ApiKeySchema, keyMessage(after, nowMs)),
    reason,
  })
}

const maskRules: MaskRules = {
  immutable: {
    id: 'is never changed',
    consumer_id: 'is never changed',
    environment: 'is part of the key and never changed',
  },
  outputOnly: [
    'create_time',
    'revoke_time',
    'tier_replaces',
    'state',
    'last_use_time',
    'last_use_address',
    'rotated_from',
    'rotated_to',
    'made_with',
    'etag',
  ],
}

function columnsOf({ services, permissions, models }: ScopeLists) {
  return { scope_services: services, scope_permissions: permissions, scope_models: models }
}

function pickTier({ tier, tier_replaces }: KeyRow): Pick<KeyRow, 'tier' | 'tier_replaces'> {
  return { tier, tier_replaces }
}

function dateOf(ms: number | undefined): Date | null {
  return ms === undefined ? null : new Date(ms)
}

function dependent(keyId: string): TollgateError {
  const message = `The key that makes this call was made with key ${keyId}, so it cannot replace it.`
  return new TollgateError('KEY_SCOPE_EXCEEDED', message, { metadata: { scope: 'made_with', item: keyId } })
}

function requestIdTaken(reason: 'IDEMPOTENCY_KEY_REUSED' | 'ALREADY_EXISTS', what: string): TollgateError {
  const description = `belongs to ${what}: take a new one`
  return new TollgateError(reason, `request_id ${description}`, {
    fields: [{ field: 'request_id', description, rule: 'unique' }],
  })
}
