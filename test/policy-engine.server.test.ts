/**
 * One Tollgate as the policy engine of two others, which share neither a database nor a consumer with it: one lets calls pass
 * unasked while the engine is away, the other refuses them.
 */
import { createServer } from 'node:net'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { PolicyMode, PolicyService } from '../gen/marketplace/v1/policies_pb.ts'
import {
  ContentAction,
  ContentKind,
  PolicyEngine,
  PolicyOutcome,
  type PolicySpecSchema,
} from '../gen/marketplace/v1/policy_pb.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type ProviderServer, startProviderServer } from './support/provider-server.ts'
import { refusal } from './support/refusal.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const engineKey = 'an-administrator-key-for-tests-only-0002'
const address = 'bob@example.org'

let databases: PostgresServer[]
let backend: ProviderServer
let engine: Tollgate
let open: Tollgate
let closed: Tollgate
let tenant: Tenant
let startEngine: () => Promise<Tollgate>

beforeAll(async () => {
  databases = await Promise.all([1, 2].map(() => startPostgresServer({ migrated: false })))
  const [own, others] = databases.map(({ url }) => url)
  backend = await startProviderServer(() => ({
    status: 200,
    body: { choices: [{ message: { content: 'ok' } }], usage: { prompt_tokens: 1, completion_tokens: 1 } },
  }))
  const port = await freePort()
  const env = { DATABASE_URL: own ?? '', TOLLGATE_ADMIN_KEY: engineKey, PORT: String(port) }
  startEngine = () => startTollgate({ command: 'serve', env })
  engine = await startEngine()
  const asking = (POLICY_FAIL_MODE: string): Promise<Tollgate> =>
    startTollgate({
      command: 'serve',
      env: {
        DATABASE_URL: others ?? '',
        TOLLGATE_ADMIN_KEY: adminKey,
        POLICY_ENGINE_URL: `grpc://127.0.0.1:${port}`,
        POLICY_ENGINE_CREDENTIAL: engineKey,
        // This machine may be slower than any that serves.
        POLICY_ENGINE_TIMEOUT_MS: '2000',
        POLICY_FAIL_MODE,
      },
    })
  open = await asking('open')
  closed = await asking('closed')
  const ample = { requestsPerSecond: 1_000_000n, requestBurst: 1_000_000n, tokensPerMonth: 1_000_000_000n }
  tenant = await makeTenant(open, adminKey, 'chat', `${backend.url}/v1/chat/completions`, ample)
  await eventually(() => route(closed, 'hello'))
  await enforce('no-mail', ContentKind.EMAIL, ContentAction.DENY)
  await enforce('no-cards', ContentKind.PAYMENT_CARD, ContentAction.REDACT)
}, 180_000)

afterAll(async () => {
  for (const gateway of [open, closed, engine]) await gateway?.stop()
  await backend?.close()
  for (const database of databases ?? []) await database.stop()
})

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const found = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (found === null || typeof found === 'string') throw new Error('no port is free')
  return found.port
}

async function enforce(name: string, kind: ContentKind, action: ContentAction): Promise<void> {
  const policies = engine.client(PolicyService, engineKey)
  const spec: MessageInitShape<typeof PolicySpecSchema> = {
    when: `consumer.id == "${tenant.consumerId}"`,
    rule: { case: 'content', value: { kinds: [kind], action } },
  }
  await policies.createPolicy({ policy: { name }, spec })
  await policies.activatePolicy({ policyId: name, mode: PolicyMode.ENFORCE })
}

function route(gateway: Tollgate, content: string) {
  const request = { serviceId: tenant.serviceId, payload: chat(content) }
  return gateway.client(ConsumptionService, tenant.key).routeRequest(request)
}

async function health(gateway: Tollgate): Promise<string> {
  return await (await fetch(`${gateway.address}/health/detailed`)).text()
}

test('policies of the engine decide about calls of consumers that it does not know', async () => {
  for (const gateway of [open, closed]) {
    expect(await refusal(route(gateway, `mail ${address}`))).toMatchObject({ reason: 'POLICY_DENIED' })
    await route(gateway, 'pay with 4111 1111 1111 1111')
    const sent = JSON.stringify(backend.received.at(-1)?.body)
    expect(sent).toContain('pay with [redacted:payment_card]')
  }
  const listed = await eventually(async () => {
    const { violations } = await open.client(PolicyService, adminKey).listPolicyViolations({})
    return violations.length >= 4 ? violations : undefined
  })
  expect(listed.map(({ policyName, outcome }) => [policyName, outcome])).toEqual(
    expect.arrayContaining([
      ['no-mail', PolicyOutcome.DENIED],
      ['no-cards', PolicyOutcome.REDACTED],
    ]),
  )
})

test('facts are only taken from whom everything is open', async () => {
  const request = { serviceId: tenant.serviceId, facts: { consumer: { id: tenant.consumerId } } }
  const asked = closed.client(PolicyEngine, tenant.key).validateConsumption(request)
  expect(await refusal(asked)).toMatchObject({ reason: 'PERMISSION_MISSING' })
})

test('an engine that is killed in the middle of calls lets them pass or fails them, and ends the matter when it is back', async () => {
  const seen: Record<'open' | 'closed', string[]> = { open: [], closed: [] }
  let isOver = false
  const load = async (gateway: Tollgate, into: string[]): Promise<void> => {
    while (!isOver) {
      const { code, reason } = await refusal(route(gateway, `mail ${address}`))
      into.push(code === Code.Unknown ? 'passed' : (reason ?? String(code)))
    }
  }
  const callers = [1, 2, 3, 4].flatMap(() => [load(open, seen.open), load(closed, seen.closed)])
  await eventually(() => seen.open.length > 20 && seen.closed.length > 20)
  expect(new Set([...seen.open, ...seen.closed])).toEqual(new Set(['POLICY_DENIED']))
  await engine.kill9()
  await eventually(() => seen.open.at(-1) === 'passed' && seen.closed.at(-1) === 'POLICY_UNAVAILABLE')
  await eventually(async () => (await health(open)).includes('calls pass unasked'))
  await eventually(async () => (await health(closed)).includes('calls are refused'))
  const metrics = await (await fetch(`${closed.address}/metrics`)).text()
  expect(metrics).toMatch(/tollgate_policy_engine_breaker_state [12]/)
  expect(metrics).toMatch(/tollgate_policy_engine_requests_total\{outcome="failed"\} [1-9]/)
  expect(metrics).toMatch(/tollgate_policy_engine_requests_total\{outcome="stopped"\} [1-9]/)

  engine = await startEngine()
  await eventually(() => seen.open.at(-1) === 'POLICY_DENIED' && seen.closed.at(-1) === 'POLICY_DENIED')
  isOver = true
  await Promise.all(callers)
  expect(new Set(seen.open)).toEqual(new Set(['POLICY_DENIED', 'passed']))
  expect(new Set(seen.closed)).toEqual(new Set(['POLICY_DENIED', 'POLICY_UNAVAILABLE']))
  await eventually(async () => (await health(closed)).includes('POLICY_ENGINE_URL answers'))
}, 180_000)
