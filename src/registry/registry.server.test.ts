import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import {
  DisconnectPolicy,
  Endpoint_Auth,
  Endpoint_Protocol,
  Fallback_Condition,
  Registry,
  ResponseCache_Sharing,
  Routing,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { createKeyLoader } from '../identity/key-loader.ts'
import { createKeyService } from '../identity/key-service.ts'
import { selectKeyRecords } from '../identity/key-store.ts'
import { createKeyVerifier } from '../identity/key-verifier.ts'
import { createSecretHasher } from '../identity/secret-hasher.ts'
import { connectPostgres } from '../storage/postgres.ts'
import { createRegistryService } from './registry-service.ts'
import { findService } from './snapshot.ts'
import { createSnapshots, type Snapshots, type SnapshotsOptions } from './snapshots.ts'

const { registerService, getService, listServices } = Registry.method
const { createKey, revokeKey } = KeyService.method
const generous = { timeout: 20_000, interval: 10 }
const rarely = 3_600_000

let server: PostgresServer
let snapshots: Snapshots
let registry: ReturnType<typeof createRegistryService>
const opened: Snapshots[] = []

/** Another replica: a snapshot of its own on the same database. */
async function replica(options: Partial<SnapshotsOptions> = {}): Promise<Snapshots> {
  const made = createSnapshots({ sql: server.sql, log: silentLog, pollMs: rarely, ...options })
  opened.push(made)
  await made.start()
  return made
}

beforeAll(async () => {
  server = await startPostgresServer({ owned: true })
  snapshots = await replica()
  registry = createRegistryService({ sql: server.sql, snapshots, newId: randomUUID })
}, 60_000)

afterAll(async () => {
  await Promise.all(opened.map((one) => one.close()))
  await server?.stop()
})

let names = 0
function aService(name = `service-${++names}`, version = '1.0.0') {
  return {
    name,
    version,
    description: 'Answers.',
    endpoints: [
      { url: 'http://127.0.0.1:9/v1/chat', protocol: Endpoint_Protocol.OPENAI, credentialRef: 'env:TOKEN' },
      { url: 'http://127.0.0.1:9/v2/chat', timeout: { seconds: 2n, nanos: 500_000_000 } },
    ],
  }
}

function register(service: Parameters<typeof invoke<typeof registerService.input, typeof registerService.output>>[2]) {
  return invoke(registerService, registry.registerService, service, administrator)
}

async function aConsumer(): Promise<string> {
  const [organizationId, id] = [randomUUID(), randomUUID()]
  await server.sql`insert into organizations (id, name) values (${organizationId}, ${organizationId})`
  await server.sql`
    insert into consumers (id, organization_id, name, tier, status, granted_services, overrides)
    values (${id}, ${organizationId}, 'c', 'premium', 'active', '{*}', '{"requestBurst": 5}')`
  return id
}

describe('RegisterService', () => {
  it('answers with ids, defaults and the price’s version; the snapshot holds it at once', async () => {
    const { name } = aService()
    const pricing = {
      currency: 'EUR',
      model: {
        case: 'perToken' as const,
        value: { inputNanosPerMillion: 3n, outputNanosPerMillion: 10n ** 15n, cachedInputNanosPerMillion: 0n },
      },
    }
    const service = await register({ service: { ...aService(name), pricing } })
    expect(service).toMatchObject({ name, status: ServiceStatus.ACTIVE, defaultMaxOutputTokens: 1024n })
    expect(service.pricing?.version).toBe('v1')
    expect(service.endpoints.map((endpoint) => endpoint.timeout?.nanos)).toEqual([undefined, 500_000_000])
    expect(new Set([service.id, ...service.endpoints.map((endpoint) => endpoint.id)]).size).toBe(3)

    const record = findService(snapshots.current(), name)
    expect(record).toMatchObject({
      id: service.id,
      status: 'active',
      endpoints: [
        { protocol: 'openai', credentialRef: 'env:TOKEN', timeoutMs: undefined, weight: 1, priority: 0 },
        { protocol: 'openai', credentialRef: '', timeoutMs: 2_500 },
      ],
      price: {
        version: 'v1',
        currency: 'EUR',
        model: {
          kind: 'per_token',
          inputNanosPerMillion: 3,
          outputNanosPerMillion: 10 ** 15,
          cachedInputNanosPerMillion: 0,
          cacheWriteInputNanosPerMillion: 3,
          reasoningOutputNanosPerMillion: 10 ** 15,
        },
      },
    })
    expect(record).toBe(snapshots.current().servicesById.get(service.id))
    for (const id of [service.id, name]) {
      expect(await invoke(getService, registry.getService, { id }, administrator)).toEqual(service)
    }
  })

  it('keeps how calls are routed, each deadline by itself, and what becomes of calls without a caller', async () => {
    const ms = (value: number) => ({ seconds: 0n, nanos: value * 1_000_000 })
    const endpoint = {
      url: 'http://127.0.0.1:9/v1/chat',
      weight: 7,
      priority: 2,
      connectTimeout: ms(10),
      headersTimeout: ms(20),
      firstTokenTimeout: ms(30),
      idleTimeout: ms(40),
      timeout: ms(50),
    }
    const { ERROR, BUSY, TIMEOUT, CONTENT_FILTER } = Fallback_Condition
    const filtered = { serviceId: 'b', on: [CONTENT_FILTER] }
    const wanted = {
      routing: Routing.LEAST_LATENCY,
      onDisconnect: DisconnectPolicy.DRAIN,
      drainLimit: ms(60),
      responseCache: { ttl: ms(70), sharing: ResponseCache_Sharing.CONSUMER },
    }
    const fallbacks = [{ serviceId: 'a' }, filtered]
    const service = await register({ service: { ...aService(), ...wanted, fallbacks, endpoints: [endpoint] } })
    const shown = [{ serviceId: 'a', on: [ERROR, BUSY, TIMEOUT] }, filtered]
    expect(service).toMatchObject({ ...wanted, fallbacks: shown, endpoints: [endpoint] })
    expect(snapshots.current().servicesById.get(service.id)).toMatchObject({
      routing: 'least_latency',
      onDisconnect: 'drain',
      drainLimitMs: 60,
      responseCache: { ttlMs: 70, sharing: 'consumer' },
      fallbacks: [
        { serviceId: 'a', on: ['error', 'busy', 'timeout'] },
        { serviceId: 'b', on: ['content_filter'] },
      ],
      endpoints: [
        {
          weight: 7,
          priority: 2,
          connectTimeoutMs: 10,
          headersTimeoutMs: 20,
          firstTokenTimeoutMs: 30,
          idleTimeoutMs: 40,
          timeoutMs: 50,
        },
      ],
    })
    expect(await invoke(getService, registry.getService, { id: service.id }, administrator)).toEqual(service)

    const plain = await register({ service: aService() })
    expect(plain).toMatchObject({ routing: Routing.WEIGHTED, onDisconnect: DisconnectPolicy.CANCEL })
    expect(plain.endpoints.map(({ weight, priority }) => [weight, priority])).toEqual([
      [1, 0],
      [1, 0],
    ])
  })

  it('keeps the protocol, and what its backends must be told in it', async () => {
    const endpoint = {
      url: 'https://models.example',
      protocol: Endpoint_Protocol.GEMINI,
      auth: Endpoint_Auth.BEARER,
      model: 'models/gemini',
    }
    const gemini = await register({ service: { ...aService(), endpoints: [endpoint] } })
    expect(gemini).toMatchObject({ endpoints: [endpoint] })
    expect(snapshots.current().servicesById.get(gemini.id)).toMatchObject({
      refusesStreamOptions: false,
      jsonPointers: {},
      endpoints: [{ protocol: 'gemini', auth: 'bearer', model: 'models/gemini' }],
    })
    expect(await invoke(getService, registry.getService, { id: gemini.id }, administrator)).toEqual(gemini)

    const jsonPointers = { inputTokens: '/usage/in', answerModel: '/model' }
    const plain = { ...aService(), endpoints: [{ url: 'https://a.example', protocol: Endpoint_Protocol.JSON }] }
    const json = await register({ service: { ...plain, jsonPointers } })
    expect(json).toMatchObject({ jsonPointers })
    expect(snapshots.current().servicesById.get(json.id)).toMatchObject({ jsonPointers })
    expect(await invoke(getService, registry.getService, { id: json.id }, administrator)).toEqual(json)

    const reserved = await register({ service: { ...aService(), refusesStreamOptions: true } })
    expect(reserved).toMatchObject({ refusesStreamOptions: true })
    expect(snapshots.current().servicesById.get(reserved.id)?.refusesStreamOptions).toBe(true)
  })

  it('knows every protocol and every way to show a credential, and gives them back', async () => {
    const stated = (values: object) => Object.values(values).filter((value) => typeof value === 'number' && value > 0)
    for (const protocol of stated(Endpoint_Protocol)) {
      const model = protocol === Endpoint_Protocol.GRPC ? 'upstream' : ''
      const { endpoints } = await register({
        service: { ...aService(), endpoints: [{ url: 'https://a.example', protocol, model }] },
      })
      expect(endpoints).toMatchObject([{ protocol }])
    }
    for (const auth of stated(Endpoint_Auth)) {
      const { endpoints } = await register({
        service: { ...aService(), endpoints: [{ url: 'https://a.example', auth }] },
      })
      expect(endpoints).toMatchObject([{ auth }])
    }
  })

  it('keeps a price per request, and a service without a price', async () => {
    const value = { requestNanos: 7n }
    const pricing = { currency: 'USD', model: { case: 'perRequest' as const, value } }
    const fixed = await register({ service: { ...aService(), pricing } })
    expect(fixed.pricing?.model).toMatchObject({ case: 'perRequest', value })
    expect(snapshots.current().servicesById.get(fixed.id)?.price?.model).toEqual({
      kind: 'per_request',
      requestNanos: 7,
    })
    const unpriced = await register({ service: aService() })
    expect(unpriced.pricing).toBeUndefined()
    expect(snapshots.current().servicesById.get(unpriced.id)?.price).toBeUndefined()
  })

  it('refuses a name and version that exist, and leaves nothing of the attempt', async () => {
    const { name } = await register({ service: aService() })
    const [before] = await server.sql`select count(*)::int as n from endpoints`
    await expect(register({ service: aService(name) })).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
      fields: [{ field: 'service.version' }],
    })
    expect((await server.sql`select count(*)::int as n from endpoints`)[0]).toEqual(before)
    const next = await register({ service: aService(name, '1.1.0') })
    expect((await invoke(getService, registry.getService, { id: name }, administrator)).id).toBe(next.id)
  })

  it('refuses a price without a model', async () => {
    const service = { ...aService(), pricing: { currency: 'EUR' } }
    await expect(register({ service })).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'service.pricing.model' }],
    })
  })
})

describe('GetService and ListServices', () => {
  it('answer SERVICE_NOT_FOUND for what does not exist', async () => {
    await expect(invoke(getService, registry.getService, { id: 'nobody' }, administrator)).rejects.toMatchObject({
      reason: 'SERVICE_NOT_FOUND',
      metadata: { serviceId: 'nobody' },
    })
  })

  it('list every service once, in the order of ids, page by page', async () => {
    for (let i = 0; i < 3; i++) await register({ service: aService() })
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await invoke(listServices, registry.listServices, { pageSize: 2, pageToken }, administrator)
      expect(page.services.length).toBeLessThanOrEqual(2)
      seen.push(...page.services.map((service) => service.id))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    const rows = await server.sql<{ id: string }[]>`select id from services order by id`
    expect(seen).toEqual(rows.map((row) => row.id))
  })
})

describe('a change is seen by another replica', () => {
  it('by the notification, long before it polls', async () => {
    const other = await replica()
    const service = await register({ service: aService() })
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
    const other = await replica({ now: () => clock.nowMs })
    const { id } = await register({ service: aService() })
    await server.sql`
      insert into limit_rules (scope, subject_id, service_id, name, amount, burst, currency) values
        ('consumer', 'c', '', 'cost_per_month', ${8e15}, null, 'EUR'),
        ('consumer', 'c', ${id}, 'requests_per_second', 3, 4, null),
        ('key', 'c', '', 'concurrent_requests', 1, null, null)`
    await server.sql`
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
    const deaf = new Proxy(server.sql, {
      get: (target, name) => (name === 'listen' ? () => ({ close: async () => {} }) : Reflect.get(target, name)),
    })
    const other = await replica({ sql: deaf, pollMs: 20 })
    const { id } = await register({ service: aService() })
    await expect.poll(() => other.current().servicesById.has(id), generous).toBe(true)
  })

  it('when a price comes into force, without any change in the database', async () => {
    const clock = { nowMs: Date.now() }
    const other = await replica({ now: () => clock.nowMs })
    const { id } = await register({ service: aService() })
    const from = new Date(clock.nowMs + 60_000)
    await server.sql`
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
    const cut: typeof server.sql = new Proxy(server.sql, {
      apply: (target, self, args) => (isAway ? Promise.reject(new Error('cut')) : Reflect.apply(target, self, args)),
    })
    const other = await replica({ sql: cut, now: () => clock.nowMs })
    const { id } = await register({ service: aService() })
    const from = new Date(clock.nowMs + 60_000)
    await server.sql`
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
    const keys = createKeyService({ sql: server.sql, hasher, snapshots })
    const loadKey = createKeyLoader({ loadKeys: (ids) => selectKeyRecords(server.sql, ids) })
    const verifier = createKeyVerifier({ loadKey, hasher, clock: Date.now })
    await replica({ onChange: () => verifier.invalidate() })
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
    const [before] = await server.sql`select version, catalog_version from control_version`
    await server.sql`delete from ${server.sql(table)} where false`
    const [after] = await server.sql`select version, catalog_version from control_version`
    expect(after?.version).toBe(Number(before?.version) + 1)
    expect(after?.catalog_version).toBe(table === 'api_keys' ? before?.catalog_version : after?.version)
  })

  it('spares a replica the reading of the catalog when only keys changed', async () => {
    await snapshots.refresh()
    const before = snapshots.current()
    await server.sql`delete from api_keys where false`
    await snapshots.refresh()
    expect(snapshots.current().version).toBeGreaterThan(before.version)
    expect(snapshots.current().servicesById).toBe(before.servicesById)
  })

  it('keeps a version of a price as it is', async () => {
    const value = { requestNanos: 7n }
    const pricing = { currency: 'USD', model: { case: 'perRequest' as const, value } }
    const { id } = await register({ service: { ...aService(), pricing } })
    await expect(server.sql`update prices set request_nanos = 8 where service_id = ${id}`).rejects.toThrow(
      'never changed',
    )
  })
})

describe('without Postgres', () => {
  it('the last snapshot stays and says since when it is stale; after the return it follows again', async () => {
    const sql = connectPostgres({ ...server.target, log: silentLog })
    const other = await replica({ sql, pollMs: 20, timeoutMs: 500 })
    const { id } = await register({ service: aService() })
    await expect.poll(() => other.current().servicesById.has(id), generous).toBe(true)
    await server.kill9()
    await expect.poll(() => other.staleSinceMs(), generous).toBeTypeOf('number')
    expect(other.current().servicesById.has(id)).toBe(true)
    await expect(
      invoke(registerService, registry.registerService, { service: aService() }, administrator),
    ).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
    await server.restart()
    await expect.poll(() => other.staleSinceMs(), generous).toBeUndefined()
    const { id: next } = await register({ service: aService() })
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
