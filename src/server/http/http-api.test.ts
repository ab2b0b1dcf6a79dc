import { once } from 'node:events'
import { connect } from 'node:http2'
import { text } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { keys, startFixture, until } from '../fixture.ts'
import { register } from '../rpc.ts'
import { get, rpc, thingsService } from './fixture-service.ts'
import { json, startThings, type Things } from './fixture-things.ts'

let things: Things
beforeAll(async () => {
  things = await startThings()
})
afterAll(() => things.close())

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
    const response = await things.ask(path, { method, ...(body !== undefined && { body, headers: json }) })
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(await response.json()).toMatchObject(answer)
  })

  test('fields that are 0, false and empty are answered too, those without a value are not', async () => {
    const answer = await (await things.ask('/things/v1/things')).json()
    expect(answer).toMatchObject({ id: '', count: 0, big: '0', isOn: false, color: 'COLOR_UNSPECIFIED', tags: [] })
    expect(answer).not.toHaveProperty('part')
    expect(answer).not.toHaveProperty('at')
  })

  test('the answer may be one field of its message', async () => {
    expect(await (await things.ask('/things/v1/things/7?part.name=x')).json()).toEqual({ name: 'x', size: 0 })
    expect(await (await things.ask('/things/v1/things/7')).json()).toBeNull()
  })

  test('raw bodies pass as they are, both ways', async () => {
    const answer = await things.ask('/things/v1/raw')
    expect(answer.headers.get('content-type')).toBe('image/png')
    expect([...new Uint8Array(await answer.arrayBuffer())]).toEqual([1, 2, 255])
    const body = new Uint8Array([0, 255])
    const sent = await things.ask('/things/v1/raw', { method: 'POST', body, headers: { 'content-type': 'x/y' } })
    expect(await sent.json()).toMatchObject({ blob: { contentType: 'x/y', data: 'AP8=' } })
  })

  test('over HTTP/2 as well', async () => {
    const session = connect(things.server.address)
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
    const answer = await things.ask('/things/v1/things/7', { method: 'PUT', body, headers })
    expect(await answer.json()).toMatchObject({ count: 9 })
  })

  test('HEAD gets the headers of GET', async () => {
    const [whole, head] = [
      await things.ask('/things/v1/things'),
      await things.ask('/things/v1/things', { method: 'HEAD' }),
    ]
    expect(head.status).toBe(200)
    expect(head.headers.get('content-length')).toBe(whole.headers.get('content-length'))
    expect(await head.text()).toBe('')
    await whole.text()
    expect((await things.ask('/things/v1/fail/x', { method: 'HEAD' })).status).toBe(429)
  })

  test('with the headers that the implementation sets, and the credential as on the other wires', async () => {
    const path = '/v1/services/echo/invoke'
    const init = { method: 'POST', body: '{"payload":"AQID"}' }
    const answer = await things.ask(path, { ...init, headers: { ...json, ...own } })
    expect(answer.headers.get('x-served')).toBe('echo')
    expect(await answer.json()).toMatchObject({
      requestId: answer.headers.get('x-request-id'),
      responseData: 'AQID',
    })
    const withApiKey = await things.ask(path, { ...init, headers: { ...json, 'x-api-key': keys.own } })
    expect(withApiKey.status).toBe(200)
  })

  test('and is counted by its own path', async () => {
    await things.ask('/things/v1/things/7', { method: 'DELETE' })
    await until(() => things.ended.at(-1)?.rpc === 'Remove')
  })
})

describe('beside the OpenAI API', () => {
  test('its own paths are its own, and so is the 404 below /v1/', async () => {
    expect(await (await things.ask('/v1/models', { headers: own })).json()).toMatchObject({ object: 'list' })
    const unknown = await things.ask('/v1/nope', { headers: own })
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
  const preflight = await things.ask('/things/v1/things/7', { method: 'OPTIONS', headers: asked })
  expect(preflight.status).toBe(204)
  expect(preflight.headers.get('access-control-allow-methods')?.split(', ')).toEqual(
    expect.arrayContaining(['GET', 'POST', 'PUT', 'PATCH', 'DELETE']),
  )
  const answer = await things.ask('/things/v1/things', { headers: { origin } })
  expect(answer.headers.get('access-control-allow-origin')).toBe(origin)
})
