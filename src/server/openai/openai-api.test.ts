import { connect } from 'node:http2'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { keyOf } from '../../../test/support/invoke.ts'
import { reasons } from '../../errors.ts'
import { keyScopes } from '../../identity/key-scopes.ts'
import { as, type Fixture, keys, ownConsumer, startFixture, until } from '../fixture.ts'
import { errorTable } from './error-table.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
})

const operations = ['/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/responses'] as const
const kinds = {
  '/v1/chat/completions': 'chat',
  '/v1/completions': 'completion',
  '/v1/embeddings': 'embedding',
  '/v1/responses': 'responses',
} as const

function post(path: string, body: RequestInit['body'], headers: Record<string, string> = {}): Promise<Response> {
  return fetch(fixture.server.address + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as(keys.own).headers, ...headers },
    body: body ?? null,
  })
}

function ask(model: string, headers: Record<string, string> = {}): Promise<Response> {
  return post('/v1/chat/completions', JSON.stringify({ model }), headers)
}

function get(path: string, key: string = keys.own): Promise<Response> {
  return fetch(fixture.server.address + path, as(key))
}

describe.each(operations)('POST %s', (path) => {
  test('hands the body to the gate as it came, and the answer back', async () => {
    const body = '{ "unknown": 12345678901234567890, "model":"alpha" }'
    const response = await post(path, body, { 'idempotency-key': 'key-1' })
    expect(await response.text()).toBe(body)
    expect(response.status).toBe(200)
    expect(fixture.asked.requests.at(-1)).toMatchObject({
      consumerId: ownConsumer,
      serviceId: 'alpha',
      idempotencyKey: 'key-1',
      dialect: 'openai',
      kind: kinds[path],
      metadata: {},
    })
    expect(Buffer.from(fixture.asked.requests.at(-1)?.payload ?? []).toString()).toBe(body)
  })

  test('is counted as one call, under its own name', async () => {
    const before = fixture.ended.length
    await (await post(path, '{"model":"alpha"}')).text()
    await until(() => fixture.ended.length > before)
    expect(fixture.ended.slice(before)).toEqual([{ rpc: `POST ${path}`, reason: 'OK' }])
  })
})

test('what was parsed goes along with the body, and whether that was all of it', async () => {
  const long = (text: string) => JSON.stringify({ messages: [{ role: 'user', content: text }], model: 'alpha' })
  const asked = async (body: string) => {
    expect((await post('/v1/chat/completions', body)).status).toBe(200)
    return fixture.asked.requests.at(-1)
  }
  const short = long('a few words')
  expect(await asked(short)).toMatchObject({ serviceId: 'alpha', parsed: { object: JSON.parse(short), isWhole: true } })
  const code = long('if (a["key"] === "x") return b["y"]\n'.repeat(400))
  expect(await asked(code)).toMatchObject({ serviceId: 'alpha', parsed: { object: JSON.parse(code), isWhole: true } })
  const prose = long('A gate that counts every call.\n'.repeat(400))
  expect(await asked(prose)).toMatchObject({
    serviceId: 'alpha',
    parsed: { object: JSON.parse(long('')), isWhole: false },
  })
})

test('an answer says what it cost, how long it took, whose record it is, and what is left, in OpenAI’s words', async () => {
  const { headers } = await ask('alpha')
  expect(Object.fromEntries(headers)).toMatchObject({
    'content-type': 'application/json',
    'openai-processing-ms': expect.stringMatching(/^\d+$/),
    'x-request-id': expect.stringMatching(/^recorded-/),
    'x-ratelimit-limit-requests': '20',
    'x-ratelimit-remaining-requests': '19',
    'x-ratelimit-reset-requests': '1s',
    'x-ratelimit-limit-tokens': '1000000',
    'x-ratelimit-remaining-tokens': '999000',
    'x-ratelimit-reset-tokens': '720h1m1s',
    'x-tollgate-cost-nanos': '1500',
    'x-tollgate-currency': 'USD',
    'x-tollgate-price-version': 'v1',
  })
  expect(headers.has('x-ratelimit-limit')).toBe(false)
  expect(headers.has('x-should-retry')).toBe(false)
})

describe('a refusal', () => {
  test.each(Object.keys(reasons))('for %s arrives with its status and shape', async (reason) => {
    const response = await ask(reason)
    const expected = Object.entries(errorTable).find(([name]) => name === reason)?.[1]
    expect(response.status).toBe(expected?.status)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(response.headers.get('x-request-id')).not.toBeNull()
    expect(response.headers.get('x-should-retry')).toMatch(/^(true|false)$/)
    expect(await response.json()).toMatchObject({ error: { message: `refused: ${reason}`, code: expected?.code } })
    await until(() => fixture.ended.at(-1)?.reason === reason)
  })

  test('by a limit says when to come again, and the figures of that limit', async () => {
    const { headers } = await ask('RATE_LIMITED')
    expect(Object.fromEntries(headers)).toMatchObject({
      'retry-after': '2',
      'retry-after-ms': '1250',
      'x-should-retry': 'true',
      'x-ratelimit-limit-tokens': '1000',
      'x-ratelimit-remaining-tokens': '7',
    })
    expect(headers.has('x-ratelimit-limit-requests')).toBe(false)
  })

  test('by a quota is not to be sent again', async () => {
    const response = await ask('QUOTA_EXCEEDED')
    expect(response.headers.get('x-should-retry')).toBe('false')
    expect(await response.json()).toMatchObject({ error: { type: 'insufficient_quota', code: 'insufficient_quota' } })
  })

  test('names the field of the body', async () => {
    expect(await (await ask('INVALID_ARGUMENT')).json()).toMatchObject({ error: { param: 'messages[0]' } })
  })

  test('for what went wrong inside says nothing of it, and the log does', async () => {
    const response = await ask('crash')
    expect(response.status).toBe(500)
    expect(await response.json()).toEqual({
      error: { message: 'internal error', type: 'server_error', param: null, code: 'internal' },
    })
    await until(() => fixture.lines.some((line) => line.includes('hunter2')))
  })
})

describe('a credential', () => {
  const refused = { error: { type: 'invalid_request_error', code: 'invalid_api_key' } }

  test.each(operations)('that is wrong sees 401 on %s before the body is read', async (path) => {
    const before = fixture.asked.requests.length
    const ended = fixture.ended.length
    const response = await post(path, new Uint8Array(8 * 1024 * 1024), { authorization: 'Bearer tg_wrong' })
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject(refused)
    expect(fixture.asked.requests.length).toBe(before)
    // Its end comes after the rest of the body.
    await until(() => fixture.ended.length > ended)
  })

  test('that is missing sees 401', async () => {
    for (const path of ['/v1/models', '/v1/models/alpha']) {
      const response = await fetch(fixture.server.address + path)
      expect(response.status).toBe(401)
      expect(await response.json()).toMatchObject(refused)
    }
  })

  test('without the permission sees 403', async () => {
    const response = await ask('alpha', as(keys.noRoles).headers)
    expect(response.status).toBe(403)
    expect(await response.json()).toMatchObject({ error: { code: 'permission_missing' } })
  })

  test("of an administrator sees 403: it has no consumer's money to spend", async () => {
    for (const response of [await ask('alpha', as(keys.admin).headers), await get('/v1/models', keys.admin)]) {
      expect(response.status).toBe(403)
      expect(await response.json()).toMatchObject({ error: { code: 'consumer_mismatch' } })
    }
  })
})

describe('a body', () => {
  const cases: readonly [
    what: string,
    body: RequestInit['body'],
    headers: Record<string, string>,
    param: string | null,
  ][] = [
    ['of another content type', 'model=alpha', { 'content-type': 'application/x-www-form-urlencoded' }, 'content-type'],
    ['that is compressed', '{"model":"alpha"}', { 'content-encoding': 'gzip' }, 'content-encoding'],
    ['that is empty', '', {}, null],
    ['that is no JSON', '{"model":', {}, null],
    ['that is no object', '["alpha"]', {}, null],
    ['that is no UTF-8', new Uint8Array([0x22, 0xff, 0x22]), {}, null],
    ['without a model', '{}', {}, 'model'],
    ['with a model that is no text', '{"model":5}', {}, 'model'],
    ['with a model of 129 letters', JSON.stringify({ model: 'x'.repeat(129) }), {}, 'model'],
    [
      'with an idempotency key of 256 letters',
      '{"model":"alpha"}',
      { 'idempotency-key': 'x'.repeat(256) },
      'idempotency_key',
    ],
    [
      'with a timeout that is no number',
      '{"model":"alpha"}',
      { 'x-request-timeout-ms': 'soon' },
      'x-request-timeout-ms',
    ],
  ]
  test.each(cases)('%s sees 400 that names it', async (_what, body, headers, param) => {
    const response = await post('/v1/chat/completions', body, headers)
    expect(response.status).toBe(400)
    expect(response.headers.get('x-should-retry')).toBe('false')
    expect(await response.json()).toMatchObject({ error: { type: 'invalid_request_error', param } })
    await until(() => fixture.ended.at(-1)?.reason === 'INVALID_ARGUMENT')
  })

  test('may say its charset', async () => {
    const response = await post('/v1/completions', '{"model":"alpha"}', {
      'content-type': 'application/json; charset=utf-8',
    })
    expect(response.status).toBe(200)
  })

  test.each([
    ['of announced', 'the message of 8388608 bytes', () => new Uint8Array(8 * 1024 * 1024)],
    ['of unknown', 'the message is larger', () => new Blob([new Uint8Array(8 * 1024 * 1024)]).stream()],
  ])('%s length beyond the limit sees 413 with the limit and its setting', async (_what, size, body) => {
    const response = await fetch(`${fixture.server.address}/v1/embeddings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...as(keys.own).headers },
      body: body(),
      duplex: 'half',
    })
    expect(response.status).toBe(413)
    const text = await response.text()
    expect(text).toContain(size)
    expect(text).toContain('4194304 bytes')
    expect(text).toContain('MAX_MESSAGE_BYTES')
  })
})

describe('GET /v1/models', () => {
  test('lists what the consumer may call, each name once', async () => {
    expect(await (await get('/v1/models')).json()).toEqual({
      object: 'list',
      data: [
        { id: 'alpha', object: 'model', created: 1_700_000_000, owned_by: 'tollgate' },
        { id: 'beta', object: 'model', created: 0, owned_by: 'tollgate' },
      ],
    })
  })

  test('lists for a narrowed key only what it may call, and finds nothing else', async () => {
    const scopes = keyScopes({ services: ['alpha'], permissions: [], models: [] })
    const caller = { ...keyOf({ id: ownConsumer, organizationId: 'o1' }), scopes }
    const narrow = await startFixture({ authenticate: async () => caller })
    const ofNarrow = (path: string) => fetch(narrow.server.address + path, as(keys.own))
    expect(await (await ofNarrow('/v1/models')).json()).toMatchObject({ data: [{ id: 'alpha' }] })
    expect((await ofNarrow('/v1/models/alpha')).status).toBe(200)
    const other = await ofNarrow('/v1/models/beta')
    expect([other.status, await other.json()]).toMatchObject([403, { error: { code: 'key_scope_missing' } }])
    await narrow.close()
  })

  test('finds one by name or id', async () => {
    expect(await (await get('/v1/models/alpha')).json()).toMatchObject({ id: 'alpha', created: 1_700_000_000 })
    expect(await (await get('/v1/models/id-alpha-1')).json()).toMatchObject({ id: 'id-alpha-1', created: 0 })
  })

  test.each([
    ['nothing', 404, 'model_not_found'],
    ['%zz', 404, 'model_not_found'],
    ['delta', 404, 'model_not_found'],
    ['gamma', 403, 'policy_denied'],
  ])('answers for %s with %d %s', async (id, status, code) => {
    const response = await get(`/v1/models/${id}`)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ error: { code } })
  })
})

describe('what does not exist', () => {
  test.each([
    ['GET', '/v1/chat/completions'],
    ['POST', '/v1/models'],
    ['POST', '/v1/images/generations'],
    ['GET', '/v1/'],
    ['DELETE', '/v1/models/alpha'],
  ])('%s %s sees 404 in OpenAI’s shape', async (method, path) => {
    const response = await fetch(fixture.server.address + path, { method, ...as(keys.own) })
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({
      error: { code: 'unknown_url', message: `There is no ${method} ${path} here.` },
    })
    await until(() => fixture.ended.at(-1)?.rpc === 'other /v1/*')
  })
})

test('a caller that waits no longer is answered at its deadline', async () => {
  const response = await ask('held', { 'x-request-timeout-ms': '50' })
  expect(response.status).toBe(504)
  expect(await response.json()).toMatchObject({ error: { code: 'deadline_exceeded' } })
  fixture.release()
  await until(() => fixture.server.activeCalls() === 0)
})

test('a caller that leaves ends its call', async () => {
  const leave = new AbortController()
  const before = fixture.asked.requests.length
  const call = fetch(`${fixture.server.address}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as(keys.own).headers },
    body: '{"model":"held"}',
    signal: leave.signal,
  })
  await until(() => fixture.asked.requests.length > before)
  leave.abort()
  await expect(call).rejects.toThrow()
  await until(() => fixture.ended.at(-1)?.reason === 'CANCELLED')
  fixture.release()
  await until(() => fixture.server.activeCalls() === 0)
})

test('works over HTTP/2', async () => {
  const session = connect(fixture.server.address)
  const stream = session.request({
    ':method': 'POST',
    ':path': '/v1/chat/completions',
    'content-type': 'application/json',
    ...as(keys.own).headers,
  })
  stream.end('{"model":"alpha"}')
  const headers = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve))
  expect(headers).toMatchObject({ ':status': 200, 'x-ratelimit-limit-requests': '20' })
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  expect(Buffer.concat(chunks).toString()).toBe('{"model":"alpha"}')
  session.close()
})

test('scripts of the configured origins may call, with the headers that the SDK sends', async () => {
  const response = await fetch(`${fixture.server.address}/v1/chat/completions`, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://console.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,x-stainless-retry-count',
    },
  })
  expect(response.status).toBe(204)
  expect(response.headers.get('access-control-allow-headers')).toContain('x-stainless-retry-count')
})
