/**
 * The registry from outside: what becomes of calls while services change.
 */
import { createServer } from 'node:http'
import { create } from '@bufbuild/protobuf'
import { FieldMaskSchema, timestampFromMs } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { EndpointState_Breaker, EndpointState_Health } from '../gen/marketplace/v1/endpoint_health_pb.ts'
import { Registry, type Service } from '../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { at, parseJson } from './support/json.ts'
import { chat } from './support/payloads.ts'
import { refusal } from './support/refusal.ts'
import { type WireName, wiresOf } from './support/stream-wires.ts'
import { demoFacts, startTollgate, type Tollgate } from './support/tollgate.ts'

let backend: PracticeBackend
let gate: Tollgate
let adminKey: string
let key: string

beforeAll(async () => {
  backend = await startPracticeBackend()
  gate = await startTollgate({ command: 'dev' })
  const facts = await demoFacts(gate)
  adminKey = facts.adminKey ?? ''
  key = facts.key ?? ''
}, 120_000)

afterAll(async () => {
  await gate?.stop()
  await backend?.close()
})

const registry = () => gate.client(Registry, adminKey)

let names = 0
function register(version = '1.0.0', name = `service-${++names}`, query = ''): Promise<Service> {
  const endpoints = [{ url: `${backend.url}/v1/chat/completions${query}` }]
  return registry().registerService({ service: { name, version, endpoints } })
}

function route(serviceId: string) {
  return gate.client(ConsumptionService, key).routeRequest({ serviceId, payload: chat('x') })
}

describe('a deprecated service', () => {
  const wires: readonly WireName[] = ['gRPC', 'gRPC-Web', 'Connect JSON', 'OpenAI API']

  test.each(wires)('takes calls, and warns in the answer and in the refusal: %s', async (wire) => {
    const successor = await register()
    const { id, name } = await register()
    const sunsetAtMs = Date.parse('2027-01-01T00:00:00Z')
    const sunsetTime = timestampFromMs(sunsetAtMs)
    const { deprecation } = await registry().deprecateService({ id, sunsetTime, successor: successor.name })
    const warned: Record<string, string | null>[] = []
    const onHeaders = (headers: Headers): void => {
      const read = ['deprecation', 'sunset', 'x-tollgate-successor'].map((header) => [header, headers.get(header)])
      warned.push(Object.fromEntries(read))
    }
    const call = wiresOf(gate.address)[wire]
    for (const mode of ['whole', 'stream'] as const) {
      expect(await call({ key, service: name, prompt: 'x', mode, onHeaders })).toMatchObject({ isSuccess: true })
    }
    const expected = {
      deprecation: `@${deprecation?.time?.seconds}`,
      sunset: 'Fri, 01 Jan 2027 00:00:00 GMT',
      'x-tollgate-successor': successor.name,
    }
    expect(warned).toEqual([expected, expected])
  })

  test('goes on after its sunset, and health and metrics say so', async () => {
    const { id, name } = await register()
    await registry().deprecateService({ id, sunsetTime: timestampFromMs(Date.now() - 1_000) })
    expect((await route(name)).servedBy?.serviceId).toBe(id)
    const page = async (path: string) => (await fetch(`${gate.address}${path}`)).text()
    expect(at(parseJson(await page('/health/detailed')), 'components', 'registry')).toEqual({
      status: 'degraded',
      detail: `1 to retire, whose sunset is past: ${name}@1.0.0`,
    })
    expect(await page('/metrics')).toContain('\ntollgate_services_past_sunset 1\n')
    await registry().retireService({ id })
    expect(await page('/metrics')).toContain('\ntollgate_services_past_sunset 0\n')
  })
})

test('a suspended service refuses calls with the reason; a retired one names what takes its place', async () => {
  const { id, name } = await register()
  await registry().suspendService({ id, reason: 'it leaks' })
  expect(await refusal(route(name))).toMatchObject({
    reason: 'SERVICE_INACTIVE',
    metadata: { serviceId: id, status: 'suspended' },
    message: expect.stringContaining('is suspended (it leaks). Call it when it is resumed'),
  })
  await registry().resumeService({ id })
  await route(name)
  const next = await register()
  await registry().retireService({ id, successor: next.name, reason: 'replaced' })
  expect(await refusal(route(id))).toMatchObject({
    reason: 'SERVICE_INACTIVE',
    metadata: { serviceId: id, status: 'retired', successor: next.name },
    message: expect.stringContaining(`is retired (replaced). Call ${next.name} instead.`),
  })
})

test('a version is called by name@version, the newest release by the name', async () => {
  const old = await register('1.9.0')
  const { name } = old
  const newest = await register('1.10.0', name)
  const next = await register('2.0.0-rc.1', name)
  expect((await route(name)).servedBy?.serviceId).toBe(newest.id)
  expect((await route(`${name}@1.9.0`)).servedBy?.serviceId).toBe(old.id)
  expect((await route(`${name}@2.0.0-rc.1`)).servedBy?.serviceId).toBe(next.id)
  expect(await refusal(route(`${name}@3.0.0`))).toMatchObject({ reason: 'SERVICE_NOT_FOUND' })
})

describe('a traffic split', () => {
  async function split(weights: readonly [number, number], sticky: boolean) {
    const one = await register('1.0.0')
    const two = await register('2.0.0', one.name)
    const shares = weights.map((weight, index) => ({ version: `${index + 1}.0.0`, weight }))
    await registry().setTrafficSplit({ split: { name: one.name, shares, sticky } })
    return { name: one.name, one: one.id, two: two.id }
  }

  async function servedBy(name: string, calls: number): Promise<Set<string | undefined>> {
    const answers = await Promise.all(Array.from({ length: calls }, () => route(name)))
    return new Set(answers.map((answer) => answer.servedBy?.serviceId))
  }

  test('gives calls to its versions, and the records name them; a retired one leaves its calls to the other', async () => {
    const { name, one, two } = await split([1, 1], false)
    // All 40 at one version: once in 2^39 runs.
    expect(await servedBy(name, 40)).toEqual(new Set([one, two]))
    const { requestId, servedBy: answeredBy } = await route(name)
    const record = await eventually(async () => {
      return (await gate.client(UsageService, key).listUsageRecords({ requestId })).usageRecords[0]
    })
    expect(record.serviceId).toBe(answeredBy?.serviceId)
    await registry().retireService({ id: one })
    expect(await servedBy(name, 10)).toEqual(new Set([two]))
    await registry().retireService({ id: two })
    expect(await refusal(route(name))).toMatchObject({ reason: 'SERVICE_INACTIVE', metadata: { serviceId: two } })
  })

  test('keeps a consumer at one version when it is sticky', async () => {
    const { name } = await split([1, 1], true)
    expect((await servedBy(name, 40)).size).toBe(1)
  })

  test('takes a repetition with an idempotency key for the same call, whichever version it would be given', async () => {
    const { name } = await split([1, 1], false)
    const client = gate.client(ConsumptionService, key)
    const calls = Array.from({ length: 12 }, () => {
      return client.routeRequest({ serviceId: name, payload: chat('x'), idempotencyKey: name })
    })
    const answers = await Promise.all(calls)
    expect(new Set(answers.map(({ requestId }) => requestId)).size).toBe(1)
    expect(answers.filter(({ replayed }) => replayed).length).toBe(11)
  })
})

describe('an endpoint that gets sick', () => {
  let sickness = 200
  const sickly = createServer((incoming, outgoing) => {
    if (incoming.url === '/health') outgoing.writeHead(sickness).end()
    else outgoing.writeHead(500).end()
  })

  beforeAll(async () => {
    await new Promise<void>((resolve) => sickly.listen(0, '127.0.0.1', () => resolve()))
  })
  afterAll(async () => {
    sickly.closeAllConnections()
    await new Promise((resolve) => sickly.close(resolve))
  })

  test('gets no calls while another one is well, is shown, and gets calls again when it is well', async () => {
    const address = sickly.address()
    const port = typeof address === 'object' ? address?.port : 0
    const healthCheck = {
      probe: { case: 'httpPath', value: '/health' },
      interval: { seconds: 1n },
      healthyThreshold: 1,
      unhealthyThreshold: 1,
    } as const
    // The sick one would be first, and fails every call: whoever was sent there has a second attempt.
    const endpoints = [
      { url: `http://127.0.0.1:${port}/v1/chat/completions`, healthCheck },
      { url: `${backend.url}/v1/chat/completions`, priority: 1 },
    ]
    const name = `service-${++names}`
    const { id } = await registry().registerService({ service: { name, version: '1.0.0', endpoints } })
    const stateOf = async () => (await registry().listEndpointStates({ serviceId: name })).endpointStates[0]
    const hasHealth = (health: EndpointState_Health) => eventually(async () => (await stateOf())?.health === health)
    await hasHealth(EndpointState_Health.WELL)
    expect((await route(id)).servedBy?.attempt).toBe(2)

    sickness = 503
    await hasHealth(EndpointState_Health.SICK)
    expect(await stateOf()).toMatchObject({
      serviceId: id,
      checkFailure: 'status 503',
      breaker: EndpointState_Breaker.CLOSED,
    })
    for (let call = 0; call < 5; call++) expect((await route(id)).servedBy?.attempt).toBe(1)
    const endpointId = (await stateOf())?.endpointId
    const page = async (path: string) => (await fetch(`${gate.address}${path}`)).text()
    expect(await page('/metrics')).toContain(
      `tollgate_endpoint_healthy{service_id="${id}",endpoint_id="${endpointId}"} 0`,
    )
    expect(at(parseJson(await page('/health/detailed')), 'sickEndpoints')).toMatchObject([
      { endpointId, failure: 'status 503' },
    ])

    // Nobody else is left: it is asked all the same.
    const sickOnly = create(FieldMaskSchema, { paths: ['endpoints'] })
    await registry().updateService({ service: { id, endpoints: endpoints.slice(0, 1) }, updateMask: sickOnly })
    expect((await stateOf())?.health).toBe(EndpointState_Health.SICK)
    expect(await refusal(route(id))).toMatchObject({ reason: 'BACKEND_FAILED' })

    sickness = 200
    await hasHealth(EndpointState_Health.WELL)
  })
})

test('an update is in force at once; a call under way goes on as it began', async () => {
  const { id, endpoints } = await register('1.0.0', `service-${++names}`, '?fault=delay=2000')
  const running = route(id)
  await eventually(() => backend.stats().inFlight === 1)
  const updateMask = create(FieldMaskSchema, { paths: ['endpoints'] })
  const moved = { id, endpoints: [{ url: `${backend.url}/v1/chat/completions` }] }
  const updated = await registry().updateService({ service: moved, updateMask })
  expect((await route(id)).servedBy?.endpointId).toBe(updated.endpoints[0]?.id)
  expect((await running).servedBy?.endpointId).toBe(endpoints[0]?.id)
})
