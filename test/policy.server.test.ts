/**
 * Policies from outside: two gateways on one Postgres, administered through the one and called through the other, over every
 * wire, with a backend that tells what it was sent.
 */
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { PolicyMode } from '../gen/marketplace/v1/policies_pb.ts'
import { ContentAction, PolicyEngine, PolicyOutcome } from '../gen/marketplace/v1/policy_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { address, adminKey, emails, PolicyWorld, type Spec } from './support/policy-world.ts'
import { refusal } from './support/refusal.ts'
import { startTollgate } from './support/tollgate.ts'

let world: PolicyWorld

beforeAll(async () => {
  world = await PolicyWorld.start()
}, 120_000)
afterAll(() => world?.close())
beforeEach(() => world.disableAll())

/** Calls the second gateway over a wire; returns the status, as HTTP has it, and what the answer says beside the body. */
type Wire = (text: string) => Promise<{ readonly status: number; readonly headers: Headers }>

function openai(path: string, bodyOf: (text: string) => object): Wire {
  return async (text) => {
    const answer = await fetch(`${world.second.address}/v1/${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${world.tenant.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'chat', ...bodyOf(text) }),
    })
    await answer.text()
    return answer
  }
}

const messages = (content: string) => [{ role: 'user', content }]

const wires: readonly (readonly [string, Wire])[] = [
  [
    'gRPC',
    async (text) => {
      let headers = new Headers()
      const request = { serviceId: world.tenant.serviceId, payload: chat(text) }
      const onHeader = (received: Headers): void => {
        headers = received
      }
      const call = world.second.client(ConsumptionService, world.tenant.key).routeRequest(request, { onHeader })
      return { status: await statusOf(call), headers }
    },
  ],
  [
    'a gRPC stream',
    async (text) => {
      let headers = new Headers()
      const payload = Buffer.from(JSON.stringify({ model: 'chat', stream: true, messages: messages(text) }))
      const onHeader = (received: Headers): void => {
        headers = received
      }
      const stream = world.second
        .client(ConsumptionService, world.tenant.key)
        .streamRequest({ serviceId: world.tenant.serviceId, payload }, { onHeader })
      return { status: await statusOf(readAll(stream)), headers }
    },
  ],
  ['/v1/chat/completions', openai('chat/completions', (text) => ({ messages: messages(text) }))],
  [
    'a stream of /v1/chat/completions',
    openai('chat/completions', (text) => ({ messages: messages(text), stream: true })),
  ],
  ['/v1/completions', openai('completions', (prompt) => ({ prompt }))],
  ['/v1/responses', openai('responses', (input) => ({ input }))],
  ['/v1/embeddings', openai('embeddings', (input) => ({ input }))],
]

async function readAll(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

async function statusOf(call: Promise<unknown>): Promise<number> {
  try {
    await call
    return 200
  } catch {
    return (await refusal(call)).code === Code.PermissionDenied ? 403 : 500
  }
}

describe.each(wires)('over %s', (_, call) => {
  test('a denial reaches the caller, and nothing reaches the backend', async () => {
    const id = await world.enforce(emails(ContentAction.DENY))
    await world.untilDenied()
    world.backend.received.length = 0
    expect((await call(`write to ${address}`)).status).toBe(403)
    expect(world.backend.received).toEqual([])
    expect((await call('write to nobody')).status).toBe(200)
    const [violation] = await recorded(id, 1)
    expect(violation).toMatchObject({ outcome: PolicyOutcome.DENIED, consumerId: world.tenant.consumerId })
  })

  test('what is to be taken out does not reach the backend, and everything else does', async () => {
    await world.enforce(emails(ContentAction.REDACT))
    await eventually(async () => {
      world.backend.received.length = 0
      await call(`write to ${address} "today"`)
      return !JSON.stringify(world.backend.received).includes(address)
    })
    const { status, headers } = await call(`write to ${address} "today"`)
    expect(status).toBe(200)
    expect(headers.get('x-tollgate-policy-redacted')).toBe('true')
    const sent = JSON.stringify(world.backend.received.at(-1)?.body)
    expect(sent).toContain('write to [redacted:email] \\"today\\"')
    expect(sent).not.toContain(address)
  })
})

/** Violations of a policy, once there are that many. */
function recorded(policyId: string, count: number) {
  return eventually(async () => {
    const { violations } = await world.policies().listPolicyViolations({ policyId })
    return violations.length >= count ? violations : undefined
  })
}

test('a mark goes on with the call: in its answer and in its record', async () => {
  await world.enforce(emails(ContentAction.MARK))
  await eventually(async () => {
    const headers: Headers[] = []
    const payload = chat(`write to ${address}`)
    const onHeader = (received: Headers): void => {
      headers.push(received)
    }
    const request = { serviceId: world.tenant.serviceId, payload, metadata: { team: 'a' } }
    const { requestId } = await world.second
      .client(ConsumptionService, world.tenant.key)
      .routeRequest(request, { onHeader })
    if (headers[0]?.get('x-tollgate-policy-marks') !== 'email') return false
    const usage = world.second.client(UsageService, world.tenant.key)
    const record = await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({ pageSize: 20 })
      return usageRecords.find((each) => each.requestId === requestId)
    })
    expect(record.metadata).toEqual({ team: 'a', policy_marks: 'email' })
    return true
  })
  expect(JSON.stringify(world.backend.received.at(-1)?.body)).toContain(address)
})

test('a policy that only audits changes nothing, and says what it would have done', async () => {
  const id = await world.enforce(emails(ContentAction.DENY), PolicyMode.AUDIT_ONLY)
  await eventually(async () => {
    await world.route(world.second, `write to ${address}`)
    return (await world.policies().listPolicyViolations({ policyId: id })).violations.length > 0
  })
  const [violation] = await recorded(id, 1)
  expect(violation).toMatchObject({ outcome: PolicyOutcome.AUDITED, policyVersion: 1n })
  expect(JSON.stringify(world.backend.received.at(-1)?.body)).toContain(address)
})

test('a call with an idempotency key is answered again as it was, whatever policies make of it since', async () => {
  const redacting = await world.enforce(emails(ContentAction.REDACT))
  const isRedacted = async (): Promise<boolean> => {
    await world.route(world.second, `hello ${address}`)
    return !JSON.stringify(world.backend.received.at(-1)?.body).includes(address)
  }
  await eventually(isRedacted)
  const key = { idempotencyKey: 'the-same-key' }
  const answered = await world.route(world.second, `hello ${address}`, key)
  await world.policies().disablePolicy({ policyId: redacting })
  await eventually(async () => !(await isRedacted()))
  const sent = world.backend.received.length
  const again = await world.route(world.second, `hello ${address}`, key)
  expect(again).toMatchObject({ requestId: answered.requestId, replayed: true })
  expect(world.backend.received).toHaveLength(sent)
  // What was sent in its place is another request than what the caller sent.
  const other = await refusal(world.route(world.second, 'hello [redacted:email]', key))
  expect(other.reason).toBe('IDEMPOTENCY_KEY_REUSED')
})

test('nothing that was sent is in what is recorded', async () => {
  const id = await world.enforce(emails(ContentAction.DENY))
  await world.untilDenied()
  await world.enforce({ when: 'request.text.contains("moonshot") && 1 / 0 == 1', rule: { case: 'access', value: {} } })
  await eventually(async () => (await refusal(world.route(world.second, 'moonshot'))).code === Code.PermissionDenied)
  await recorded(id, 1)
  await eventually(async () => (await world.postgres.sql`select 1 from policy_decisions`).length > 0)
  const tables = await Promise.all([
    world.postgres.sql`select * from policy_violations`,
    world.postgres.sql`select * from policy_decisions`,
  ])
  const stored = JSON.stringify(tables) + world.first.output() + world.second.output()
  expect(stored).not.toContain(address)
  expect(stored).not.toContain('moonshot')
})

test('the engine answers about calls, places and services that it is asked about, and records none of it', async () => {
  const id = await world.enforce({ rule: { case: 'dataResidency', value: { allowedRegions: ['eu'] } } })
  const engine = world.first.client(PolicyEngine, world.tenant.key)
  const asked = { serviceId: world.tenant.serviceId }
  const residency = await engine.verifyDataResidency(asked)
  expect(residency).toMatchObject({ allowed: false, violations: [{ policyId: id }] })
  expect(await engine.validateConsumption({ ...asked, payload: chat('x') })).toMatchObject({ allowed: false })
  expect(await engine.checkAccess(asked)).toMatchObject({ allowed: true })
  const forServices: Spec = { target: 2, rule: { case: 'access', value: { allowIf: 'service.name != "chat"' } } }
  const services = await world.enforce(forServices)
  expect(await engine.validateService(asked)).toMatchObject({ allowed: false, violations: [{ policyId: services }] })
  expect((await world.policies().listPolicyViolations({ policyId: id })).violations).toEqual([])
})

test('with policies switched off, none decides', async () => {
  const env = { DATABASE_URL: world.postgres.url, TOLLGATE_ADMIN_KEY: adminKey, ENABLE_POLICY_VALIDATION: 'false' }
  const open = await startTollgate({ command: 'serve', env })
  try {
    await world.enforce({ rule: { case: 'access', value: {} } })
    await world.untilDenied('x')
    await world.route(open, 'x')
  } finally {
    await open.stop()
  }
})
