import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { KeyEnvironment, KeyService, KeyState } from '../../gen/marketplace/v1/keys_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { createKeyWorld, type KeyWorld } from '../../test/support/key-world.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'

let server: PostgresServer
let world: KeyWorld
const { getKey, rotateKey, revokeKey } = KeyService.method

beforeAll(async () => {
  server = await startPostgresServer()
  world = createKeyWorld(server.sql)
}, 60_000)

afterAll(() => server?.stop())

describe('a rotation', () => {
  it('leaves both keys good until the overlap is over, linked by their ids, with the same facts and limits', async () => {
    const { id: consumerId } = await world.newConsumer()
    const facts = { name: 'ci', metadata: { a: '1' }, scopes: { models: ['m'] }, tier: Tier.BASIC }
    const old = await world.make({ consumerId, ...facts, environment: KeyEnvironment.TEST })
    await server.sql`
      insert into limit_rules (scope, subject_id, name, amount) values ('key', ${old.id}, 'tokens_per_month', 10)`
    const request = { consumerId, keyId: old.id, overlap: { seconds: 60n } }
    const { apiKey, key, rotatedKey } = await invoke(rotateKey, world.keys.rotateKey, request, administrator)
    expect(apiKey).toMatchObject({
      ...facts,
      environment: KeyEnvironment.TEST,
      rotatedFrom: old.id,
      tierReplaces: true,
    })
    expect(rotatedKey).toMatchObject({ id: old.id, rotatedTo: apiKey?.id, state: KeyState.ACTIVE })
    expect(key).toMatch(/^tg_test_/)
    const rules = await server.sql`select amount from limit_rules where subject_id = ${apiKey?.id ?? ''}`
    expect(rules).toEqual([{ amount: 10 }])
    for (const each of [old.key, key]) await expect(world.callerOf(each)).resolves.toBeDefined()
    world.nowMs += 60_000
    await expect(world.callerOf(old.key)).rejects.toMatchObject({ reason: 'CREDENTIAL_EXPIRED' })
    await expect(world.callerOf(key)).resolves.toBeDefined()
  })

  it('without an overlap ends the old key at once', async () => {
    const { id, key: old, caller } = await world.scene()
    const { key } = await invoke(rotateKey, world.keys.rotateKey, { keyId: id }, caller)
    await expect(world.callerOf(old)).rejects.toMatchObject({ reason: 'CREDENTIAL_EXPIRED' })
    await expect(world.callerOf(key)).resolves.toBeDefined()
  })

  it('happens once to a key, and to none that has ended', async () => {
    const { consumer, id, caller } = await world.scene()
    const request = { keyId: id, overlap: { seconds: 60n } }
    await invoke(rotateKey, world.keys.rotateKey, request, caller)
    await expect(invoke(rotateKey, world.keys.rotateKey, request, caller)).rejects.toMatchObject({
      reason: 'KEY_INACTIVE',
      metadata: { state: 'rotated' },
    })
    const named = { consumerId: consumer.id, keyId: id }
    await invoke(revokeKey, world.keys.revokeKey, named, administrator)
    await expect(invoke(rotateKey, world.keys.rotateKey, named, administrator)).rejects.toMatchObject({
      reason: 'KEY_INACTIVE',
      metadata: { state: 'revoked' },
    })
  })

  it('hands what was made with the old key over to the new one', async () => {
    const { consumer, id, caller } = await world.scene()
    const child = await world.make({}, caller)
    const { apiKey } = await invoke(rotateKey, world.keys.rotateKey, { keyId: id }, caller)
    await expect(world.callerOf(child.key)).resolves.toBeDefined()
    const named = { consumerId: consumer.id, keyId: apiKey?.id ?? '' }
    await invoke(revokeKey, world.keys.revokeKey, named, administrator)
    await expect(world.callerOf(child.key)).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
  })

  it('by another key binds the new one to that key, and what was made with the old one', async () => {
    const { consumer, id, caller: owner } = await world.scene()
    const child = await world.make({}, owner)
    const thief = await world.make({ consumerId: consumer.id, expiresInDays: 1 })
    const caller = await world.callerOf(thief.key)
    const { apiKey, key } = await invoke(rotateKey, world.keys.rotateKey, { keyId: id }, caller)
    expect(apiKey).toMatchObject({ madeWith: thief.id, expireTime: thief.apiKey.expireTime })
    const moved = await invoke(getKey, world.keys.getKey, { keyId: child.id }, owner)
    expect(moved).toMatchObject({ madeWith: apiKey?.id, expireTime: thief.apiKey.expireTime })
    const named = { consumerId: consumer.id, keyId: thief.id }
    await invoke(revokeKey, world.keys.revokeKey, named, administrator)
    for (const each of [key, child.key]) {
      await expect(world.callerOf(each)).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
    }
  })

  it('by a key that was made with the one to replace is refused', async () => {
    const { id, caller } = await world.scene()
    const child = await world.callerOf((await world.make({}, caller)).key)
    await expect(invoke(rotateKey, world.keys.rotateKey, { keyId: id }, child)).rejects.toMatchObject({
      reason: 'KEY_SCOPE_EXCEEDED',
      metadata: { scope: 'made_with' },
    })
  })
})
