import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:http2'
import { text } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Denial } from '../../audit/denial.ts'
import { TollgateError } from '../../errors.ts'
import { consumption, type Fixture, keys, rateLimited, startFixture, until } from '../fixture.ts'
import { register, type ServiceRegistration } from '../rpc.ts'
import { get, post, rpc, thingsService } from './fixture-service.ts'

let fixture: Fixture
/** Ends the streams that wait. */
let goOn = Promise.withResolvers<void>()
let left = 0

beforeAll(async () => {
  fixture = await startFixture({ services: [consumption([], async () => {}), things()] })
})
afterAll(async () => {
  await fixture.close()
})

const list = get('/things/v1/things')

function things(): ServiceRegistration {
  const service = thingsService([
    rpc('List', list),
    rpc('Get', get('/things/v1/things/{id}', { responseBody: 'part' })),
    rpc('Make', post('/things/v1/things', 'part')),
    rpc('Replace', { pattern: { case: 'put', value: '/things/v1/things/{id}' }, body: '*' }),
    rpc('Change', { pattern: { case: 'patch', value: '/things/v1/things/{id}' }, body: '*' }),
    rpc('Remove', { pattern: { case: 'delete', value: '/things/v1/things/{id}' } }),
    rpc('Stop', post('/things/v1/things/{id}:stop')),
    rpc('Download', get('/things/v1/raw'), { output: 'google.api.HttpBody' }),
    rpc('Upload', post('/things/v1/raw', 'blob')),
    rpc('Fail', get('/things/v1/fail/{id}')),
    rpc('Watch', get('/things/v1/watch/{id}'), { streams: 'answer' }),
    rpc('Parts', get('/things/v1/parts', { responseBody: 'part' }), { streams: 'answer' }),
    rpc('Missing', get('/things/v1/missing')),
  ])
  const echo = async (request: object) => request
  const implementation = {
    list: echo,
    get: echo,
    make: echo,
    replace: echo,
    change: echo,
    remove: echo,
    stop: echo,
    upload: echo,
    download: async () => ({ contentType: 'image/png', data: new Uint8Array([1, 2, 255]) }),
    fail: async ({ id }: { id: string }) => {
      if (id === 'deaf') await goOn.promise
      if (id === 'crash') throw new Error('password of the database is hunter2')
      throw rateLimited()
    },
    async *watch({ id }: { id: string }) {
      try {
        if (id === 'refused') throw new TollgateError('SERVICE_NOT_FOUND', 'there is no such thing')
        yield { id, count: 1 }
        if (id === 'breaks') throw new TollgateError('STORAGE_UNAVAILABLE', 'gone', { retryAfterMs: 500 })
        if (id === 'waits') await goOn.promise
        while (id === 'endless') {
          await new Promise((resolve) => setImmediate(resolve))
          yield { id, displayName: 'x'.repeat(10_000) }
        }
        yield { id, count: 2 }
      } finally {
        left += 1
      }
    },
    async *parts() {
      yield { id: 'x', part: { name: 'a' } }
    },
  }
  return {
    service,
    options: { public: true },
    implementation: (name) => (Object.hasOwn(implementation, name) ? Reflect.get(implementation, name) : undefined),
  }
}

const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(`${fixture.server.address}${path}`, init)
const json = { 'content-type': 'application/json' }
const own = { authorization: `Bearer ${keys.own}` }

describe('an RPC is called by its binding', () => {
  test.each<[method: string, path: string, body: string | undefined, answer: object]>([
    ['GET', '/things/v1/things?count=3&big=9007199254740993', undefined, { count: 3, big: '9007199254740993' }],
    ['POST', '/things/v1/things?count=3', '{"name":"n"}', { count: 3, part: { name: 'n', size: 0 } }],
    ['PUT', '/things/v1/things/7', '{"displayName":"é"}', { id: '7', displayName: 'é' }],
    ['PATCH', '/things/v1/things/7', '{"isOn":true}', { id: '7', isOn: true }],
    ['DELETE', '/things/v1/things/7', undefined, { id: '7' }],
    ['POST', '/things/v1/things/7:stop', undefined, { id: '7' }],
  ])('%s %s', async (method, path, body, answer) => {
    const response = await ask(path, { method, ...(body !== undefined && { body, headers: json }) })
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(await response.json()).toMatchObject(answer)
  })

  test('fields that are 0, false and empty are answered too, those without a value are not', async () => {
    const answer = await (await ask('/things/v1/things')).json()
    expect(answer).toMatchObject({ id: '', count: 0, big: '0', isOn: false, color: 'COLOR_UNSPECIFIED', tags: [] })
    expect(answer).not.toHaveProperty('part')
    expect(answer).not.toHaveProperty('at')
  })

  test('the answer may be one field of its message', async () => {
    expect(await (await ask('/things/v1/things/7?part.name=x')).json()).toEqual({ name: 'x', size: 0 })
    expect(await (await ask('/things/v1/things/7')).json()).toBeNull()
  })

  test('raw bodies pass as they are, both ways', async () => {
    const answer = await ask('/things/v1/raw')
    expect(answer.headers.get('content-type')).toBe('image/png')
    expect([...new Uint8Array(await answer.arrayBuffer())]).toEqual([1, 2, 255])
    const body = new Uint8Array([0, 255])
    const sent = await ask('/things/v1/raw', { method: 'POST', body, headers: { 'content-type': 'x/y' } })
    expect(await sent.json()).toMatchObject({ blob: { contentType: 'x/y', data: 'AP8=' } })
  })

  test('over HTTP/2 as well', async () => {
    const session = connect(fixture.server.address)
    const stream = session.request({ ':path': '/things/v1/things/7', ':method': 'PUT', ...json })
    stream.end('{"count":5}')
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(200)
    expect(JSON.parse(await text(stream))).toMatchObject({ id: '7', count: 5 })
    const head = session.request({ ':path': '/things/v1/things', ':method': 'HEAD' })
    const [headOfIt] = await once(head, 'response')
    expect(headOfIt[':status']).toBe(200)
    expect(await text(head)).toBe('')
    session.close()
  })

  test('a body may come gzipped', async () => {
    const body = gzipSync('{"count":9}')
    const headers = { ...json, 'content-encoding': 'gzip' }
    const answer = await ask('/things/v1/things/7', { method: 'PUT', body, headers })
    expect(await answer.json()).toMatchObject({ count: 9 })
  })

  test('HEAD gets the headers of GET', async () => {
    const [whole, head] = [await ask('/things/v1/things'), await ask('/things/v1/things', { method: 'HEAD' })]
    expect(head.status).toBe(200)
    expect(head.headers.get('content-length')).toBe(whole.headers.get('content-length'))
    expect(await head.text()).toBe('')
    await whole.text()
    expect((await ask('/things/v1/fail/x', { method: 'HEAD' })).status).toBe(429)
  })

  test('with the headers that the implementation sets, and the credential as on the other wires', async () => {
    const path = '/v1/services/echo/invoke'
    const init = { method: 'POST', body: '{"payload":"AQID"}' }
    const answer = await ask(path, { ...init, headers: { ...json, ...own } })
    expect(answer.headers.get('x-served')).toBe('echo')
    expect(await answer.json()).toMatchObject({
      requestId: answer.headers.get('x-request-id'),
      responseData: 'AQID',
    })
    const withApiKey = await ask(path, { ...init, headers: { ...json, 'x-api-key': keys.own } })
    expect(withApiKey.status).toBe(200)
  })

  test('and is counted by its own path', async () => {
    await ask('/things/v1/things/7', { method: 'DELETE' })
    await until(() => fixture.ended.at(-1)?.rpc === 'Remove')
  })
})

describe('an error', () => {
  test('has the form of google.rpc.Status with its details, and the headers of a refusal', async () => {
    const answer = await ask('/things/v1/fail/limited')
    expect(answer.status).toBe(429)
    expect(answer.headers.get('retry-after')).toBe('2')
    expect(answer.headers.get('x-ratelimit-limit')).toBe('20')
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(await answer.json()).toEqual({
      error: {
        code: 429,
        message: 'too many requests',
        status: 'RESOURCE_EXHAUSTED',
        details: [
          {
            '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
            reason: 'RATE_LIMITED',
            domain: 'tollgate',
            metadata: { limit: 'requests_per_second' },
          },
          { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.500s' },
          {
            '@type': 'type.googleapis.com/google.rpc.QuotaFailure',
            violations: [
              {
                subject: 'consumer:c1',
                description: 'requests_per_second: 0 of 20 requests left',
                quotaId: 'requests_per_second',
                quotaValue: '20',
              },
            ],
          },
        ],
      },
    })
  })

  test.each<[what: string, path: string, init: RequestInit, status: number, reason: string]>([
    ['no credential', '/v1/quota/s', {}, 401, 'CREDENTIAL_MISSING'],
    ['a wrong credential', '/v1/quota/s', { headers: { 'x-api-key': 'tg_x' } }, 401, 'CREDENTIAL_INVALID'],
    ['no permission', '/v1/quota/s', { headers: { 'x-api-key': keys.noRoles } }, 403, 'PERMISSION_MISSING'],
    ["another's consumer", '/v1/quota/s?consumer_id=c2', { headers: own }, 403, 'CONSUMER_MISMATCH'],
    ['a broken rule', `/v1/quota/${'x'.repeat(180)}`, { headers: own }, 400, 'INVALID_ARGUMENT'],
    [
      'a malformed timeout',
      '/v1/quota/s',
      { headers: { ...own, 'x-request-timeout-ms': 'x' } },
      400,
      'INVALID_ARGUMENT',
    ],
    ['an RPC without implementation', '/things/v1/missing', {}, 404, 'RPC_NOT_FOUND'],
    ['a crash', '/things/v1/fail/crash', {}, 500, 'INTERNAL'],
    ['a path that is not there', '/api/nope', {}, 404, 'RPC_NOT_FOUND'],
    ['a path with an empty segment', '/api//v1/keys', {}, 404, 'RPC_NOT_FOUND'],
    ['another type', '/things/v1/things/7', { method: 'PUT', body: 'a=b' }, 415, 'CONTENT_TYPE_UNSUPPORTED'],
    [
      'another compression',
      '/things/v1/things/7',
      { method: 'PUT', body: '{}', headers: { ...json, 'content-encoding': 'br' } },
      415,
      'CONTENT_TYPE_UNSUPPORTED',
    ],
    [
      'gzip that is none',
      '/things/v1/things/7',
      { method: 'PUT', body: '{}', headers: { ...json, 'content-encoding': 'gzip' } },
      400,
      'INVALID_ARGUMENT',
    ],
    [
      'a body of 8 MiB',
      '/things/v1/things/7',
      { method: 'PUT', body: 'x'.repeat(8 * 1024 * 1024), headers: json },
      413,
      'MESSAGE_TOO_LARGE',
    ],
    [
      'a body of 8 MiB in 8 KiB of gzip',
      '/things/v1/things/7',
      {
        method: 'PUT',
        body: gzipSync('x'.repeat(8 * 1024 * 1024)),
        headers: { ...json, 'content-encoding': 'gzip' },
      },
      413,
      'MESSAGE_TOO_LARGE',
    ],
    ['a body where none belongs', '/things/v1/things/7', { method: 'DELETE', body: '{}' }, 400, 'INVALID_ARGUMENT'],
  ])('of %s is told', async (_, path, init, status, reason) => {
    const answer = await ask(path, init)
    expect(answer.status).toBe(status)
    expect(answer.headers.get('www-authenticate')).toBe(status === 401 ? 'Bearer' : null)
    const told = await answer.text()
    expect(JSON.parse(told)).toMatchObject({
      error: { code: status, details: expect.arrayContaining([expect.objectContaining({ reason })]) },
    })
    expect(told).not.toContain('hunter2')
  })

  test('of another type is told, too, when the body does not announce its length', async () => {
    const session = connect(fixture.server.address)
    const stream = session.request({ ':path': '/things/v1/things/7', ':method': 'PUT', 'content-type': 'text/plain' })
    stream.end('{}')
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(415)
    stream.resume()
    session.close()
  })

  test('names the rule that a field broke', async () => {
    const answer = await ask(`/v1/quota/${'x'.repeat(180)}`, { headers: own })
    const { error } = JSON.parse(await answer.text())
    expect(error.details[1]).toEqual({
      '@type': 'type.googleapis.com/google.rpc.BadRequest',
      fieldViolations: [
        { field: 'service_id', description: 'must have at most 179 characters', reason: 'string.max_len' },
      ],
    })
  })

  test('of another method names those that the path takes', async () => {
    const answer = await ask('/things/v1/things/7', { method: 'POST' })
    expect(answer.status).toBe(405)
    expect(answer.headers.get('allow')).toBe('DELETE, GET, HEAD, PATCH, PUT')
    expect(await answer.json()).toMatchObject({ error: { code: 405, details: [{ reason: 'METHOD_NOT_ALLOWED' }] } })
    expect((await ask('/things/v1/things/7', { method: 'OPTIONS' })).status).toBe(405)
    expect((await ask('/things/v1/watch/x', { method: 'HEAD' })).status).toBe(405)
  })

  test('of the deadline comes at the deadline, even if the implementation does not end', async () => {
    const answer = await ask('/things/v1/fail/deaf', { headers: { 'x-request-timeout-ms': '50' } })
    goOn.resolve()
    goOn = Promise.withResolvers()
    expect(answer.status).toBe(504)
    expect(await answer.json()).toMatchObject({ error: { details: [{ reason: 'DEADLINE_EXCEEDED' }] } })
  })
})

test('a denial is kept before it is answered, as on the other wires', async () => {
  const kept: string[] = []
  const record = async ({ action, reason }: Denial): Promise<void> => void kept.push(`${action} ${reason}`)
  const other = await startFixture({ denials: { record } })
  try {
    const answer = await fetch(`${other.server.address}/v1/quota/s`, { headers: { 'x-api-key': keys.noRoles } })
    expect(answer.status).toBe(403)
    expect(kept).toEqual(['marketplace.v1.ConsumptionService/GetQuota PERMISSION_MISSING permission=quota.read'])
  } finally {
    await other.close()
  }
})

describe('beside the OpenAI API', () => {
  test('its own paths are its own, and so is the 404 below /v1/', async () => {
    expect(await (await ask('/v1/models', { headers: own })).json()).toMatchObject({ object: 'list' })
    const unknown = await ask('/v1/nope', { headers: own })
    expect(unknown.status).toBe(404)
    expect(await unknown.json()).toMatchObject({ error: { code: 'unknown_url' } })
  })

  test.each([
    ['/v1/models', 'hides /v1/models'],
    ['/v1/{id=**}', 'hides /v1/models'],
    ['/health', 'hides /health'],
  ])('a binding of %s is refused at start', async (path, message) => {
    const service = register(thingsService([rpc('List', get(path))]), {}, { public: true })
    await expect(startFixture({ services: [service] })).rejects.toThrow(message)
  })

  test('two bindings of one path are refused at start', async () => {
    const service = thingsService([rpc('List', get('/things/{id}')), rpc('Get', get('/things/{display_name}'))])
    await expect(startFixture({ services: [register(service, {}, { public: true })] })).rejects.toThrow(
      'the HTTP binding GET of rpc fixture.Things.Get cannot be served',
    )
  })
})

test('scripts of an allowed origin may use every method', async () => {
  const origin = 'https://console.example'
  const asked = { origin, 'access-control-request-method': 'DELETE' }
  const preflight = await ask('/things/v1/things/7', { method: 'OPTIONS', headers: asked })
  expect(preflight.status).toBe(204)
  expect(preflight.headers.get('access-control-allow-methods')?.split(', ')).toEqual(
    expect.arrayContaining(['GET', 'POST', 'PUT', 'PATCH', 'DELETE']),
  )
  const answer = await ask('/things/v1/things', { headers: { origin } })
  expect(answer.headers.get('access-control-allow-origin')).toBe(origin)
})

describe('a stream', () => {
  test('comes as one JSON object a line', async () => {
    const answer = await ask('/things/v1/watch/x')
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson')
    const lines = (await answer.text()).split('\n')
    expect(lines.pop()).toBe('')
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { id: 'x', count: 1 },
      { id: 'x', count: 2 },
    ])
  })

  test('comes as server-sent events to whom accepts them, and says when it ended well', async () => {
    const answer = await ask('/things/v1/parts', { headers: { accept: 'text/event-stream, */*;q=0.1' } })
    expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    expect(await answer.text()).toBe('data: {"name":"a","size":0}\n\nevent: end\ndata: {}\n\n')
  })

  test('that is refused before its first message is an ordinary error', async () => {
    const answer = await ask('/things/v1/watch/refused', { headers: { accept: 'text/event-stream' } })
    expect(answer.status).toBe(404)
    expect(await answer.json()).toMatchObject({ error: { status: 'NOT_FOUND' } })
  })

  test('that breaks off ends with its error', async () => {
    const lines = (await (await ask('/things/v1/watch/breaks')).text()).trimEnd().split('\n')
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { id: 'breaks', count: 1 },
      { error: { code: 503, status: 'UNAVAILABLE', details: [{ reason: 'STORAGE_UNAVAILABLE' }, {}] } },
    ])
    const events = await ask('/things/v1/watch/breaks', { headers: { accept: 'text/event-stream' } })
    const last = (await events.text()).trimEnd().split('\n\n').at(-1)
    expect(last).toMatch(/^event: error\ndata: \{"error":\{"code":503,/)
    await until(() => fixture.ended.at(-1)?.reason === 'STORAGE_UNAVAILABLE')
  })

  test('that meets its deadline ends with its error', async () => {
    const headers = { 'x-request-timeout-ms': '100' }
    const lines = (await (await ask('/things/v1/watch/waits', { headers })).text()).trimEnd().split('\n')
    expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ error: { code: 504, status: 'DEADLINE_EXCEEDED' } })
    goOn.resolve()
    goOn = Promise.withResolvers()
  })

  test('whose caller stops reading and leaves is given up', async () => {
    const before = left
    const caller = httpRequest(`${fixture.server.address}/things/v1/watch/endless`)
    caller.end()
    const [answer] = await once(caller, 'response')
    await once(answer, 'data')
    answer.on('error', () => {})
    answer.destroy()
    await until(() => left === before + 1)
    await until(() => fixture.server.activeCalls() === 0)
  })

  test('whose caller leaves is given up, and holds no call', async () => {
    await until(() => fixture.server.activeCalls() === 0)
    const before = left
    const caller = httpRequest(`${fixture.server.address}/things/v1/watch/waits`)
    caller.end()
    const [answer] = await once(caller, 'response')
    await once(answer, 'data')
    answer.on('error', () => {})
    answer.destroy()
    await until(() => fixture.ended.at(-1)?.reason === 'CANCELLED')
    goOn.resolve()
    await until(() => fixture.server.activeCalls() === 0)
    expect(left).toBe(before + 1)
  })
})
