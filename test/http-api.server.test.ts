/**
 * The HTTP API from outside: a real process, administered and called by plain HTTP.
 */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from './support/eventually.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'
import { run, toolTimeoutMs } from './support/tools.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const said = '{"choices":[{"text":"Quantum computing is..."}],"seed":12345678901234567890,"temperature":1.0}'

describe('an administrator and a consumer', () => {
  let backend: Server
  let tollgate: Tollgate
  let tenant: Tenant
  /** What the backend got, as text. */
  const received: string[] = []

  beforeAll(async () => {
    backend = createServer(async (request, response) => {
      received.push(await text(request))
      response.setHeader('content-type', 'application/json')
      response.end(said)
    })
    backend.listen(0, '127.0.0.1')
    await once(backend, 'listening')
    tollgate = await startTollgate({ command: 'serve', env: { TOLLGATE_ADMIN_KEY: adminKey } })
    tenant = await makeTenant(tollgate, adminKey, 'plain', urlOf(backend))
  }, 60_000)
  afterAll(async () => {
    await tollgate?.stop()
    backend?.close()
  })

  const ask = (path: string, init: RequestInit = {}, key = tenant.key): Promise<Response> =>
    fetch(`${tollgate.address}${path}`, {
      ...init,
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...init.headers },
    })

  test('a call has the shape of reference 001, and no byte of payload or answer is changed', async () => {
    const payload = '{"prompt":"Explain","max_tokens":500,"temperature":0.70,"seed":12345678901234567890'
    const answer = await ask(`/api/v1/consume/${tenant.serviceId}`, {
      method: 'POST',
      body: `${payload},"metadata":{"user_id":"user_123"}}`,
    })
    expect(answer.status).toBe(200)
    const told = await answer.text()
    expect(received.at(-1)).toBe(`${payload}}`)
    expect(told).toContain(`"response":${said},`)
    const { response, ...rest } = JSON.parse(told)
    expect(response.choices).toHaveLength(1)
    expect(rest).toEqual({
      request_id: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
      usage: {
        prompt_tokens: expect.any(Number),
        completion_tokens: expect.any(Number),
        total_tokens: expect.any(Number),
      },
      cost: {
        amount: 0.001,
        currency: 'USD',
        breakdown: {
          prompt_tokens: rest.usage.prompt_tokens,
          completion_tokens: rest.usage.completion_tokens,
          total_tokens: rest.usage.total_tokens,
          rate_per_token: expect.any(Number),
        },
      },
      latency_ms: expect.any(Number),
    })
  })

  test('a repetition with its idempotency key gets the same answer, and is not made', async () => {
    const init = { method: 'POST', body: '{"prompt":"once"}', headers: { 'idempotency-key': 'k-1' } }
    const before = received.length
    const first = await (await ask(`/api/v1/consume/${tenant.serviceId}`, init)).text()
    const second = await (await ask(`/api/v1/consume/${tenant.serviceId}`, init)).text()
    expect(JSON.parse(second).request_id).toBe(JSON.parse(first).request_id)
    expect(received).toHaveLength(before + 1)
  })

  test('quota and usage have the shapes of reference 001', async () => {
    const quota = await ask(`/api/v1/quota/${tenant.serviceId}`)
    expect(await quota.json()).toEqual({
      service_id: tenant.serviceId,
      consumer_id: tenant.consumerId,
      tier: 'premium',
      used_tokens: expect.any(Number),
      total_tokens: 10_000_000,
      remaining_tokens: expect.any(Number),
      reset_at: expect.stringMatching(/^\d{4}-\d\d-01T00:00:00Z$/),
      exceeded: false,
    })
    const usage = await eventually(async () => {
      const answer = JSON.parse(await (await ask(`/api/v1/usage/${tenant.serviceId}?days=30`)).text())
      return answer.total_requests >= 1 ? answer : undefined
    })
    expect(usage).toEqual({
      service_id: tenant.serviceId,
      consumer_id: tenant.consumerId,
      period_start: expect.stringMatching(/^\d{4}-.*Z$/),
      period_end: expect.stringMatching(/^\d{4}-.*Z$/),
      total_requests: expect.any(Number),
      total_tokens: expect.any(Number),
      total_cost: expect.any(Number),
      avg_latency_ms: expect.any(Number),
      error_rate: 0,
    })
  })

  test('the statuses are those of reference 001', async () => {
    const path = `/api/v1/consume/${tenant.serviceId}`
    const call = { method: 'POST', body: '{}' }
    expect((await ask(path, call, 'tg_live_nonsense')).status).toBe(403)
    expect((await fetch(`${tollgate.address}${path}`, call)).status).toBe(401)
    expect((await ask(`/api/v1/quota/${tenant.serviceId}?consumer_id=other`)).status).toBe(403)
    expect((await ask('/api/v1/consume/nobody', call)).status).toBe(404)
    expect((await ask(path, { method: 'POST', body: '{' })).status).toBe(400)
    const stranger = await makeTenant(tollgate, adminKey, 'stranger', urlOf(backend), {
      requestsPerSecond: 1n,
      requestBurst: 1n,
    })
    const denied = await ask(path, call, stranger.key)
    expect(denied.status).toBe(403)
    expect(await denied.json()).toMatchObject({ error: { code: 403, details: [{ reason: 'POLICY_DENIED' }] } })
    const own = `/api/v1/consume/${stranger.serviceId}`
    const [first, second] = [await ask(own, call, stranger.key), await ask(own, call, stranger.key)]
    expect([first.status, second.status]).toEqual([200, 429])
    expect(Number(second.headers.get('retry-after'))).toBeGreaterThan(0)
    const broken = await makeTenant(tollgate, adminKey, 'broken', 'http://127.0.0.1:9/v1/completions')
    expect((await ask(`/api/v1/consume/${broken.serviceId}`, call, broken.key)).status).toBe(502)
    const other = await makeTenant(tollgate, adminKey, 'poor', urlOf(backend), { tokensPerMonth: 1n })
    const refused = await ask(`/api/v1/consume/${other.serviceId}`, call, other.key)
    expect(refused.status).toBe(402)
    expect(await refused.json()).toMatchObject({ error: { code: 402, details: [{ reason: 'QUOTA_EXCEEDED' }, {}] } })
  })

  test('a call is validated without being made', async () => {
    const before = received.length
    const body = JSON.stringify({ service_id: tenant.serviceId, request: { prompt: 'x' }, ip_address: '10.0.0.1' })
    const answer = await ask('/api/v1/validate/consumption', { method: 'POST', body })
    expect(await answer.json()).toEqual({ allowed: true, reason: '', violations: [] })
    const others = await makeTenant(tollgate, adminKey, 'others', urlOf(backend))
    const denied = await ask('/api/v1/validate/consumption', {
      method: 'POST',
      body: JSON.stringify({ service_id: others.serviceId, request: {} }),
    })
    expect(denied.status).toBe(200)
    expect(await denied.json()).toEqual({
      allowed: false,
      reason: expect.any(String),
      violations: [
        {
          policy_id: expect.any(String),
          severity: expect.any(String),
          message: expect.any(String),
          outcome: 'denied',
        },
      ],
    })
    expect(received).toHaveLength(before)
  })

  test('keys are made, listed and revoked in the shapes of reference 001', async () => {
    const wanted = { service_id: tenant.serviceId, tier: 'basic', expires_in_days: 365 }
    const made = await ask('/api/v1/keys', { method: 'POST', body: JSON.stringify(wanted) })
    expect(made.status).toBe(200)
    const key = JSON.parse(await made.text())
    expect(key).toEqual({
      id: expect.any(String),
      key: expect.stringMatching(/^tg_live_/),
      service_id: tenant.serviceId,
      tier: 'basic',
      created_at: expect.stringMatching(/^\d{4}-.*Z$/),
      expires_at: expect.stringMatching(/^\d{4}-.*Z$/),
    })
    const path = `/api/v1/consume/${tenant.serviceId}`
    expect((await ask(path, { method: 'POST', body: '{}' }, key.key)).status).toBe(200)

    const listed = JSON.parse(await (await ask('/api/v1/keys?page_size=1')).text())
    const { key: _secret, ...shown } = key
    expect(listed).toEqual({ keys: [shown], next_page_token: expect.any(String) })

    const revoked = await ask(`/api/v1/keys/${key.id}`, { method: 'DELETE' })
    expect(revoked.status).toBe(200)
    expect(await revoked.json()).toEqual({ ...shown, revoked_at: expect.any(String) })
    expect((await ask(path, { method: 'POST', body: '{}' }, key.key)).status).toBe(403)

    const wrong = await ask('/api/v1/keys', { method: 'POST', body: '{"tier":"gold"}' })
    expect(await wrong.json()).toMatchObject({
      error: { code: 400, details: [{}, { fieldViolations: [{ field: 'tier' }] }] },
    })
    expect((await ask('/api/v1/keys/nobody', { method: 'DELETE' })).status).toBe(404)
  })

  test('an administrator names the consumer that pays', async () => {
    const path = `/api/v1/consume/${tenant.serviceId}`
    const call = { method: 'POST', body: '{}' }
    expect((await ask(path, call, adminKey)).status).toBe(400)
    expect((await ask(`${path}?consumer_id=${tenant.consumerId}`, call, adminKey)).status).toBe(200)
  })

  test('a watch is a line for each event', async () => {
    const answer = await ask('/v1/services:watch?bookmark_interval=1s', { headers: { 'x-request-timeout-ms': '1500' } })
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson')
    const lines = (await answer.text()).trimEnd().split('\n')
    const events = lines.map((line) => JSON.parse(line))
    expect(events[0]).toMatchObject({ kind: 'KIND_ADDED', service: { name: expect.any(String) } })
    expect(events.some((event) => event.snapshotComplete)).toBe(true)
  })

  test('services are registered and read below /v1/, beside the OpenAI API', async () => {
    const service = { name: 'by-http', version: '1.0.0', endpoints: [{ url: urlOf(backend) }] }
    const made = await ask('/v1/services', { method: 'POST', body: JSON.stringify(service) }, adminKey)
    expect(made.status).toBe(200)
    const { id } = JSON.parse(await made.text())
    expect(await (await ask(`/v1/services/${id}`)).json()).toMatchObject({
      name: 'by-http',
      status: expect.any(String),
    })
    const wrong = await ask('/v1/services', { method: 'POST', body: '{"endpoints":[{"weight":"x"}]}' }, adminKey)
    expect(await wrong.json()).toMatchObject({
      error: { code: 400, details: [{}, { fieldViolations: [{ field: 'service.endpoints[0].weight' }] }] },
    })
    expect(await (await ask('/v1/models')).json()).toMatchObject({ object: 'list' })
  })
})

test('the commands of docs/http-api.md work', { timeout: toolTimeoutMs }, async () => {
  const page = await readFile(new URL('../docs/http-api.md', import.meta.url), 'utf8')
  const commands = [...page.matchAll(/```sh\n(.*?)```/gs)].map(([, block = '']) => block)
  const tollgate = await startTollgate({ command: 'dev' })
  try {
    const demo = JSON.parse(await readFile(`${tollgate.dataDir}/demo.json`, 'utf8'))
    const { code, stdout, stderr } = await run(
      'bash',
      ['--norc', '-euo', 'pipefail', '-c', commands.join('\necho\n')],
      {
        env: { PATH: process.env.PATH ?? '', TOLLGATE: tollgate.address, KEY: demo.key, SERVICE: demo.serviceId },
      },
    )
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toContain('"request_id"')
    expect(stdout).toContain('"allowed":true')
  } finally {
    await tollgate.stop()
  }
})

function urlOf(server: Server): string {
  const { port } = addressOf(server)
  return `http://127.0.0.1:${port}/v1/completions`
}

function addressOf(server: Server): AddressInfo {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the backend does not listen')
  return address
}
