import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { silentLog } from '../../test/support/postgres-server.ts'
import { createKeyLoader } from '../identity/key-loader.ts'
import { createKeyService } from '../identity/key-service.ts'
import { selectKeyRecords } from '../identity/key-store.ts'
import { createKeyVerifier } from '../identity/key-verifier.ts'
import { createSecretHasher } from '../identity/secret-hasher.ts'
import { newId } from '../ids.ts'
import { connectPostgres } from '../storage/postgres.ts'
import { startRegistry, type TestRegistry } from './registry-support.ts'
import { createSnapshots } from './snapshots.ts'

const { createKey, revokeKey } = KeyService.method
const generous = { timeout: 20_000, interval: 10 }

let registry: TestRegistry
beforeAll(async () => {
  registry = await startRegistry({ owned: true })
}, 60_000)
afterAll(() => registry?.close())

async function aConsumer(): Promise<string> {
  const [organizationId, id] = [await registry.organization(), newId()]
  await registry.server.sql`
    insert into consumers (id, organization_id, name, tier, status, granted_services, overrides)
    values (${id}, ${organizationId}, 'c', 'premium', 'active', '{*}', '{"requestBurst": 5}')`
  return id
}

describe('a change is seen by another replica', () => {
  it('by the notification, long before it polls', async () => {
    const other = await registry.replica()
    const service = await registry.register()
    const consumerId = await aConsumer()
    await expect
      .poll(() => other.current().consumersById.get(consumerId), generous)
      .toMatchObject({
        tier: 'premium',
        grantedServices: new Set(['*']),
        overrides: { requestBurst: 5 },
      })
    expect(other.current().servicesById.has(service.id)).toBe(true)
  })

  it('with the limit rules of each subject together, also after a price came into force', async () => {
    const day = 86_400_000
    const clock = { nowMs: Date.now() }
    const other = await registry.replica({ now: () => clock.nowMs })
    const { id } = await registry.register()
    await registry.server.sql`
      insert into limit_rules (scope, subject_id, service_id, name, amount, burst, currency) values
        ('consumer', 'c', '', 'cost_per_month', ${8e15}, null, 'EUR'),
        ('consumer', 'c', ${id}, 'requests_per_second', 3, 4, null),
        ('key', 'c', '', 'concurrent_requests', 1, null, null)`
    await registry.server.sql`
      insert into prices (service_id, version, effective_from, currency, kind, request_nanos)
      values (${id}, 'v1', ${new Date(clock.nowMs + day)}, 'EUR', 'per_request', 5)`
    await other.refresh()
    const plain = { burst: undefined, currency: undefined, serviceId: undefined }
    const rules = [
      { ...plain, scope: 'consumer', subjectId: 'c', name: 'cost_per_month', amount: 8e15, currency: 'EUR' },
      { ...plain, scope: 'consumer', subjectId: 'c', serviceId: id, name: 'requests_per_second', amount: 3, burst: 4 },
    ]
    expect(other.current().limitRules.get('consumer:c')).toEqual(rules)
    expect(other.current().limitRules.get('key:c')).toMatchObject([{ name: 'concurrent_requests', amount: 1 }])
    expect(other.current().limitRules.get('organization:c')).toBeUndefined()
    clock.nowMs += day
    await other.refresh()
    expect(other.current().servicesById.get(id)?.price?.version).toBe('v1')
    expect(other.current().limitRules.get('consumer:c')).toEqual(rules)
  })

  it('by the poll, with the notifier down', async () => {
    const deaf = new Proxy(registry.server.sql, {
      get: (target, name) => (name === 'listen' ? () => ({ close: async () => {} }) : Reflect.get(target, name)),
    })
    const other = await registry.replica({ sql: deaf, pollMs: 20 })
    const { id } = await registry.register()
    await expect.poll(() => other.current().servicesById.has(id), generous).toBe(true)
  })

  it('when a price comes into force, without any change in the database', async () => {
    const clock = { nowMs: Date.now() }
    const other = await registry.replica({ now: () => clock.nowMs })
    const { id } = await registry.register()
    const from = new Date(clock.nowMs + 60_000)
    await registry.server.sql`
      insert into prices (service_id, version, effective_from, currency, kind, request_nanos)
      values (${id}, 'v2', ${from}, 'EUR', 'per_request', 5)`
    await other.refresh()
    expect(other.current().servicesById.get(id)?.price).toBeUndefined()
    expect(other.current().nextPriceChangeMs).toBe(from.getTime())
    clock.nowMs += 60_000
    await other.refresh()
    expect(other.current().servicesById.get(id)?.price?.version).toBe('v2')
  })

  it('when a price comes into force while the database is away', async () => {
    const clock = { nowMs: Date.now() }
    let isAway = false
    const cut: typeof registry.server.sql = new Proxy(registry.server.sql, {
      apply: (target, self, args) => (isAway ? Promise.reject(new Error('cut')) : Reflect.apply(target, self, args)),
    })
    const other = await registry.replica({ sql: cut, now: () => clock.nowMs })
    const { id } = await registry.register()
    const from = new Date(clock.nowMs + 60_000)
    await registry.server.sql`
      insert into prices (service_id, version, effective_from, currency, kind, request_nanos)
      values (${id}, 'v2', ${from}, 'EUR', 'per_request', 5)`
    await other.refresh()
    isAway = true
    clock.nowMs += 60_000
    await other.refresh()
    expect(other.staleSinceMs()).toBeDefined()
    expect(other.current().servicesById.get(id)?.price?.version).toBe('v2')
  })

  it('as the end of a revoked key, on a replica that knows the key well', async () => {
    const hasher = createSecretHasher()
    const keys = createKeyService({ sql: registry.server.sql, hasher, snapshots: registry.snapshots })
    const loadKey = createKeyLoader({ loadKeys: (ids) => selectKeyRecords(registry.server.sql, ids) })
    const verifier = createKeyVerifier({ loadKey, hasher, clock: Date.now })
    await registry.replica({ onChange: () => verifier.invalidate() })
    const consumerId = await aConsumer()
    const { key, apiKey } = await invoke(createKey, keys.createKey, { consumerId }, administrator)
    await verifier.verify(key)
    await invoke(revokeKey, keys.revokeKey, { consumerId, keyId: apiKey?.id ?? '' }, administrator)
    const verdict = () =>
      verifier.verify(key).then(
        () => 'good',
        (error) => error.reason,
      )
    await expect.poll(verdict, generous).toBe('CREDENTIAL_REVOKED')
  })
})

describe('control_version', () => {
  const tables = ['organizations', 'consumers', 'api_keys', 'services', 'endpoints', 'prices', 'limit_rules']

  it.each(tables)('moves with a change of %s', async (table) => {
    const [before] = await registry.server.sql`select version, catalog_version from control_version`
    await registry.server.sql`delete from ${registry.server.sql(table)} where false`
    const [after] = await registry.server.sql`select version, catalog_version from control_version`
    expect(after?.version).toBe(Number(before?.version) + 1)
    expect(after?.catalog_version).toBe(table === 'api_keys' ? before?.catalog_version : after?.version)
  })

  it('spares a replica the reading of the catalog when only keys changed', async () => {
    await registry.snapshots.refresh()
    const before = registry.snapshots.current()
    await registry.server.sql`delete from api_keys where false`
    await registry.snapshots.refresh()
    expect(registry.snapshots.current().version).toBeGreaterThan(before.version)
    expect(registry.snapshots.current().servicesById).toBe(before.servicesById)
  })

  it('keeps a version of a price as it is', async () => {
    const value = { requestNanos: 7n }
    const pricing = { currency: 'USD', model: { case: 'perRequest' as const, value } }
    const { id } = await registry.register({ pricing })
    await expect(registry.server.sql`update prices set request_nanos = 8 where service_id = ${id}`).rejects.toThrow(
      'never changed',
    )
  })
})

describe('without Postgres', () => {
  it('the last snapshot stays and says since when it is stale; after the return it follows again', async () => {
    const sql = connectPostgres({ ...registry.server.target, log: silentLog })
    const other = await registry.replica({ sql, pollMs: 20, timeoutMs: 500 })
    const { id } = await registry.register()
    await expect.poll(() => other.current().servicesById.has(id), generous).toBe(true)
    await registry.server.kill9()
    await expect.poll(() => other.staleSinceMs(), generous).toBeTypeOf('number')
    expect(other.current().servicesById.has(id)).toBe(true)
    await expect(registry.register()).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
    await registry.server.restart()
    await expect.poll(() => other.staleSinceMs(), generous).toBeUndefined()
    const { id: next } = await registry.register()
    await expect.poll(() => other.current().servicesById.has(next), generous).toBe(true)
    await other.close()
    await sql.end(5_000)
  }, 60_000)

  it('a process does not start', async () => {
    const sql = connectPostgres({ url: 'postgres://nobody@127.0.0.1:1/none', log: silentLog })
    const first = createSnapshots({ sql, log: silentLog, timeoutMs: 500 })
    await expect(first.start()).rejects.toThrow()
    await first.close()
    await sql.end(1_000)
  })
})
