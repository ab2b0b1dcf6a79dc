import { randomBytes } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import type { ApiKeySchema, KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import type { Handlers } from '../call.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { consumerNotFound, consumersKeyNotFound } from '../registry/not-found.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { selectConsumer } from './consumer-store.ts'
import { insertKey, type KeyRow, revokeKey, selectKeys } from './identity-store.ts'
import { generateKey, type KeyEnvironment, secretTag } from './key-format.ts'
import { ownConsumer } from './own-consumer.ts'
import type { SecretHasher } from './secret-hasher.ts'

export interface KeyServiceOptions {
  readonly sql: Sql
  /** The verifier's own, so that making keys and checking them share one ceiling. */
  readonly hasher: Pick<SecretHasher, 'hash'>
  /** When given, a revocation answers only after this process knows of it. */
  readonly snapshots?: Pick<SnapshotSource, 'refresh'>
  /** Cryptographic random bytes; default node:crypto's. */
  readonly random?: (bytes: number) => Uint8Array
  /** What the keys' prefix says. Default live. */
  readonly environment?: KeyEnvironment
}

/** marketplace.v1.KeyService on Postgres. Keys of another consumer are as good as absent: KEY_NOT_FOUND. */
export function createKeyService(options: KeyServiceOptions): Handlers<typeof KeyService.method> {
  const { sql, hasher, snapshots, random = randomBytes, environment = 'live' } = options
  return {
    async createKey(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      if (!isUuid(consumerId)) throw consumerNotFound(consumerId, 'consumer_id')
      const { keyId, key } = generateKey(random, environment)
      const secretHash = await hasher.hash(key)
      const { name, expiresInDays } = request
      const stored = { id: keyId, consumerId, name, secretHash, secretTag: secretTag(key), expiresInDays }
      const row = await storing(() => insertKey(sql, stored), {
        api_keys_consumer_id_fkey: () => consumerNotFound(consumerId, 'consumer_id'),
      })
      return { apiKey: keyMessage(row), key }
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
      return { apiKeys: page.rows.map(keyMessage), nextPageToken: page.nextPageToken }
    },

    async revokeKey(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const { keyId } = request
      const row = isUuid(consumerId) ? await storing(() => revokeKey(sql, consumerId, keyId)) : undefined
      if (row === undefined) throw consumersKeyNotFound(keyId, consumerId)
      await snapshots?.refresh()
      return keyMessage(row)
    },
  }
}

function parseKeysToken(token: string): { createdAt: string; id: string } | undefined {
  const isValid = (part: string, index: number): boolean =>
    index === 0 ? instantPattern.test(part) && !Number.isNaN(Date.parse(part)) : /^[0-9A-Za-z]+$/.test(part)
  const [createdAt, id] = parsePageToken(token, 2, isValid) ?? []
  return createdAt === undefined || id === undefined ? undefined : { createdAt, id }
}

const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

function keyMessage(row: KeyRow): MessageInitShape<typeof ApiKeySchema> {
  return {
    id: row.id,
    consumerId: row.consumer_id,
    name: row.name,
    createTime: timestampFromDate(row.created_at),
    ...(row.expires_at !== null && { expireTime: timestampFromDate(row.expires_at) }),
    ...(row.revoked_at !== null && { revokeTime: timestampFromDate(row.revoked_at) }),
  }
}
