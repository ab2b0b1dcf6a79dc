import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { type CreateKeyRequestSchema, KeyEnvironment, KeyService, KeyState } from '../../gen/marketplace/v1/keys_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { createKeyWorld, type KeyWorld } from '../../test/support/key-world.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { parseKey } from './key-format.ts'
import { createKeyService } from './key-service.ts'
import { selectKeyRecords } from './key-store.ts'
import { upsertKeyUses } from './key-uses.ts'
import { createKeyVerifier } from './key-verifier.ts'
import { createSecretHasher } from './secret-hasher.ts'

let server: PostgresServer
let world: KeyWorld
const { createKey, getKey, listKeys, updateKey, rotateKey, revokeKey } = KeyService.method
const dayMs = 86_400_000

beforeAll(async () => {
  server = await startPostgresServer()
  world = createKeyWorld(server.sql)
}, 60_000)

afterAll(() => server?.stop())

describe('a key', () => {
  it('shows its secret once, has only its hash stored, and verifies', async () => {
    const { id: consumerId, organizationId } = await world.newConsumer()
    const hasher = createSecretHasher()
    const service = createKeyService({ sql: server.sql, hasher })
    const request = { consumerId, name: 'ci', expiresInDays: 30 }
    const { key, apiKey } = await invoke(createKey, service.createKey, request, administrator)
    expect(apiKey).toMatchObject({ id: parseKey(key)?.keyId, consumerId, name: 'ci', state: KeyState.ACTIVE })
    const { createTime, expireTime } = apiKey ?? {}
    if (createTime === undefined || expireTime === undefined) throw new Error('times are missing')
    expect(timestampMs(expireTime) - timestampMs(createTime)).toBe(30 * dayMs)

    const [row] = await server.sql`select to_jsonb(k)::text as text from api_keys k where id = ${apiKey?.id ?? ''}`
    expect(row?.text).toContain('$argon2id$v=19$m=19456,')
    expect(row?.text).not.toContain(key.slice(20, 63))
    const trail = await server.sql`select after from audit_records where resource = ${`key/${apiKey?.id}`}`
    expect(trail).toHaveLength(1)
    expect(JSON.stringify(trail)).not.toContain(key.slice(20, 63))

    const loadKey = async (id: string) => (await selectKeyRecords(server.sql, [id]))[0]
    const verifier = createKeyVerifier({ loadKey, hasher, clock: Date.now })
    expect(await verifier.verify(key)).toMatchObject({ keyId: apiKey?.id, consumerId, organizationId })
  })

  it('is checked at once, however many keys another consumer makes at the same time', async () => {
    const hasher = createSecretHasher({ concurrency: 1, maxWaiting: 2 })
    const service = createKeyService({ sql: server.sql, hasher })
    const make = ({ id: consumerId }: { readonly id: string }) =>
      invoke(createKey, service.createKey, { consumerId, name: 'one of many' }, administrator)
    const loadKey = async (id: string) => (await selectKeyRecords(server.sql, [id]))[0]
    const verifier = createKeyVerifier({ loadKey, hasher, clock: Date.now })
    const { key, apiKey } = await make(await world.newConsumer())
    const other = await world.newConsumer()
    const making = Promise.all(Array.from({ length: 20 }, () => make(other)))
    expect(await verifier.verify(key)).toMatchObject({ keyId: apiKey?.id })
    expect(new Set((await making).map((made) => made.apiKey?.id)).size).toBe(20)
  })

  it('has environment, metadata, scopes and tier as they were asked, and its prefix says the environment', async () => {
    const { id: consumerId } = await world.newConsumer()
    const facts = {
      environment: KeyEnvironment.TEST,
      metadata: { team: 'search' },
      scopes: { services: ['chat'], permissions: ['consumption.route'], models: ['m'] },
      tier: Tier.BASIC,
    }
    const { id, key, apiKey } = await world.make({ consumerId, ...facts })
    expect(key).toMatch(/^tg_test_/)
    expect(apiKey).toMatchObject({ ...facts, tierReplaces: true, etag: 'r1' })
    expect(await invoke(getKey, world.keys.getKey, { consumerId, keyId: id }, administrator)).toEqual(apiKey)
    expect(await world.callerOf(key)).toMatchObject({
      scopes: { services: new Set(['chat']) },
      keyTier: { tier: 'basic', replaces: true },
    })
  })

  it('is made by an administrator for the consumer that it names, and made or listed for nobody else', async () => {
    for (const [consumerId, reason] of [
      ['', 'INVALID_ARGUMENT'],
      ['nonsense', 'CONSUMER_NOT_FOUND'],
      [randomUUID(), 'CONSUMER_NOT_FOUND'],
    ] as const) {
      const refused = { reason, fields: [{ field: 'consumer_id' }] }
      await expect(world.make({ consumerId })).rejects.toMatchObject(refused)
      await expect(invoke(listKeys, world.keys.listKeys, { consumerId }, administrator)).rejects.toMatchObject(refused)
    }
  })

  const wrong: readonly [string, MessageInitShape<typeof CreateKeyRequestSchema>, string[]][] = [
    ['an end that has passed', { expireTime: timestampFromMs(1_000) }, ['expire_time']],
    ['a permission that no key has', { scopes: { permissions: ['limits.write'] } }, ['scopes.permissions']],
    ['what Postgres cannot store', { metadata: { a: 'b\u0000' } }, []],
  ]
  it.each(wrong)('is refused with %s', async (_what, request, fields) => {
    const { id: consumerId } = await world.newConsumer()
    await expect(world.make({ ...request, consumerId })).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: fields.map((field) => ({ field })),
    })
  })
})

describe('keys of a consumer', () => {
  it('are listed newest first, page by page, of one consumer only, without hashes', async () => {
    const { consumer, id: first, caller } = await world.scene()
    await world.scene()
    const made = [first]
    for (let i = 0; i < 4; i++) made.push((await world.make({}, caller)).id)
    // Two of the same instant: the id decides.
    await server.sql`update api_keys set created_at = '2026-01-01' where id = any(${made.slice(0, 2)})`

    const seen: { id: string; atMs: number }[] = []
    let pageToken = ''
    do {
      const page = await invoke(listKeys, world.keys.listKeys, { pageSize: 1, pageToken }, keyOf(consumer))
      for (const { id, createTime } of page.apiKeys) seen.push({ id, atMs: createTime ? timestampMs(createTime) : 0 })
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen.map(({ id }) => id).sort()).toEqual(made.toSorted())
    expect(seen).toEqual(seen.toSorted((a, b) => b.atMs - a.atMs || (a.id < b.id ? 1 : -1)))
    await expect(
      invoke(listKeys, world.keys.listKeys, { pageToken: 'WyJ4IiwieSJd' }, keyOf(consumer)),
    ).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT' })
  })

  it('look absent to another consumer in every RPC: KEY_NOT_FOUND, as for none', async () => {
    const { id } = await world.scene()
    const { caller } = await world.scene()
    for (const keyId of [id, 'unknown']) {
      const absent = { reason: 'KEY_NOT_FOUND', fields: [{ field: 'key_id' }] }
      const { keys } = world
      await expect(invoke(getKey, keys.getKey, { keyId }, caller)).rejects.toMatchObject(absent)
      await expect(invoke(revokeKey, keys.revokeKey, { keyId }, caller)).rejects.toMatchObject(absent)
      await expect(invoke(rotateKey, keys.rotateKey, { keyId }, caller)).rejects.toMatchObject(absent)
      const renamed = { apiKey: { id: keyId, name: 'mine' } }
      await expect(invoke(updateKey, keys.updateKey, renamed, caller)).rejects.toMatchObject(absent)
    }
    expect((await selectKeyRecords(server.sql, [id]))[0]?.revokedAtMs).toBeUndefined()
  })
})

describe('an update', () => {
  it('changes what its mask names, clears what it names and does not state, and moves the etag', async () => {
    const { id: consumerId } = await world.newConsumer()
    const facts = { name: 'a', metadata: { a: '1' }, expiresInDays: 3 }
    const { id, apiKey } = await world.make({ consumerId, ...facts })
    const request = {
      apiKey: { id, consumerId, name: 'b', etag: apiKey.etag },
      updateMask: { paths: ['name', 'expire_time'] },
    }
    const updated = await invoke(updateKey, world.keys.updateKey, request, administrator)
    expect(updated).toMatchObject({ name: 'b', metadata: { a: '1' }, etag: 'r2' })
    expect(updated.expireTime).toBeUndefined()
    await expect(invoke(updateKey, world.keys.updateKey, request, administrator)).rejects.toMatchObject({
      reason: 'ETAG_MISMATCH',
    })
    const [trail] = await server.sql`
      select before::jsonb->>'name' as before, after::jsonb->>'name' as after from audit_records
      where resource = ${`key/${id}`} and action = 'key.updated'`
    expect(trail).toEqual({ before: 'a', after: 'b' })
  })

  it('shortens the life of what was made with the key', async () => {
    const { id, consumer, caller } = await world.scene()
    const child = await world.make({}, caller)
    const expireTime = timestampFromMs(world.nowMs + dayMs)
    const request = { apiKey: { id, consumerId: consumer.id, expireTime } }
    await invoke(updateKey, world.keys.updateKey, request, administrator)
    const named = { keyId: child.id, consumerId: consumer.id }
    expect((await invoke(getKey, world.keys.getKey, named, administrator)).expireTime).toEqual(expireTime)
  })

  it.each(['revoked', 'expired'])('of a key that is %s is refused', async (state) => {
    const { id: consumerId } = await world.newConsumer()
    const { id } = await world.make({ consumerId, expiresInDays: 1 })
    if (state === 'revoked') await invoke(revokeKey, world.keys.revokeKey, { consumerId, keyId: id }, administrator)
    else world.nowMs += dayMs
    const request = { apiKey: { id, consumerId, name: 'b' } }
    await expect(invoke(updateKey, world.keys.updateKey, request, administrator)).rejects.toMatchObject({
      reason: 'KEY_INACTIVE',
      metadata: { state },
    })
  })

  it('refuses to change what is fixed', async () => {
    const { id: consumerId } = await world.newConsumer()
    const { id } = await world.make({ consumerId })
    const request = { apiKey: { id, consumerId, environment: KeyEnvironment.TEST } }
    await expect(invoke(updateKey, world.keys.updateKey, request, administrator)).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'api_key.environment' }],
    })
  })
})

describe('a revocation', () => {
  it('happens once: the first time stays, and nothing changes the second time', async () => {
    const { caller } = await world.scene()
    const { id: keyId, key } = await world.make({}, caller)
    const first = await invoke(revokeKey, world.keys.revokeKey, { keyId }, caller)
    expect(first).toMatchObject({ state: KeyState.REVOKED, revokeTime: timestampFromMs(world.nowMs) })
    await expect(world.callerOf(key)).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
    const before = await server.sql`select version from control_version`
    world.nowMs += 1_000
    expect(await invoke(revokeKey, world.keys.revokeKey, { keyId }, caller)).toEqual(first)
    expect(await server.sql`select version from control_version`).toEqual(before)
  })

  it('ends what was made with the key, and with that, and leaves a record of each', async () => {
    const { id, caller } = await world.scene()
    const child = await world.make({}, caller)
    const grandchild = await world.make({}, await world.callerOf(child.key))
    const other = await world.scene()
    await invoke(revokeKey, world.keys.revokeKey, { keyId: id }, caller)
    for (const { key } of [child, grandchild]) {
      await expect(world.callerOf(key)).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
    }
    await expect(world.callerOf(other.key)).resolves.toBeDefined()
    const revoked = await server.sql`
      select resource, reason from audit_records where action = 'key.revoked'
        and resource = any(${[id, child.id, grandchild.id].map((each) => `key/${each}`)}) order by resource`
    expect(revoked).toHaveLength(3)
    expect(revoked.filter(({ reason }) => reason === `made with key ${id}`)).toHaveLength(2)
  })
})

describe('the last use of a key', () => {
  it('is shown, goes back never, and tells no gateway of a change', async () => {
    const { id, consumer, caller } = await world.scene()
    expect((await invoke(getKey, world.keys.getKey, { keyId: id }, caller)).lastUseTime).toBeUndefined()
    const before = await server.sql`select version from control_version`
    await upsertKeyUses(server.sql, [{ keyId: id, atMs: 2_000, address: '10.0.0.2' }])
    await upsertKeyUses(server.sql, [{ keyId: id, atMs: 1_000, address: '10.0.0.1' }])
    const used = { lastUseTime: timestampFromMs(2_000), lastUseAddress: '10.0.0.2' }
    const { apiKeys } = await invoke(listKeys, world.keys.listKeys, {}, keyOf(consumer))
    expect(apiKeys).toMatchObject([used])
    expect(await server.sql`select version from control_version`).toEqual(before)
  })
})

describe('a repeated request', () => {
  it('makes no second key: the same one gets a new secret, and the old secret is good no more', async () => {
    const { caller } = await world.scene()
    const request = { name: 'ci', requestId: randomUUID() }
    const first = await world.make(request, caller)
    const second = await world.make(request, caller)
    expect(second.id).toBe(first.id)
    await expect(world.callerOf(first.key)).rejects.toMatchObject({ reason: 'CREDENTIAL_INVALID' })
    await expect(world.callerOf(second.key)).resolves.toMatchObject({ keyId: first.id })
  })

  it('of a rotation answers with the same successor, and the old key ends when it was to', async () => {
    const { caller, id } = await world.scene()
    const request = { keyId: id, overlap: { seconds: 60n }, requestId: randomUUID() }
    const first = await invoke(rotateKey, world.keys.rotateKey, request, caller)
    world.nowMs += 10_000
    const second = await invoke(rotateKey, world.keys.rotateKey, request, caller)
    expect(second.apiKey?.id).toBe(first.apiKey?.id)
    expect(second.rotatedKey).toEqual(first.rotatedKey)
    await expect(world.callerOf(second.key)).resolves.toBeDefined()
  })

  it('is refused with other fields, and once the key was used or has ended', async () => {
    const { caller } = await world.scene()
    const request = { name: 'ci', requestId: randomUUID() }
    const { id } = await world.make(request, caller)
    await expect(world.make({ ...request, name: 'cd' }, caller)).rejects.toMatchObject({
      reason: 'IDEMPOTENCY_KEY_REUSED',
      fields: [{ field: 'request_id' }],
    })
    await server.sql`insert into api_key_uses values (${id}, now(), '::1')`
    await expect(world.make(request, caller)).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' })
    const ended = { requestId: randomUUID() }
    const { id: keyId } = await world.make(ended, caller)
    await invoke(revokeKey, world.keys.revokeKey, { keyId }, caller)
    await expect(world.make(ended, caller)).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' })
  })
})
