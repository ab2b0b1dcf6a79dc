/**
 * A gate that registers its services at another one, over the routes of reference 004 §6.1: `registry` is an ordinary gate,
 * `gate` tells it of what it has.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  Endpoint_Protocol,
  Registry,
  type Service,
  ServiceStatus as Status,
} from '../gen/marketplace/v1/registry_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { type MadeRegistry, startMadeRegistry } from './support/made-registry.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { freePort } from './support/redis-server.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'

describe('a gate as the registry', () => {
  let backend: PracticeBackend
  let registryPostgres: PostgresServer
  let postgres: PostgresServer
  let registry: Tollgate
  let gate: Tollgate
  let tenant: Tenant
  let keyFile: string

  const startRegistry = (port = '0'): Promise<Tollgate> =>
    startTollgate({
      command: 'serve',
      env: { DATABASE_URL: registryPostgres.url, TOLLGATE_ADMIN_KEY: adminKey, EVENTS_SOURCE: '/registry', PORT: port },
    })

  beforeAll(async () => {
    backend = await startPracticeBackend()
    registryPostgres = await startPostgresServer({ owned: true })
    postgres = await startPostgresServer({ owned: true })
    registry = await startRegistry()
    const port = await freePort()
    gate = await startTollgate({
      command: 'serve',
      env: {
        DATABASE_URL: postgres.url,
        TOLLGATE_ADMIN_KEY: adminKey,
        EVENTS_SOURCE: '/gate',
        PORT: String(port),
        ADVERTISED_URL: `http://127.0.0.1:${port}`,
        REGISTRY_URL: registry.address,
        REGISTRY_API_KEY: adminKey,
        REGISTRY_INTERVAL_SECONDS: '1',
      },
    })
    tenant = await makeTenant(gate, adminKey, 'told-small', `${backend.url}/v1/chat/completions`)
    keyFile = join(gate.dataDir, 'key')
    await writeFile(keyFile, tenant.key)
  }, 120_000)
  afterAll(async () => {
    await Promise.all([registry, gate].map((each) => each?.stop()))
    await registryPostgres?.stop()
    await postgres?.stop()
    await backend?.close()
  })

  const there = () => registry.client(Registry, adminKey)
  const here = () => gate.client(Registry, adminKey)
  const told = (isSo: (service: Service) => boolean = () => true): Promise<Service> =>
    eventually(async () => {
      const service = await there().getService({ id: 'told-small' })
      return isSo(service) ? service : undefined
    })

  const ask = async (method: string, path: string, body?: object, key = adminKey) => {
    const response = await fetch(`${registry.address}/api/v1/services${path}`, {
      method,
      headers: { 'x-api-key': key, ...(body !== undefined && { 'content-type': 'application/json' }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    return { status: response.status, body: JSON.parse(await response.text()) }
  }
  const registration = {
    name: 'by-hand',
    version: '1.0.0',
    provider_id: 'team-nine',
    capabilities: [{ name: 'streaming', value: true }],
    metadata: { description: 'Small.', endpoint: 'https://llm.example/v1', tags: ['chat'], notes: { of: 'others' } },
  }

  test('answers as reference 004 has it', async () => {
    const added = await ask('POST', '', registration)
    expect(added).toEqual({
      status: 201,
      body: {
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        name: 'by-hand',
        version: '1.0.0',
        registered_at: expect.stringMatching(/Z$/),
      },
    })
    const shown = await ask('GET', `/${added.body.id}`)
    expect(shown).toMatchObject({
      status: 200,
      body: {
        ...added.body,
        provider_id: 'team-nine',
        capabilities: registration.capabilities,
        metadata: { description: 'Small.', tags: ['chat'], endpoints: [{ url: 'https://llm.example/v1' }] },
      },
    })
    expect((await ask('GET', '?name=by-hand&version=1.0.0')).body).toEqual({
      services: [shown.body],
      next_page_token: '',
    })
    expect((await ask('GET', '?name=by-hand&version=2.0.0')).body.services).toEqual([])

    const replaced = await ask('PUT', `/${added.body.id}`, {
      ...registration,
      metadata: { description: 'Other.', status: 'deprecated', deprecation: { message: 'soon' } },
    })
    expect(replaced).toMatchObject({
      status: 200,
      body: {
        metadata: {
          description: 'Other.',
          status: 'SERVICE_STATUS_DEPRECATED',
          deprecation: { message: 'soon' },
          tags: [],
          endpoints: [{ url: 'https://llm.example/v1' }],
        },
      },
    })
    expect(await ask('DELETE', `/${added.body.id}`)).toMatchObject({
      status: 200,
      body: { metadata: { status: 'SERVICE_STATUS_RETIRED' } },
    })
  }, 60_000)

  test.each<[what: string, body: object, status: number, field: string]>([
    ['a name that is taken', { ...registration, name: 'taken' }, 409, 'version'],
    ['a name that nobody can call', { ...registration, name: 'By Hand' }, 400, 'name'],
    ['no endpoint', { ...registration, metadata: {} }, 400, 'metadata.endpoints'],
    [
      'tags that are none',
      { ...registration, metadata: { ...registration.metadata, tags: 'chat' } },
      400,
      'metadata.tags',
    ],
    ['what is no registration', { ...registration, endpoint: 'https://llm.example/' }, 400, 'endpoint'],
  ])('refuses %s, naming the field', async (_, body, status, field) => {
    await ask('POST', '', { ...registration, name: 'taken' })
    const refused = await ask('POST', '', body)
    expect(refused.status).toBe(status)
    expect(JSON.stringify(refused.body.error.details)).toContain(`"field":"${field}"`)
  })

  test('lets nobody register who may not, and shows addresses to those only who may change them', async () => {
    const { key } = await makeTenant(registry, adminKey, 'reader', 'https://secret.example/')
    expect((await ask('POST', '', registration, key)).status).toBe(403)
    expect((await ask('GET', '', undefined, 'nonsense')).status).toBe(401)
    const listed = await ask('GET', '?name=reader', undefined, key)
    expect(listed.body.services).toMatchObject([{ name: 'reader', version: '1.0.0' }])
    expect(JSON.stringify(listed.body)).not.toContain('secret.example')
  })

  test('knows what is registered, without its backends, and can call it through the gate', async () => {
    const service = await told()
    expect(service.endpoints).toMatchObject([
      { url: gate.address, protocol: Endpoint_Protocol.GRPC, model: tenant.serviceId, credentialRef: '' },
    ])
    const caller = await makeTenant(registry, adminKey, 'caller', 'http://127.0.0.1:9/')
    await registryPostgres.sql`update consumers set granted_services = array['*'] where id = ${caller.consumerId}`
    const endpoints = service.endpoints.map((endpoint) => ({ ...endpoint, credentialRef: `file:${keyFile}` }))
    await there().updateService({ service: { id: service.id, endpoints }, updateMask: { paths: ['endpoints'] } })
    const call = async (): Promise<number> => {
      const response = await fetch(`${registry.address}/api/v1/consume/told-small`, {
        method: 'POST',
        headers: { authorization: `Bearer ${caller.key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'practice', messages: [{ role: 'user', content: 'hi' }] }),
      })
      await response.text()
      return response.status
    }
    await eventually(async () => (await call()) === 200)
    // What is told later takes no credential away.
    await here().updateService({
      service: { id: tenant.serviceId, description: 'New.' },
      updateMask: { paths: ['description'] },
    })
    await told(({ description }) => description === 'New.')
    expect(await call()).toBe(200)
  }, 60_000)

  test('follows what becomes of it', async () => {
    const id = tenant.serviceId
    await here().deprecateService({ id, message: 'soon' })
    await told(({ status, deprecation }) => status === Status.DEPRECATED && deprecation?.message === 'soon')
    await here().suspendService({ id, reason: 'broken' })
    await told(({ status, statusReason }) => status === Status.SUSPENDED && statusReason === 'broken')
    await here().resumeService({ id })
    await told(({ status }) => status === Status.DEPRECATED)
    await here().resumeService({ id })
    await told(({ status }) => status === Status.ACTIVE)
  }, 60_000)

  test('keeps suspended what its own operator suspended', async () => {
    const { id } = await told()
    await there().suspendService({ id, reason: 'by hand' })
    await here().updateService({
      service: { id: tenant.serviceId, description: 'Still.' },
      updateMask: { paths: ['description'] },
    })
    const service = await told(({ description }) => description === 'Still.')
    expect(service).toMatchObject({ status: Status.SUSPENDED, statusReason: 'by hand' })
    await there().resumeService({ id })
  }, 60_000)

  test('learns what happened while it was away', async () => {
    const { port } = new URL(registry.address)
    await registry.kill9()
    await here().updateService({
      service: { id: tenant.serviceId, description: 'Meanwhile.' },
      updateMask: { paths: ['description'] },
    })
    const late = { name: 'told-late', version: '1.0.0', endpoints: [{ url: 'http://127.0.0.1:9/' }] }
    await here().registerService({ service: late })
    registry = await startRegistry(port)
    await told(({ description }) => description === 'Meanwhile.')
    await eventually(() => there().getService({ id: 'told-late' }))
  }, 90_000)

  test('gets back what somebody deleted', async () => {
    await eventually(() => there().getService({ id: 'told-late' }))
    await registryPostgres.sql.begin(async (tx) => {
      await tx`delete from endpoints where service_id in (select id from services where name = 'told-late')`
      await tx`delete from services where name = 'told-late'`
    })
    await eventually(async () => {
      const rows = await registryPostgres.sql`select from services where name = 'told-late'`
      return rows.length === 1
    })
  }, 60_000)

  test('retires what is retired', async () => {
    await here().retireService({ id: tenant.serviceId, reason: 'over' })
    await told(({ status, statusReason }) => status === Status.RETIRED && statusReason === 'over')
  }, 60_000)
})

describe('a registry that somebody else wrote', () => {
  let registry: MadeRegistry
  let gate: Tollgate

  beforeAll(async () => {
    registry = await startMadeRegistry()
    gate = await startTollgate({
      command: 'serve',
      env: {
        TOLLGATE_ADMIN_KEY: adminKey,
        REGISTRY_URL: registry.url,
        REGISTRY_API_KEY: 'a-key',
        REGISTRY_INTERVAL_SECONDS: '1',
      },
    })
  }, 90_000)
  afterAll(async () => {
    await gate?.stop()
    await registry?.close()
  })

  test('is told again of what it lost, and of a new price, and of nothing that it has', async () => {
    const services = gate.client(Registry, adminKey)
    const { id } = await services.registerService({
      service: { name: 'kept', version: '1.0.0', endpoints: [{ url: 'http://127.0.0.1:9/' }] },
    })
    await eventually(() => registry.entries.length === 1)
    registry.entries = []
    await eventually(() => registry.entries.length === 1)
    const model = { case: 'perRequest' as const, value: { requestNanos: 5n } }
    await services.createPrice({ serviceId: id, price: { currency: 'EUR', model } })
    await eventually(() => JSON.stringify(registry.entries).includes('"request_nanos":"5"'))
    const isWrite = ({ method }: { readonly method: string }): boolean => method !== 'GET'
    const [writes, looks] = [registry.asked.filter(isWrite).length, registry.asked.length]
    await eventually(() => registry.asked.length > looks + 2)
    expect(registry.asked.filter(isWrite)).toHaveLength(writes)
  }, 60_000)

  test('may have the name of another installation: that is left alone', async () => {
    const theirs = { id: 'x', name: 'taken', version: '1.0.0', metadata: { source: '/there', service_id: 'y' } }
    registry.entries = [...registry.entries, theirs]
    await gate.client(Registry, adminKey).registerService({
      service: { name: 'taken', version: '1.0.0', endpoints: [{ url: 'http://127.0.0.1:9/' }] },
    })
    await eventually(async () => {
      const health = await (await fetch(`${gate.address}/health/detailed`)).text()
      return health.includes('taken@1.0.0 (another installation registered it there)')
    })
    expect(registry.entries).toContainEqual(theirs)
  }, 60_000)
})
