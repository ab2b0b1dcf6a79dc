import { createHash, randomBytes } from 'node:crypto'
import { type DescMessage, type MessageShape, toBinary } from '@bufbuild/protobuf'
import { durationMs, timestampMs } from '@bufbuild/protobuf/wkt'
import { CreateKeyRequestSchema, type KeyService, RotateKeyRequestSchema } from '../../gen/marketplace/v1/keys_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { consumerNotFound, consumersKeyNotFound } from '../registry/not-found.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { selectConsumer } from './consumer-store.ts'
import { changeKey, endKey, type KeyChanging, makeKey, rotateKey } from './key-changes.ts'
import { generateKey, type KeyEnvironment, secretTag } from './key-format.ts'
import { environmentOf, keyMessage, scopesOf } from './key-message.ts'
import { type KeySecret, selectKey, selectKeys } from './key-store.ts'
import { createLines } from './lines.ts'
import { ownConsumer } from './own-consumer.ts'
import type { SecretHasher } from './secret-hasher.ts'
import { tierOf } from './tier-message.ts'

export interface KeyServiceOptions {
  readonly sql: Sql
  /** The verifier's own, so that making keys and checking them share one ceiling. */
  readonly hasher: Pick<SecretHasher, 'hash'>
  /** When given, a change answers only after this process knows of it. */
  readonly snapshots?: Pick<SnapshotSource, 'refresh'>
  /** Cryptographic random bytes; default node:crypto's. */
  readonly random?: (bytes: number) => Uint8Array
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
}

/** marketplace.v1.KeyService on Postgres. Keys of another consumer are as good as absent: KEY_NOT_FOUND. */
export function createKeyService(options: KeyServiceOptions): Handlers<typeof KeyService.method> {
  const { sql, hasher, snapshots, random = randomBytes, now = Date.now } = options
  // Hashing shares its ceiling with the checks of credentials: who makes many keys waits for himself, and nobody for him.
  const inLine = createLines(longestLine, busy)

  /** A key and what is stored of it. With a request id its own id follows from that. */
  async function newKey(environment: KeyEnvironment, consumerId: string, requestId: string): Promise<NewSecret> {
    const idBytes = requestId === '' ? random(8) : digestOf(`${consumerId} ${requestId}`).subarray(0, 8)
    const { keyId, key } = generateKey(random, environment, idBytes)
    const hash = await inLine(consumerId, () => hasher.hash(key))
    return { id: keyId, key, secret: { secret_hash: hash, secret_tag: secretTag(key) } }
  }

  /** Runs a change; it is known to this process when it resolves. */
  async function changing<T>(call: Call, consumerId: string, work: (change: KeyChanging) => Promise<T>): Promise<T> {
    const result = await storing(() => sql.begin((tx) => work({ tx, call, consumerId, nowMs: now() })))
    await snapshots?.refresh()
    return result
  }

  return {
    async createKey(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      if (!isUuid(consumerId)) throw consumerNotFound(consumerId, 'consumer_id')
      const { name, metadata, requestId, expiresInDays, expireTime } = request
      const environment = environmentOf(request.environment)
      const { id, key, secret } = await newKey(environment, consumerId, requestId)
      const row = await changing(call, consumerId, (change) =>
        makeKey(change, {
          id,
          ...secret,
          name,
          environment,
          metadata,
          scopes: scopesOf(request.scopes),
          tier: tierOf(request.tier) ?? null,
          expiresAtMs:
            expiresInDays === 0 ? expireTime && timestampMs(expireTime) : change.nowMs + expiresInDays * dayMs,
          request_digest: requestDigest(requestId, CreateKeyRequestSchema, request),
        }),
      )
      return { apiKey: keyMessage(row, now()), key }
    },

    async getKey(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const { keyId } = request
      const row = isUuid(consumerId) ? await storing(() => selectKey(sql, consumerId, keyId)) : undefined
      if (row === undefined) throw consumersKeyNotFound(keyId, consumerId)
      return keyMessage(row, now())
    },

    async listKeys(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      if (!isUuid(consumerId)) throw consumerNotFound(consumerId, 'consumer_id')
      const size = pageSizeOf(request.pageSize)
      const after = parseKeysToken(request.pageToken)
      const rows = await storing(async () => {
        const found = await selectKeys(sql, consumerId, after, size + 1)
        if (found.length > 0 || (await selectConsumer(sql, consumerId)) !== undefined) return found
        throw consumerNotFound(consumerId, 'consumer_id')
      })
      const page = pageOf(rows, size, (row) => [row.created_at.toISOString(), row.id])
      return { apiKeys: page.rows.map((row) => keyMessage(row, now())), nextPageToken: page.nextPageToken }
    },

    async updateKey(request, call) {
      const consumerId = ownConsumer(request.apiKey?.consumerId ?? '', call.principal, 'api_key.consumer_id')
      if (!isUuid(consumerId)) throw consumersKeyNotFound(request.apiKey?.id ?? '', consumerId)
      return keyMessage(await changing(call, consumerId, (change) => changeKey(change, request)), now())
    },

    async rotateKey(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const { keyId, requestId, overlap, expireTime } = request
      const old = isUuid(consumerId) ? await storing(() => selectKey(sql, consumerId, keyId)) : undefined
      if (old === undefined) throw consumersKeyNotFound(keyId, consumerId)
      const { id, key, secret } = await newKey(old.environment, consumerId, requestId)
      const { made, rotated } = await changing(call, consumerId, (change) =>
        rotateKey(change, {
          id,
          ...secret,
          rotatedId: keyId,
          overlapMs: overlap === undefined ? 0 : durationMs(overlap),
          expiresAtMs: expireTime && timestampMs(expireTime),
          request_digest: requestDigest(requestId, RotateKeyRequestSchema, request),
        }),
      )
      return { apiKey: keyMessage(made, now()), key, rotatedKey: keyMessage(rotated, now()) }
    },

    async revokeKey(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const { keyId } = request
      if (!isUuid(consumerId)) throw consumersKeyNotFound(keyId, consumerId)
      return keyMessage(await changing(call, consumerId, (change) => endKey(change, keyId)), now())
    },
  }
}

interface NewSecret {
  readonly id: string
  /** The whole key: to be shown once, and never stored or logged. */
  readonly key: string
  readonly secret: KeySecret
}

/** Keys of one consumer that are made at once; the next one is refused. */
const longestLine = 100

function busy(): TollgateError {
  const message = `${longestLine} keys of this consumer are being made at the moment. Try again shortly.`
  return new TollgateError('CREDENTIAL_CHECK_BUSY', message, {
    retryAfterMs: 1_000,
    metadata: { retryAfterMs: '1000' },
  })
}

/** Of a request that may be repeated; null for others. */
function requestDigest<D extends DescMessage>(requestId: string, schema: D, request: MessageShape<D>): string | null {
  return requestId === '' ? null : digestOf(`${schema.typeName} `, toBinary(schema, request)).toString('hex')
}

function digestOf(...parts: readonly (string | Uint8Array)[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

function parseKeysToken(token: string): { createdAt: string; id: string } | undefined {
  const isValid = (part: string, index: number): boolean =>
    index === 0 ? instantPattern.test(part) && !Number.isNaN(Date.parse(part)) : /^[0-9A-Za-z]+$/.test(part)
  const [createdAt, id] = parsePageToken(token, 2, isValid) ?? []
  return createdAt === undefined || id === undefined ? undefined : { createdAt, id }
}

const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const dayMs = 86_400_000
