import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { createKeyWorld, type KeyWorld } from '../../test/support/key-world.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'

let server: PostgresServer
let world: KeyWorld
const { updateKey, rotateKey, revokeKey } = KeyService.method
const dayMs = 86_400_000

beforeAll(async () => {
  server = await startPostgresServer()
  world = createKeyWorld(server.sql)
}, 60_000)

afterAll(() => server?.stop())

describe('a key that makes keys', () => {
  it('hands its scopes on where none are asked, and gives none beyond them', async () => {
    const { id: consumerId } = await world.newConsumer()
    const scopes = { services: ['chat'], permissions: ['keys.write', 'consumption.route'], models: [] }
    const { key } = await world.make({ consumerId, scopes })
    const caller = await world.callerOf(key)
    expect((await world.make({}, caller)).apiKey.scopes).toMatchObject(scopes)
    const less = { permissions: ['consumption.route'], models: ['m'] }
    expect((await world.make({ scopes: less }, caller)).apiKey.scopes).toMatchObject({ ...less, services: ['chat'] })
    for (const more of [{ services: ['chat', 'other'] }, { permissions: ['usage.read'] }]) {
      const refused = world.make({ scopes: more }, caller)
      await expect(refused).rejects.toMatchObject({ reason: 'KEY_SCOPE_EXCEEDED' })
    }
  })

  it('neither rotates nor widens a key that may do more', async () => {
    const { consumer, id: wide } = await world.scene()
    const scopes = { permissions: ['keys.write'] }
    const narrow = await world.make({ consumerId: consumer.id, scopes })
    const caller = await world.callerOf(narrow.key)
    const refused = { reason: 'KEY_SCOPE_EXCEEDED' }
    const { keys } = world
    await expect(invoke(rotateKey, keys.rotateKey, { keyId: wide }, caller)).rejects.toMatchObject(refused)
    const named = { apiKey: { id: wide, name: 'x' } }
    await expect(invoke(updateKey, keys.updateKey, named, caller)).rejects.toMatchObject(refused)
    const widened = { apiKey: { id: narrow.id, scopes: { permissions: ['usage.read'] } } }
    await expect(invoke(updateKey, keys.updateKey, widened, caller)).rejects.toMatchObject(refused)
  })

  it('gives no life beyond its own, and its own where none is asked', async () => {
    const { id: consumerId } = await world.newConsumer()
    const { key, apiKey } = await world.make({ consumerId, expiresInDays: 10 })
    const caller = await world.callerOf(key)
    expect((await world.make({}, caller)).apiKey.expireTime).toEqual(apiKey.expireTime)
    expect((await world.make({ expiresInDays: 5 }, caller)).apiKey.expireTime).toBeDefined()
    await expect(world.make({ expiresInDays: 11 }, caller)).rejects.toMatchObject({ reason: 'KEY_SCOPE_EXCEEDED' })
    const child = await world.make({}, caller)
    const later = { apiKey: { id: child.id, consumerId, expireTime: timestampFromMs(world.nowMs + 11 * dayMs) } }
    // Not even by an administrator: it ends with what it was made with.
    await expect(invoke(updateKey, world.keys.updateKey, later, administrator)).rejects.toMatchObject({
      reason: 'KEY_SCOPE_EXCEEDED',
    })
  })

  it('makes none when it has limits of its own, by a tier or by a rule', async () => {
    const { id: consumerId } = await world.newConsumer()
    const tiered = await world.make({ consumerId, tier: Tier.BASIC })
    const ruled = await world.make({ consumerId })
    await server.sql`
      insert into limit_rules (scope, subject_id, name, amount) values ('key', ${ruled.id}, 'tokens_per_month', 10)`
    for (const { key } of [tiered, ruled]) {
      await expect(world.make({}, await world.callerOf(key))).rejects.toMatchObject({
        reason: 'KEY_SCOPE_EXCEEDED',
        metadata: { scope: 'limits' },
      })
    }
  })

  it('gives no tier above that of its consumer, and none that replaces the limits of the consumer', async () => {
    const { caller } = await world.scene(Tier.PREMIUM)
    expect((await world.make({ tier: Tier.PREMIUM }, caller)).apiKey.tierReplaces).toBe(false)
    await expect(world.make({ tier: Tier.ENTERPRISE }, caller)).rejects.toMatchObject({
      reason: 'KEY_SCOPE_EXCEEDED',
      metadata: { scope: 'tier' },
    })
  })

  it('makes none when it was revoked a moment ago, whatever this process still believes', async () => {
    const { id, consumer, caller } = await world.scene()
    await invoke(revokeKey, world.keys.revokeKey, { consumerId: consumer.id, keyId: id }, administrator)
    await expect(world.make({}, caller)).rejects.toMatchObject({ reason: 'KEY_INACTIVE' })
  })
})
