/**
 * A gate whose services come from another one, over the routes of reference 004 §6.1: `source` is an ordinary gate, `gates`
 * are two replicas that follow it, on a Postgres of their own.
 */
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AuditService } from '../gen/marketplace/v1/audit_pb.ts'
import { Registry, Routing, type Service, ServiceStatus as Status } from '../gen/marketplace/v1/registry_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { answering, type MadeRegistry, startMadeRegistry } from './support/made-registry.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { refusal } from './support/refusal.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
let backend: PracticeBackend

beforeAll(async () => {
  backend = await startPracticeBackend()
})
afterAll(async () => {
  await backend?.close()
})

interface DetailedHealth {
  readonly components: { readonly outside_registry: { readonly status: string; readonly detail: string } }
}

const health = async (gate: Tollgate) => {
  const page = (await (await fetch(`${gate.address}/health/detailed`)).json()) as DetailedHealth
  return page.components.outside_registry
}

describe('a gate that follows another one', () => {
  let sourcePostgres: PostgresServer
  let postgres: PostgresServer
  let source: Tollgate
  let gates: Tollgate[]
  let tenant: Tenant

  const startSource = (port = '0'): Promise<Tollgate> =>
    startTollgate({
      command: 'serve',
      env: { DATABASE_URL: sourcePostgres.url, TOLLGATE_ADMIN_KEY: adminKey, EVENTS_SOURCE: '/source', PORT: port },
    })
  const startGate = (): Promise<Tollgate> =>
    startTollgate({
      command: 'serve',
      env: {
        DATABASE_URL: postgres.url,
        TOLLGATE_ADMIN_KEY: adminKey,
        REGISTRY_URL: source.address,
        REGISTRY_API_KEY: adminKey,
        REGISTRY_MODE: 'source',
        REGISTRY_INTERVAL_SECONDS: '1',
      },
    })

  beforeAll(async () => {
    sourcePostgres = await startPostgresServer({ owned: true })
    postgres = await startPostgresServer({ owned: true })
    source = await startSource()
    gates = await Promise.all([startGate(), startGate()])
    tenant = await makeTenant(first(), adminKey, 'own', `${backend.url}/v1/chat/completions`)
  }, 120_000)
  afterAll(async () => {
    await Promise.all([source, ...(gates ?? [])].map((gate) => gate?.stop()))
    await sourcePostgres?.stop()
    await postgres?.stop()
  })

  const first = (): Tollgate => gates[0] as Tollgate
  const there = () => source.client(Registry, adminKey)
  const here = () => first().client(Registry, adminKey)

  /** The service here, as soon as it is as it should be. */
  const followed = (name: string, isSo: (service: Service) => boolean = () => true): Promise<Service> =>
    eventually(async () => {
      const service = await here().getService({ id: name })
      return isSo(service) ? service : undefined
    })

  const register = (name: string, description = 'Small.') =>
    there().registerService({
      service: {
        name,
        version: '1.0.0',
        description,
        endpoints: [{ url: `${backend.url}/v1/chat/completions` }],
        tags: ['chat'],
        capabilities: { streaming: true },
        pricing: { currency: 'USD', model: { case: 'perRequest', value: { requestNanos: 1_000n } } },
      },
    })

  const call = async (name: string, gate = first()): Promise<number> => {
    const response = await fetch(`${gate.address}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${tenant.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: name, messages: [{ role: 'user', content: 'hi' }] }),
    })
    await response.text()
    return response.status
  }
  const grantAll = () =>
    postgres.sql`update consumers set granted_services = array['*'] where id = ${tenant.consumerId}`

  test('serves what is registered there, and what becomes of it', async () => {
    await grantAll()
    const { id } = await register('far-small')
    const service = await followed('far-small')
    expect(service).toMatchObject({
      description: 'Small.',
      tags: ['chat'],
      capabilities: { streaming: true },
      pricing: { model: { case: 'perRequest', value: { requestNanos: 1_000n } } },
      origin: { registry: source.address, serviceId: id },
    })
    for (const gate of gates) await eventually(async () => (await call('far-small', gate)) === 200)

    await there().updateService({ service: { id, description: 'Changed.' }, updateMask: { paths: ['description'] } })
    await there().createPrice({
      serviceId: id,
      price: { currency: 'USD', model: { case: 'perRequest', value: { requestNanos: 2_000n } } },
    })
    const changed = await followed('far-small', ({ description, pricing }) => {
      return (
        description === 'Changed.' &&
        pricing?.model.case === 'perRequest' &&
        pricing.model.value.requestNanos === 2_000n
      )
    })
    expect(changed.endpoints[0]?.id).toBe(service.endpoints[0]?.id)

    await there().deprecateService({ id, message: 'soon', sunsetTime: { seconds: 1_900_000_000n } })
    const deprecated = await followed('far-small', ({ status }) => status === Status.DEPRECATED)
    expect(deprecated.deprecation).toMatchObject({ message: 'soon', sunsetTime: { seconds: 1_900_000_000n } })
    expect(await call('far-small')).toBe(200)

    await there().suspendService({ id, reason: 'broken' })
    await followed('far-small', ({ status, statusReason }) => status === Status.SUSPENDED && statusReason === 'broken')
    await eventually(async () => (await call('far-small')) === 404)
    await there().resumeService({ id })
    await followed('far-small', ({ status }) => status === Status.DEPRECATED)

    await there().retireService({ id, reason: 'over' })
    await followed('far-small', ({ status }) => status === Status.RETIRED)
    const actions = await eventually(async () => {
      const { records } = await first()
        .client(AuditService, adminKey)
        .listAuditRecords({ actor: 'system:registry', pageSize: 100 })
      const own = records.filter(({ resource }) => resource.includes(service.id)).map(({ action }) => action)
      return own.includes('service.retired') && own.reverse()
    })
    expect(actions).toEqual([
      'service.registered',
      'service.updated',
      'price.created',
      'service.deprecated',
      'service.suspended',
      'service.resumed',
      'service.retired',
    ])
  }, 90_000)

  test('refuses to change by hand what is stated there, and lets the gate’s own be changed', async () => {
    await register('far-fixed')
    const { id } = await followed('far-fixed')
    const update = (service: object, ...paths: string[]) =>
      here().updateService({ service: { id, ...service }, updateMask: { paths } })
    const outside = { reason: 'SERVICE_OUTSIDE', code: Code.FailedPrecondition }
    expect(await refusal(update({ description: 'Mine.' }, 'description'))).toMatchObject({
      ...outside,
      fields: [{ field: 'service.description' }],
      metadata: { registry: source.address },
    })
    expect(await refusal(update({ endpoints: [{ url: 'https://mine.example/' }] }, 'endpoints'))).toMatchObject(outside)
    expect(await refusal(here().retireService({ id }))).toMatchObject({
      ...outside,
      fields: [{ field: 'service.status' }],
    })
    expect(await refusal(here().deprecateService({ id }))).toMatchObject(outside)
    const changed = await update({ routing: Routing.LEAST_LATENCY }, 'routing')
    expect(changed.routing).toBe(Routing.LEAST_LATENCY)
    await there().updateService({
      service: { id: changed.origin?.serviceId ?? '', description: 'Theirs.' },
      updateMask: { paths: ['description'] },
    })
    const later = await followed('far-fixed', ({ description }) => description === 'Theirs.')
    expect(later.routing).toBe(Routing.LEAST_LATENCY)
  }, 60_000)

  test('leaves suspended what its operator suspended', async () => {
    const { id: outsideId } = await register('far-stopped')
    const { id } = await followed('far-stopped')
    await here().suspendService({ id, reason: 'by hand' })
    await there().updateService({
      service: { id: outsideId, description: 'New.' },
      updateMask: { paths: ['description'] },
    })
    const service = await followed('far-stopped', ({ description }) => description === 'New.')
    expect(service).toMatchObject({ status: Status.SUSPENDED, statusReason: 'by hand' })
    expect((await here().resumeService({ id })).status).toBe(Status.ACTIVE)
  }, 60_000)

  test('touches no own service, and takes over no name that has one', async () => {
    const before = await here().getService({ id: 'own' })
    await register('own', 'Stolen.')
    const newest = await there().registerService({
      service: { name: 'own', version: '9.0.0', endpoints: [{ url: 'https://thief.example/' }] },
    })
    await eventually(async () => {
      const details = await Promise.all(gates.map(async (gate) => (await health(gate)).detail))
      return details.some((detail) => detail.includes('own@1.0.0') && detail.includes('own@9.0.0'))
    })
    expect(await here().getService({ id: 'own' })).toEqual(before)
    await there().retireService({ id: newest.id })
  }, 60_000)

  test('goes on while the other one is away, and catches up when it is back', async () => {
    await register('far-kept')
    const { id } = await followed('far-kept')
    await eventually(async () => (await call('far-kept')) === 200)
    const { port } = new URL(source.address)
    await source.kill9()
    await eventually(async () => {
      const states = await Promise.all(gates.map(health))
      return states.some(({ status, detail }) => status === 'degraded' && detail.includes('what was known holds'))
    })
    expect(await call('far-kept')).toBe(200)
    // A gate that starts meanwhile knows what was known.
    const late = await startGate()
    try {
      expect(await call('far-kept', late)).toBe(200)
    } finally {
      await late.stop()
    }
    source = await startSource(port)
    await register('far-late')
    await followed('far-late')
    expect((await here().getService({ id: 'far-kept' })).id).toBe(id)
    await eventually(async () => (await Promise.all(gates.map(health))).every(({ status }) => status === 'ok'))
  }, 120_000)

  test('is looked after by one replica, and by the other one when that is killed', async () => {
    const looks = async (gate: Tollgate) => !(await health(gate)).detail.startsWith('another replica')
    const looking = await eventually(async () => {
      const found = await Promise.all(gates.map(looks))
      return found.filter(Boolean).length === 1 && { index: found.indexOf(true) }
    })
    await gates[looking.index]?.kill9()
    const other = gates[1 - looking.index] as Tollgate
    await eventually(() => looks(other))
    await register('far-after')
    await eventually(() => other.client(Registry, adminKey).getService({ id: 'far-after' }))
    gates[looking.index] = await startGate()
  }, 90_000)
})

describe('a registry that is not what it should be', () => {
  let registry: MadeRegistry
  let gate: Tollgate

  beforeAll(async () => {
    registry = await startMadeRegistry()
    registry.setMood(answering(401, { error: 'who are you?' }))
    gate = await startTollgate({
      command: 'serve',
      env: {
        TOLLGATE_ADMIN_KEY: adminKey,
        REGISTRY_URL: registry.url,
        REGISTRY_API_KEY: 'the-wrong-key',
        REGISTRY_MODE: 'source',
        REGISTRY_INTERVAL_SECONDS: '1',
        REGISTRY_ENDPOINT_CREDENTIALS: 'https://llm.example=env:LLM_KEY',
      },
    })
  }, 90_000)
  afterAll(async () => {
    await gate?.stop()
    await registry?.close()
  })

  const entry = (i: number, metadata: object = {}) => ({
    id: `id-${i}`,
    name: `made-${i}`,
    version: '1.0.0',
    provider_id: 'somebody',
    capabilities: [{ name: 'streaming', value: true }],
    metadata: { endpoint: 'https://llm.example/v1', ...metadata },
  })
  const ten = Array.from({ length: 10 }, (_, i) => entry(i))
  const statuses = async (): Promise<Record<string, Status>> => {
    const { services } = await gate.client(Registry, adminKey).listServices({ pageSize: 100 })
    return Object.fromEntries(services.map(({ name, status }) => [name, status]))
  }
  const allActive = Object.fromEntries(ten.map(({ name }) => [name, Status.ACTIVE]))
  /** Resolves when the gate looked at what the registry says now, and saw that it says this of itself. */
  const seen = (detail: string) => eventually(async () => (await health(gate)).detail.includes(detail))
  const lines = (text: string): number => gate.output().split(text).length - 1

  test('refuses the key: said once in the log, and in health all the time', async () => {
    await seen('it refuses REGISTRY_API_KEY (HTTP 401)')
    const asked = registry.asked.length
    await eventually(() => registry.asked.length > asked + 1)
    expect(lines('it refuses REGISTRY_API_KEY')).toBe(1)
    expect(gate.output()).not.toContain('the-wrong-key')
    expect((await health(gate)).status).toBe('degraded')
  }, 60_000)

  test('is followed when it takes the key, with the credentials that the operator gave to its addresses', async () => {
    registry.entries = [
      ...ten,
      entry(10, { endpoints: [{ url: 'https://other.example/', credential_ref: 'env:LLM_KEY' }] }),
    ]
    registry.setMood(() => false)
    const services = await eventually(async () => {
      const page = await gate.client(Registry, adminKey).listServices({ pageSize: 100 })
      return page.services.length === 11 && page.services
    })
    const credentials = services.map(({ endpoints }) =>
      endpoints.map(({ url, credentialRef }) => `${url} ${credentialRef}`),
    )
    expect(new Set(credentials.flat())).toEqual(
      new Set(['https://llm.example/v1 env:LLM_KEY', 'https://other.example/ ']),
    )
    registry.entries = ten
    await eventually(async () => (await statuses())['made-10'] === Status.SUSPENDED)
    registry.entries = [...ten, entry(10, { status: 'retired' })]
    await eventually(async () => (await statuses())['made-10'] === Status.RETIRED)
    registry.entries = ten
  }, 90_000)

  test.each([
    ['fails', answering(500), 'HTTP 500'],
    ['talks garbage', answering(200, '<html>'), 'its answer is no JSON'],
    ['sends somebody away', answering(302, {}, { location: 'https://thief.example/' }), 'redirects are not followed'],
    ['lists nothing', answering(200, { services: [] }), 'the list lacks 10 services'],
    ['lists a part', answering(200, { services: ten.slice(0, 4) }), 'the list lacks 6 services'],
  ])(
    'that %s changes nothing, and is reported',
    async (_, mood, detail) => {
      registry.setMood(mood)
      await seen(detail)
      expect((await health(gate)).status).toBe('degraded')
      expect(await statuses()).toMatchObject(allActive)
      registry.setMood(() => false)
      await eventually(async () => (await health(gate)).status === 'ok')
    },
    60_000,
  )

  test('that lists what cannot be followed: the rest is', async () => {
    registry.entries = [...ten, entry(11), { ...entry(12), name: 'No Name' }, { ...entry(13), metadata: {} }]
    await eventually(async () => (await statuses())['made-11'] === Status.ACTIVE)
    await seen('No Name@1.0.0')
    expect((await health(gate)).detail).toContain('made-13@1.0.0')
    const metrics = await (await fetch(`${gate.address}/metrics`)).text()
    expect(metrics).toMatch(/tollgate_registry_passed_over 2/)
    expect(metrics).toMatch(/tollgate_registry_services 11/)
    registry.entries = ten
  }, 60_000)
})
