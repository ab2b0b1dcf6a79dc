import { hash, randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { ConsumerService, Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { type CreateKeyRequestSchema, type CreateKeyResponse, KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { createConsumerService } from '../../src/identity/consumer-service.ts'
import { createKeyLoader } from '../../src/identity/key-loader.ts'
import { createKeyService } from '../../src/identity/key-service.ts'
import { selectKeyRecords } from '../../src/identity/key-store.ts'
import { createKeyVerifier, type KeyVerifier } from '../../src/identity/key-verifier.ts'
import type { Caller, Principal } from '../../src/identity/principal.ts'
import type { SecretHasher } from '../../src/identity/secret-hasher.ts'
import type { Sql } from '../../src/storage/postgres.ts'
import { administrator, invoke } from './invoke.ts'

/** In place of Argon2, whose strength is no matter here; of its form, as the table demands it. */
export const quickHasher: SecretHasher = {
  hash: async (secret) => `$argon2id$${hash('sha256', secret)}`,
  verify: async (stored, secret) => stored === `$argon2id$${hash('sha256', secret)}`,
}

/** The KeyService on a database, with a clock of the test's own and a verifier that never keeps what it read. */
export interface KeyWorld {
  /** Unix milliseconds. */
  nowMs: number
  readonly keys: Required<ReturnType<typeof createKeyService>>
  newConsumer(tier?: Tier): Promise<{ readonly id: string; readonly organizationId: string }>
  /** By an administrator, unless somebody else is named. */
  make(request: MessageInitShape<typeof CreateKeyRequestSchema>, by?: Principal): Promise<Made>
  /** A new consumer and a key of it that may do whatever a key may, with who brings it. */
  scene(tier?: Tier): Promise<KeyScene>
  /** Who brings a key; throws as the verifier does. */
  callerOf(key: string): Promise<Caller>
}

/** A key that was made. */
export interface Made {
  readonly id: string
  readonly key: string
  readonly apiKey: NonNullable<CreateKeyResponse['apiKey']>
}

export interface KeyScene {
  readonly consumer: { readonly id: string; readonly organizationId: string }
  readonly id: string
  readonly key: string
  readonly caller: Caller
}

export function createKeyWorld(sql: Sql): KeyWorld {
  const service = createKeyService({ sql, hasher: quickHasher, now: () => world.nowMs })
  const consumers = createConsumerService({ sql, newId: randomUUID })
  const { createKey, getKey, listKeys, updateKey, rotateKey, revokeKey } = service
  if (!createKey || !getKey || !listKeys || !updateKey || !rotateKey || !revokeKey) throw new Error('RPCs are missing')
  const verifier: KeyVerifier = createKeyVerifier({
    loadKey: createKeyLoader({ loadKeys: (ids) => selectKeyRecords(sql, ids) }),
    hasher: quickHasher,
    clock: () => world.nowMs,
  })
  const world: KeyWorld = {
    nowMs: Date.now(),
    keys: { createKey, getKey, listKeys, updateKey, rotateKey, revokeKey },
    async newConsumer(tier = Tier.PREMIUM) {
      const { createOrganization, createConsumer } = ConsumerService.method
      const organization = { name: randomUUID() }
      const { id } = await invoke(createOrganization, consumers.createOrganization, { organization }, administrator)
      const consumer = { organizationId: id, name: randomUUID(), tier }
      return await invoke(createConsumer, consumers.createConsumer, { consumer }, administrator)
    },
    async make(request, by = administrator) {
      const { key, apiKey } = await invoke(KeyService.method.createKey, createKey, request, by)
      if (apiKey === undefined) throw new Error('no key was made')
      return { id: apiKey.id, key, apiKey }
    },
    async scene(tier) {
      const consumer = await world.newConsumer(tier)
      const { id, key } = await world.make({ consumerId: consumer.id })
      return { consumer, id, key, caller: await world.callerOf(key) }
    },
    callerOf(key) {
      verifier.invalidate()
      return verifier.verify(key)
    },
  }
  return world
}
