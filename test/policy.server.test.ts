/**
 * Policies from outside: two gateways on one Postgres, administered through the one and called through the other, over every
 * wire, with a backend that tells what it was sent.
 */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { PolicyMode, PolicyService } from '../gen/marketplace/v1/policies_pb.ts'
import {
  ContentAction,
  ContentKind,
  PolicyEngine,
  PolicyOutcome,
  PolicySeverity,
  type PolicySpecSchema,
} from '../gen/marketplace/v1/policy_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type ProviderAnswer, type ProviderServer, startProviderServer } from './support/provider-server.ts'
import { refusal } from './support/refusal.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

type Spec = MessageInitShape<typeof PolicySpecSchema>

const adminKey = 'an-administrator-key-for-tests-only-0001'
const address = 'bob@example.org'

let postgres: PostgresServer
let backend: ProviderServer
let first: Tollgate
let second: Tollgate
let tenant: Tenant

beforeAll(async () => {
  postgres = await startPostgresServer({ migrated: false })
  backend = await startProviderServer(({ path, body }) => answerOf(path, JSON.stringify(body)))
  const env = { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey }
  first = await startTollgate({ command: 'serve', env })
  second = await startTollgate({ command: 'serve', env })
  const ample = { requestsPerSecond: 1_000_000n, requestBurst: 1_000_000n, tokensPerMonth: 1_000_000_000n }
  tenant = await makeTenant(first, adminKey, 'chat', `${backend.url}/v1`, ample)
  await eventually(() => route(second, 'hello'))
}, 120_000)

afterAll(async () => {
  await first?.stop()
  await second?.stop()
  await backend?.close()
  await postgres?.stop()
})

beforeEach(async () => {
  for (const { id } of (await policies().listPolicies({})).policies) await policies().disablePolicy({ policyId: id })
  await eventually(() => route(second, `hello ${address}`))
  backend.received.length = 0
})

function answerOf(path: string, body: string): ProviderAnswer {
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }
  const head = { id: 'x', created: 1, model: 'chat', usage }
  const message = { role: 'assistant', content: 'ok' }
  if (path.endsWith('/embeddings')) {
    return { status: 200, body: { ...head, object: 'list', data: [{ object: 'embedding', index: 0, embedding: [1] }] } }
  }
  if (path.endsWith('/responses')) {
    const said = { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'ok' }] }
    const counted = { input_tokens: 1, output_tokens: 1, total_tokens: 2 }
    return { status: 200, body: { ...head, object: 'response', status: 'completed', output: [said], usage: counted } }
  }
  if (path.endsWith('/chat/completions') && body.includes('"stream":true')) {
    const chunk = (choices: object[], more: object = {}): string =>
      `data: ${JSON.stringify({ ...head, usage: null, object: 'chat.completion.chunk', choices, ...more })}\n\n`
    const events = [
      chunk([{ index: 0, delta: message, finish_reason: null }]),
      chunk([{ index: 0, delta: {}, finish_reason: 'stop' }]),
      chunk([], { usage }),
      'data: [DONE]\n\n',
    ]
    return { events, failure: '', delivered: 1 }
  }
  const choice = path.endsWith('/chat/completions') ? { message } : { text: 'ok' }
  return { status: 200, body: { ...head, choices: [{ index: 0, finish_reason: 'stop', ...choice }] } }
}

function policies(gateway = first) {
  return gateway.client(PolicyService, adminKey)
}

function route(gateway: Tollgate, content: string, more: { idempotencyKey?: string } = {}) {
  const request = { serviceId: tenant.serviceId, payload: chat(content), ...more }
  return gateway.client(ConsumptionService, tenant.key).routeRequest(request)
}

let named = 0

/** Makes a policy and puts it in force, through the first gateway; returns its id. */
async function enforce(spec: Spec, mode: PolicyMode = PolicyMode.ENFORCE): Promise<string> {
  named += 1
  const { id } = await policies().createPolicy({ policy: { name: `policy-${named}` }, spec })
  await policies().activatePolicy({ policyId: id, mode })
  return id
}

function emails(action: ContentAction): Spec {
  return { rule: { case: 'content', value: { kinds: [ContentKind.EMAIL], action } } }
}

/** Waits until the second gateway follows. */
function untilDenied(content = `hello ${address}`): Promise<unknown> {
  return eventually(async () => (await refusal(route(second, content))).code === Code.PermissionDenied)
}

/** Calls the second gateway over a wire; returns the status, as HTTP has it, and what the answer says beside the body. */
type Wire = (text: string) => Promise<{ readonly status: number; readonly headers: Headers }>

function openai(path: string, bodyOf: (text: string) => object): Wire {
  return async (text) => {
    const answer = await fetch(`${second.address}/v1/${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${tenant.key}`, 'content-type': 'application/json' },
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
      const request = { serviceId: tenant.serviceId, payload: chat(text) }
      const onHeader = (received: Headers): void => {
        headers = received
      }
      const call = second.client(ConsumptionService, tenant.key).routeRequest(request, { onHeader })
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
      const stream = second
        .client(ConsumptionService, tenant.key)
        .streamRequest({ serviceId: tenant.serviceId, payload }, { onHeader })
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
    const id = await enforce(emails(ContentAction.DENY))
    await untilDenied()
    backend.received.length = 0
    expect((await call(`write to ${address}`)).status).toBe(403)
    expect(backend.received).toEqual([])
    expect((await call('write to nobody')).status).toBe(200)
    const [violation] = await recorded(id, 1)
    expect(violation).toMatchObject({ outcome: PolicyOutcome.DENIED, consumerId: tenant.consumerId })
  })

  test('what is to be taken out does not reach the backend, and everything else does', async () => {
    await enforce(emails(ContentAction.REDACT))
    await eventually(async () => {
      backend.received.length = 0
      await call(`write to ${address} "today"`)
      return !JSON.stringify(backend.received).includes(address)
    })
    const { status, headers } = await call(`write to ${address} "today"`)
    expect(status).toBe(200)
    expect(headers.get('x-tollgate-policy-redacted')).toBe('true')
    const sent = JSON.stringify(backend.received.at(-1)?.body)
    expect(sent).toContain('write to [redacted:email] \\"today\\"')
    expect(sent).not.toContain(address)
  })
})

/** Violations of a policy, once there are that many. */
function recorded(policyId: string, count: number) {
  return eventually(async () => {
    const { violations } = await policies().listPolicyViolations({ policyId })
    return violations.length >= count ? violations : undefined
  })
}

test('a mark goes on with the call: in its answer and in its record', async () => {
  await enforce(emails(ContentAction.MARK))
  await eventually(async () => {
    const headers: Headers[] = []
    const payload = chat(`write to ${address}`)
    const onHeader = (received: Headers): void => {
      headers.push(received)
    }
    const request = { serviceId: tenant.serviceId, payload, metadata: { team: 'a' } }
    const { requestId } = await second.client(ConsumptionService, tenant.key).routeRequest(request, { onHeader })
    if (headers[0]?.get('x-tollgate-policy-marks') !== 'email') return false
    const usage = second.client(UsageService, tenant.key)
    const record = await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({ pageSize: 20 })
      return usageRecords.find((each) => each.requestId === requestId)
    })
    expect(record.metadata).toEqual({ team: 'a', policy_marks: 'email' })
    return true
  })
  expect(JSON.stringify(backend.received.at(-1)?.body)).toContain(address)
})

test('a policy that only audits changes nothing, and says what it would have done', async () => {
  const id = await enforce(emails(ContentAction.DENY), PolicyMode.AUDIT_ONLY)
  await eventually(async () => {
    await route(second, `write to ${address}`)
    return (await policies().listPolicyViolations({ policyId: id })).violations.length > 0
  })
  const [violation] = await recorded(id, 1)
  expect(violation).toMatchObject({ outcome: PolicyOutcome.AUDITED, policyVersion: 1n })
  expect(JSON.stringify(backend.received.at(-1)?.body)).toContain(address)
})

test('a call with an idempotency key is answered again as it was, whatever policies make of it since', async () => {
  const redacting = await enforce(emails(ContentAction.REDACT))
  const isRedacted = async (): Promise<boolean> => {
    await route(second, `hello ${address}`)
    return !JSON.stringify(backend.received.at(-1)?.body).includes(address)
  }
  await eventually(isRedacted)
  const key = { idempotencyKey: 'the-same-key' }
  const answered = await route(second, `hello ${address}`, key)
  await policies().disablePolicy({ policyId: redacting })
  await eventually(async () => !(await isRedacted()))
  const sent = backend.received.length
  const again = await route(second, `hello ${address}`, key)
  expect(again).toMatchObject({ requestId: answered.requestId, replayed: true })
  expect(backend.received).toHaveLength(sent)
  // What was sent in its place is another request than what the caller sent.
  const other = await refusal(route(second, 'hello [redacted:email]', key))
  expect(other.reason).toBe('IDEMPOTENCY_KEY_REUSED')
})

test('nothing that was sent is in what is recorded', async () => {
  const id = await enforce(emails(ContentAction.DENY))
  await untilDenied()
  await enforce({ when: 'request.text.contains("moonshot") && 1 / 0 == 1', rule: { case: 'access', value: {} } })
  await eventually(async () => (await refusal(route(second, 'moonshot'))).code === Code.PermissionDenied)
  await recorded(id, 1)
  await eventually(async () => (await postgres.sql`select 1 from policy_decisions`).length > 0)
  const tables = await Promise.all([
    postgres.sql`select * from policy_violations`,
    postgres.sql`select * from policy_decisions`,
  ])
  const stored = JSON.stringify(tables) + first.output() + second.output()
  expect(stored).not.toContain(address)
  expect(stored).not.toContain('moonshot')
})

describe('administration', () => {
  const access = (allowIf: string): Spec => ({ rule: { case: 'access', value: { allowIf } } })

  test('every replica follows what one of them was told: a version, another, the one before, none', async () => {
    const policyId = await enforce(access('false'))
    await untilDenied('x')
    await policies().createPolicyVersion({ policyId, spec: access('true') })
    expect((await refusal(route(second, 'x'))).code).toBe(Code.PermissionDenied)
    await policies().activatePolicy({ policyId, mode: PolicyMode.ENFORCE })
    await eventually(() => route(second, 'x'))
    const rolledBack = await policies(second).rollbackPolicy({ policyId })
    expect(rolledBack).toMatchObject({ activeVersion: 1n, latestVersion: 2n, mode: PolicyMode.ENFORCE })
    await eventually(async () => (await refusal(route(first, 'x'))).code === Code.PermissionDenied)
    expect(await refusal(policies().rollbackPolicy({ policyId }))).toMatchObject({ code: Code.InvalidArgument })
    const disabled = await policies().disablePolicy({ policyId })
    expect(disabled).toMatchObject({ activeVersion: 1n, mode: PolicyMode.DISABLED })
    await eventually(() => route(second, 'x'))
  })

  test('a replica follows each of many changes', async () => {
    const policyId = await enforce(access('false'))
    for (let round = 0; round < 10; round += 1) {
      await policies().disablePolicy({ policyId })
      await eventually(() => route(second, 'x'))
      await policies().activatePolicy({ policyId, mode: PolicyMode.ENFORCE })
      await untilDenied('x')
    }
  })

  test('an expression that cannot work is refused with its line and column, and leaves nothing', async () => {
    const name = 'never-made'
    const spec: Spec = { when: 'consumer.tier == "basic" &&\n  request.size > "1"', ...access('true') }
    const refused = await refusal(policies().createPolicy({ policy: { name }, spec }))
    expect(refused).toMatchObject({
      code: Code.InvalidArgument,
      reason: 'INVALID_ARGUMENT',
      metadata: { field: 'spec.when', line: '2', column: '16' },
    })
    expect(refused.fields[0]?.description).toMatch(/^2:16: found no matching overload for '_>_'/)
    expect(await refusal(policies().getPolicy({ policyId: name }))).toMatchObject({ code: Code.NotFound })
  })

  test('versions stay as they are, and leave a trail with who made them', async () => {
    const name = 'with-a-trail'
    const { id } = await policies().createPolicy({ policy: { name }, spec: access('true'), comment: 'first' })
    await policies().createPolicyVersion({ policyId: name, spec: access('false'), comment: 'second' })
    await policies().activatePolicy({ policyId: name, version: 1n, mode: PolicyMode.AUDIT_ONLY })
    const { versions } = await policies().listPolicyVersions({ policyId: id })
    expect(versions).toMatchObject([
      { version: 2n, comment: 'second', createdBy: 'administrator', spec: { rule: { value: { allowIf: 'false' } } } },
      { version: 1n, comment: 'first' },
    ])
    await expect(
      postgres.sql`update policy_versions set comment = 'x' where policy_id = ${id}`.then(() => 'changed'),
    ).rejects.toThrow('never changed')
    const trail = await postgres.sql<{ action: string }[]>`
      select action from audit_records where resource = ${`policy/${id}`} order by created_at, id`
    expect(trail.map(({ action }) => action)).toEqual(['policy.created', 'policy.version_created', 'policy.activated'])
    const changes = await postgres.sql`select 1 from changes where resource_kind = 'policy' and resource_id = ${id}`
    expect(changes).toHaveLength(3)
  })

  test('names are unique, and pages go through all of them', async () => {
    const made = await policies().createPolicy({ policy: { name: 'page-a' }, spec: access('true') })
    await policies().createPolicy({ policy: { name: 'page-b' }, spec: access('true') })
    const again = refusal(policies().createPolicy({ policy: { name: 'page-a' }, spec: access('true') }))
    expect(await again).toMatchObject({ reason: 'ALREADY_EXISTS' })
    expect(await policies().getPolicy({ policyId: 'page-a' })).toEqual(made)
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await policies().listPolicies({ pageSize: 1, pageToken })
      seen.push(...page.policies.map(({ name }) => name))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual(seen.toSorted())
    expect(seen).toEqual(expect.arrayContaining(['page-a', 'page-b']))
    expect(new Set(seen).size).toBe(seen.length)
  })

  test('a test says what a rule would decide, at what cost, and stores nothing', async () => {
    const spec: Spec = { ...emails(ContentAction.REDACT), when: 'consumer.tier == "basic"' }
    const facts = { consumer: { tier: 'basic' } }
    const tested = await policies().testPolicy({ spec, facts, payload: Buffer.from(`{"a":"${address}"}`) })
    expect(tested).toMatchObject({ matched: true, error: '', decision: { allowed: true } })
    expect(tested.cost).toBeGreaterThan(0n)
    expect(Buffer.from(tested.decision?.redactedPayload ?? []).toString()).toBe('{"a":"[redacted:email]"}')
    const other = await policies().testPolicy({ spec, facts: { consumer: { tier: 'premium' } } })
    expect(other).toMatchObject({ matched: false, decision: { allowed: true, violations: [] } })
    const broken = await policies().testPolicy({ spec: access('request.metadata["x"] == ""') })
    expect(broken).toMatchObject({ decision: { allowed: false }, error: expect.stringContaining('failed') })
  })

  test('a dry run shows which past calls another rule would have decided otherwise', async () => {
    const policyId = await enforce({ when: 'request.max_output_tokens > 1000', rule: { case: 'access', value: {} } })
    const call = (maxTokens: number) =>
      second
        .client(ConsumptionService, tenant.key)
        .routeRequest({ serviceId: tenant.serviceId, payload: chat('x', 'practice', maxTokens) })
    await eventually(async () => (await refusal(call(2_000))).code === Code.PermissionDenied)
    const afterMs = Date.now()
    const { requestId } = await call(500)
    const spec: Spec = { when: 'request.max_output_tokens > 100', rule: { case: 'access', value: {} } }
    const stricter = await eventually(async () => {
      const run = await policies().dryRunPolicy({ policyId, spec, maxCalls: 10_000 })
      return run.differences.some((each) => each.requestId === requestId) ? run : undefined
    })
    const difference = stricter.differences.find((each) => each.requestId === requestId)
    expect(difference).toMatchObject({ wasAllowed: true, wouldBeAllowed: false, consumerId: tenant.consumerId })
    expect(Number(difference?.time?.seconds)).toBeGreaterThanOrEqual(Math.floor(afterMs / 1000) - 1)
    expect(stricter.notes.join()).toContain('of no call what it sent')

    const looser = await policies().dryRunPolicy({
      policyId,
      spec: { when: 'request.max_output_tokens > 9999', rule: { case: 'access', value: {} } },
      maxCalls: 10_000,
    })
    expect(looser.newlyAllowed).toBeGreaterThan(0)
    expect(looser.newlyDenied).toBe(0)
    const blind = await policies().dryRunPolicy({ spec: emails(ContentAction.DENY) })
    expect(blind).toMatchObject({ undecided: blind.examined, newlyDenied: 0 })
    expect(blind.notes.join()).toContain('Rules of content cannot be tried')
  })

  test('violations are listed by what they are about, page by page, and those of others beside them', async () => {
    const engine = first.client(PolicyEngine, adminKey)
    const reported = { policyId: 'dlp/scan', severity: PolicySeverity.WARNING, message: 'seen in a bucket' }
    const ids: string[] = []
    for (let count = 0; count < 3; count += 1) ids.push((await engine.reportViolation(reported)).violationId)
    const seen: string[] = []
    let pageToken = ''
    do {
      const filter = { policyId: 'dlp/scan', severity: PolicySeverity.WARNING, pageSize: 2, pageToken }
      const page = await policies().listPolicyViolations(filter)
      for (const violation of page.violations) {
        expect(violation).toMatchObject({ outcome: PolicyOutcome.REPORTED, reportedBy: 'administrator' })
        seen.push(violation.id)
      }
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual(ids.toReversed())
    const none = await policies().listPolicyViolations({ policyId: 'dlp/scan', severity: PolicySeverity.CRITICAL })
    expect(none.violations).toEqual([])
  })
})

test('the engine answers about calls, places and services that it is asked about, and records none of it', async () => {
  const id = await enforce({ rule: { case: 'dataResidency', value: { allowedRegions: ['eu'] } } })
  const engine = first.client(PolicyEngine, tenant.key)
  const asked = { serviceId: tenant.serviceId }
  const residency = await engine.verifyDataResidency(asked)
  expect(residency).toMatchObject({ allowed: false, violations: [{ policyId: id }] })
  expect(await engine.validateConsumption({ ...asked, payload: chat('x') })).toMatchObject({ allowed: false })
  expect(await engine.checkAccess(asked)).toMatchObject({ allowed: true })
  const forServices: Spec = { target: 2, rule: { case: 'access', value: { allowIf: 'service.name != "chat"' } } }
  const services = await enforce(forServices)
  expect(await engine.validateService(asked)).toMatchObject({ allowed: false, violations: [{ policyId: services }] })
  expect((await policies().listPolicyViolations({ policyId: id })).violations).toEqual([])
})

test('with policies switched off, none decides', async () => {
  const env = { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey, ENABLE_POLICY_VALIDATION: 'false' }
  const open = await startTollgate({ command: 'serve', env })
  try {
    await enforce({ rule: { case: 'access', value: {} } })
    await untilDenied('x')
    await route(open, 'x')
  } finally {
    await open.stop()
  }
})
