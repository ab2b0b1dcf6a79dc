import { randomUUID } from 'node:crypto'
import { timestampMs } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConsumerService, ConsumerStatus, Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { createConsumerService } from './consumer-service.ts'
import { selectKeyRecords } from './identity-store.ts'
import { parseKey } from './key-format.ts'
import { createKeyLoader } from './key-loader.ts'
import { createKeyService } from './key-service.ts'
import { createKeyVerifier } from './key-verifier.ts'
import { createSecretHasher } from './secret-hasher.ts'

let server: PostgresServer
let consumers: ReturnType<typeof createConsumerService>
let keys: ReturnType<typeof createKeyService>
const hasher = createSecretHasher()
const { createOrganization, createConsumer, getConsumer, listConsumers } = ConsumerService.method
const { createKey, listKeys, revokeKey } = KeyService.method

beforeAll(async () => {
  server = await startPostgresServer()
  consumers = createConsumerService({ sql: server.sql, newId: randomUUID })
  keys = createKeyService({ sql: server.sql, hasher })
}, 60_000)

afterAll(() => server?.stop())

let names = 0
function uniqueName(): string {
  return `name-${++names}`
}

async function newOrganization() {
  return invoke(
    createOrganization,
    consumers.createOrganization,
    { organization: { name: uniqueName() } },
    administrator,
  )
}

async function newConsumer(organizationId?: string) {
  const owner = organizationId ?? (await newOrganization()).id
  const consumer = { organizationId: owner, name: uniqueName() }
  return invoke(createConsumer, consumers.createConsumer, { consumer }, administrator)
}

describe('organizations and consumers', () => {
  it('come back as they were stored, with the defaults of unset fields', async () => {
    const { id: organizationId, createTime } = await newOrganization()
    expect(createTime).toBeDefined()
    const plain = await newConsumer(organizationId)
    expect(plain).toMatchObject({ tier: Tier.BASIC, status: ConsumerStatus.ACTIVE, grantedServices: [] })
    expect(plain.overrides).toBeUndefined()

    const consumer = {
      organizationId,
      name: uniqueName(),
      tier: Tier.ENTERPRISE,
      status: ConsumerStatus.SUSPENDED,
      grantedServices: ['*', randomUUID()],
      overrides: { requestsPerSecond: 7n, tokensPerMonth: 0n },
    }
    const stored = await invoke(createConsumer, consumers.createConsumer, { consumer }, administrator)
    expect(stored).toMatchObject(consumer)
    expect(stored.overrides?.requestBurst).toBeUndefined()
    expect(await invoke(getConsumer, consumers.getConsumer, { id: stored.id }, administrator)).toEqual(stored)
    expect(await invoke(getConsumer, consumers.getConsumer, {}, keyOf(stored))).toEqual(stored)
  })

  it('are refused when the name is taken, naming the field; the same name in another organization is free', async () => {
    const organization = await newOrganization()
    await expect(
      invoke(
        createOrganization,
        consumers.createOrganization,
        { organization: { name: organization.name } },
        administrator,
      ),
    ).rejects.toMatchObject({ reason: 'ALREADY_EXISTS', fields: [{ field: 'organization.name' }] })

    const { name } = await newConsumer(organization.id)
    const again = { consumer: { organizationId: organization.id, name } }
    await expect(invoke(createConsumer, consumers.createConsumer, again, administrator)).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
      fields: [{ field: 'consumer.name' }],
      metadata: { value: name },
    })
    const elsewhere = { consumer: { organizationId: (await newOrganization()).id, name } }
    await expect(invoke(createConsumer, consumers.createConsumer, elsewhere, administrator)).resolves.toBeDefined()
  })

  it.each(['', 'nonsense', randomUUID()])('are refused for an organization that does not exist: "%s"', async (id) => {
    const request = { consumer: { organizationId: id, name: uniqueName() } }
    await expect(invoke(createConsumer, consumers.createConsumer, request, administrator)).rejects.toMatchObject({
      reason: 'ORGANIZATION_NOT_FOUND',
      fields: [{ field: 'consumer.organization_id' }],
    })
  })

  it.each(['nonsense', randomUUID()])('are CONSUMER_NOT_FOUND when unknown: %s', async (id) => {
    await expect(invoke(getConsumer, consumers.getConsumer, { id }, administrator)).rejects.toMatchObject({
      reason: 'CONSUMER_NOT_FOUND',
      metadata: { consumerId: id, field: 'id' },
    })
  })

  it('are refused, not failed on, when a name holds what Postgres cannot store', async () => {
    const request = { organization: { name: 'a\u0000b' } }
    await expect(
      invoke(createOrganization, consumers.createOrganization, request, administrator),
    ).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT' })
  })

  it('are listed page by page, each once, in the order of ids', async () => {
    const { id: organizationId } = await newOrganization()
    const made = await Promise.all(Array.from({ length: 5 }, () => newConsumer(organizationId)))
    const seen: string[] = []
    let pageToken = ''
    do {
      const request = { pageSize: 2, pageToken }
      const page = await invoke(listConsumers, consumers.listConsumers, request, administrator)
      expect(page.consumers.length).toBeLessThanOrEqual(2)
      seen.push(...page.consumers.map((consumer) => consumer.id))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual([...new Set(seen)].sort())
    expect(seen).toEqual(expect.arrayContaining(made.map((consumer) => consumer.id)))
  })
})

describe('keys', () => {
  it('show their secret once, store only its hash, and verify', async () => {
    const consumer = await newConsumer()
    const request = { name: 'ci', expiresInDays: 30 }
    const { key, apiKey } = await invoke(createKey, keys.createKey, request, keyOf(consumer))
    expect(apiKey).toMatchObject({ id: parseKey(key)?.keyId, consumerId: consumer.id, name: 'ci' })
    const { createTime, expireTime } = apiKey ?? {}
    if (createTime === undefined || expireTime === undefined) throw new Error('times are missing')
    expect(timestampMs(expireTime) - timestampMs(createTime)).toBe(30 * 86_400_000)

    const [row] = await server.sql`select to_jsonb(k)::text as text from api_keys k where id = ${apiKey?.id ?? ''}`
    expect(row?.text).toContain('$argon2id$v=19$m=19456,')
    expect(row?.text).not.toContain(key.slice(20, 63))

    const loadKey = createKeyLoader({ loadKeys: (ids) => selectKeyRecords(server.sql, ids) })
    const verifier = createKeyVerifier({ loadKey, hasher, clock: Date.now })
    expect(await verifier.verify(key)).toMatchObject({
      keyId: apiKey?.id,
      consumerId: consumer.id,
      organizationId: consumer.organizationId,
    })
  })

  it('are made by an administrator for the consumer that it names, and made or listed for nobody else', async () => {
    const consumer = await newConsumer()
    const { apiKey } = await invoke(createKey, keys.createKey, { consumerId: consumer.id }, administrator)
    expect(apiKey).toMatchObject({ consumerId: consumer.id })
    expect(apiKey?.expireTime).toBeUndefined()
    for (const [consumerId, reason] of [
      ['', 'INVALID_ARGUMENT'],
      ['nonsense', 'CONSUMER_NOT_FOUND'],
      [randomUUID(), 'CONSUMER_NOT_FOUND'],
    ] as const) {
      const refused = { reason, fields: [{ field: 'consumer_id' }] }
      await expect(invoke(createKey, keys.createKey, { consumerId }, administrator)).rejects.toMatchObject(refused)
      await expect(invoke(listKeys, keys.listKeys, { consumerId }, administrator)).rejects.toMatchObject(refused)
    }
  })

  it('are listed newest first, page by page, of one consumer only, without hashes', async () => {
    const consumer = await newConsumer()
    await invoke(createKey, keys.createKey, {}, keyOf(await newConsumer(consumer.organizationId)))
    const made: (string | undefined)[] = []
    for (let i = 0; i < 5; i++) made.push((await invoke(createKey, keys.createKey, {}, keyOf(consumer))).apiKey?.id)
    // Two of the same instant: the id decides.
    await server.sql`update api_keys set created_at = '2026-01-01' where id = any(${made.slice(0, 2).map(String)})`

    const seen: { id: string; atMs: number }[] = []
    let pageToken = ''
    do {
      const page = await invoke(listKeys, keys.listKeys, { pageSize: 1, pageToken }, keyOf(consumer))
      for (const { id, createTime } of page.apiKeys) seen.push({ id, atMs: createTime ? timestampMs(createTime) : 0 })
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen.map(({ id }) => id).sort()).toEqual(made.toSorted())
    expect(seen).toEqual(seen.toSorted((a, b) => b.atMs - a.atMs || (a.id < b.id ? 1 : -1)))
    await expect(invoke(listKeys, keys.listKeys, { pageToken: 'WyJ4IiwieSJd' }, keyOf(consumer))).rejects.toMatchObject(
      { reason: 'INVALID_ARGUMENT' },
    )
  })

  it('are revoked once: the first time stays, and nothing changes the second time', async () => {
    const consumer = await newConsumer()
    const { apiKey } = await invoke(createKey, keys.createKey, {}, keyOf(consumer))
    const request = { keyId: apiKey?.id ?? '' }
    const first = await invoke(revokeKey, keys.revokeKey, request, keyOf(consumer))
    expect(first.revokeTime).toBeDefined()
    const before = await server.sql`select version from control_version`
    expect(await invoke(revokeKey, keys.revokeKey, request, keyOf(consumer))).toEqual(first)
    expect(await server.sql`select version from control_version`).toEqual(before)
  })

  it('of another consumer cannot be revoked or seen: KEY_NOT_FOUND, as for none', async () => {
    const [mine, other] = [await newConsumer(), await newConsumer()]
    const { apiKey } = await invoke(createKey, keys.createKey, {}, keyOf(mine))
    for (const keyId of [apiKey?.id ?? '', 'unknown']) {
      await expect(invoke(revokeKey, keys.revokeKey, { keyId }, keyOf(other))).rejects.toMatchObject({
        reason: 'KEY_NOT_FOUND',
        fields: [{ field: 'key_id' }],
      })
    }
    expect((await invoke(listKeys, keys.listKeys, {}, keyOf(other))).apiKeys).toEqual([])
    const [record] = await selectKeyRecords(server.sql, [apiKey?.id ?? ''])
    expect(record?.revokedAtMs).toBeUndefined()
  })
})
