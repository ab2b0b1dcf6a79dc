import { ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ErrorInfoSchema } from '../gen/google/rpc/error_details_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { at, type Json, parseJson, string } from './support/json.ts'
import { installKafka } from './support/kafka-install.ts'
import { type KafkaServer, startKafkaServer } from './support/kafka-server.ts'
import { readTopic } from './support/kafka-topic.ts'
import { chat } from './support/payloads.ts'
import { freePort } from './support/redis-server.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'
import { toolTimeoutMs } from './support/tools.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const prompt = 'MARKER-of-a-prompt-that-nobody-may-see'

let port: number
let backend: PracticeBackend
let tollgate: Tollgate
let kafka: KafkaServer | undefined

beforeAll(async () => {
  // The broker itself starts later.
  await installKafka()
  port = await freePort()
  backend = await startPracticeBackend({})
  tollgate = await startTollgate({
    command: 'serve',
    entry: 'bundle',
    env: { KAFKA_BROKERS: `127.0.0.1:${port}`, TOLLGATE_ADMIN_KEY: adminKey },
  })
}, toolTimeoutMs)

afterAll(async () => {
  await tollgate?.stop()
  await kafka?.stop()
  await backend?.close()
})

const tenant = (name: string, overrides: Parameters<typeof makeTenant>[4]): Promise<Tenant> =>
  makeTenant(tollgate, adminKey, name, `${backend.url}/v1/chat/completions`, overrides)

/** The reason of a refusal; undefined when the call was answered. */
async function call({ serviceId, key }: Tenant): Promise<string | undefined> {
  const request = { serviceId, payload: chat(prompt), metadata: { note: prompt } }
  return tollgate
    .client(ConsumptionService, key)
    .routeRequest(request)
    .then(
      () => undefined,
      (error: unknown) => ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.reason,
    )
}

async function component(): Promise<Json> {
  const page = await fetch(`${tollgate.address}/health/detailed`)
  expect(page.status).toBe(200)
  return at(parseJson(await page.text()), 'components', 'events')
}

async function sample(name: string): Promise<string | undefined> {
  const text = await (await fetch(`${tollgate.address}/metrics`)).text()
  return text
    .split('\n')
    .find((line) => line.startsWith(`${name} `))
    ?.slice(name.length + 1)
}

test('a gate whose broker is away serves, says so, and tells of its refusals when the broker comes', async () => {
  const limited = await tenant('limited', { requestsPerSecond: 1n, requestBurst: 2n })
  const broke = await tenant('broke', { tokensPerMonth: 0n })
  // All at once, so that no slow machine gives the bucket time to refill between them.
  const reasons = await Promise.all(Array.from({ length: 20 }, () => call(limited)))
  expect(reasons).toContain(undefined)
  expect(reasons).toContain('RATE_LIMITED')
  expect(await call(broke)).toBe('QUOTA_EXCEEDED')

  const degraded = await eventually(async () => {
    const state = await component()
    return at(state, 'status') === 'degraded' && state
  })
  expect(at(degraded, 'detail')).toContain('ECONNREFUSED')
  expect(await sample('tollgate_events_available')).toBe('0')
  expect(Number(await sample('analytics_buffer_size'))).toBe(reasons.filter(Boolean).length + 1)

  kafka = await startKafkaServer({ port })
  await eventually(async () => at(await component(), 'status') === 'ok')
  await eventually(async () => (await sample('analytics_buffer_size')) === '0')
  expect(await sample('tollgate_events_available')).toBe('1')
  expect(await sample('tollgate_events_published_total{type="quota_exceeded"}')).toBe('1')
  expect(await sample('tollgate_events_dropped_total{type="quota_exceeded"}')).toBe('0')

  const expected = reasons.filter(Boolean).length + 1
  const messages = await readTopic(kafka.brokers, 'marketplace.consumption.events', (read) => read.length >= expected)
  expect(messages).toHaveLength(expected)
  expect(JSON.stringify(messages)).not.toContain('MARKER')
  const events = messages.map(({ key, value }) => ({ key, event: parseJson(value) }))
  const [quota] = events.filter(({ key }) => key === broke.organizationId)
  expect(quota?.event).toMatchObject({
    type: 'marketplace.consumption.quota_exceeded',
    source: expect.stringMatching(/^\/tollgate\/.+-\d+$/),
    subject: `consumer:${broke.consumerId}`,
    data: {
      organizationId: broke.organizationId,
      consumerId: broke.consumerId,
      serviceId: broke.serviceId,
      keyId: expect.stringMatching(/./),
      limit: 'tokens_per_month',
      unit: 'tokens',
      capacity: 0,
      remaining: 0,
      tier: 'premium',
    },
  })
  const rates = events.filter(({ key }) => key === limited.organizationId)
  expect(rates).toHaveLength(expected - 1)
  for (const { event } of rates) {
    expect(string(at(event, 'type'))).toBe('marketplace.consumption.rate_limited')
    expect(at(event, 'data')).toMatchObject({ limit: 'requests_per_second', capacity: 2, remaining: 0 })
  }
})

test('the process leaves in order although its broker is away', async () => {
  await kafka?.kill9()
  const limited = await tenant('leaving', { requestsPerSecond: 1n, requestBurst: 1n })
  for (let i = 0; i < 3; i += 1) await call(limited)
  expect(await tollgate.terminate()).toBe(0)
})
