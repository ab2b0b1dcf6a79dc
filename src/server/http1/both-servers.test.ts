import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Fixture, keys, startFixture, until } from '../fixture.ts'
import { plain, request, unusualRequests } from './unusual-requests.ts'

/**
 * The gate's own server for HTTP/1.1 against Node's: the same bytes go to both, and what comes back until the connection is closed
 * must be the same, byte by byte. Who reads them is decided by what comes before: behind a request that is not simple, Node does.
 */
let fixture: Fixture
let answers: Record<Reader, ReadonlyMap<string, string>>

type Reader = 'own, first' | 'own, later' | 'Node'

const openings: Readonly<Record<Reader, string>> = {
  'own, first': '',
  'own, later': 'GET /health HTTP/1.1\r\nhost: x\r\n\r\n',
  // A tab is right in a value, and not simple.
  Node: 'GET /health HTTP/1.1\r\nhost: x\r\na: b\tc\r\n\r\n',
}
const opened = '{"status":"ok"}'

/** All that comes back for bytes that are sent in parts. */
async function answerTo(reader: Reader, parts: readonly Uint8Array[]): Promise<string> {
  const { host, port } = fixture.server
  const socket = connect(port, host).setNoDelay()
  const { promise, resolve } = Promise.withResolvers<void>()
  const closed = new Promise((resolve) => socket.on('close', resolve))
  let received = ''
  let isOpen = openings[reader] === ''
  socket.setEncoding('latin1').on('data', (part: string) => {
    received += part
    if (isOpen || !received.endsWith(opened)) return
    isOpen = true
    received = ''
    resolve()
  })
  socket.on('error', () => {})
  if (isOpen) resolve()
  else socket.write(openings[reader])
  await promise
  for (const part of parts) {
    await new Promise((resolve) => setImmediate(resolve))
    socket.write(part)
  }
  await closed
  return told(received)
}

/** Without what differs from call to call. */
function told(text: string): string {
  return text
    .replace(/\r\n(date|openai-processing-ms|[a-z-]*ratelimit-reset[a-z-]*): [^\r]*/gi, '\r\n$1: *')
    .replace(/[\da-f]{8}-[\da-f]{4}-[\da-f-]{22}/g, 'its id')
}

function get(path: string, more: readonly string[] = [], method = 'GET', body = ''): Buffer {
  return request([`${method} ${path} HTTP/1.1`, 'host: x', ...more], body)
}

/** With headers that others of the same name take the place of. */
function post(path: string, body: string | Uint8Array, more: Readonly<Record<string, string>> = {}): Buffer {
  const bytes = Buffer.from(body)
  const headers = { host: 'x', 'x-api-key': keys.own, 'content-type': 'application/json', ...more }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return Buffer.concat([request([`POST ${path} HTTP/1.1`, ...lines, `content-length: ${bytes.length}`]), bytes])
}

const service = '/marketplace.v1.ConsumptionService'
const route = `${service}/RouteRequest`
const chat = '/v1/chat/completions'
const echo = '{"model":"echo"}'
const streamed = '{"model":"echo","stream":true}'
const console = 'https://console.example'
const streamsJson = { 'content-type': 'application/connect+json' }

function enveloped(json: string): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(Buffer.byteLength(json), 1)
  return Buffer.concat([head, Buffer.from(json)])
}

function ofLength(length: number): string {
  return JSON.stringify({ model: 'echo', text: 'x'.repeat(length) })
}

const simpleRequests: readonly (readonly [what: string, bytes: Buffer])[] = [
  ['a page', get('/health?a=b&c')],
  ['the head of a page', get('/health', [], 'HEAD')],
  ['the head of nothing', get('/nothing', [], 'HEAD')],
  ['nothing', get('/nothing')],
  ["nothing, in OpenAI's words", get('/v1/nothing')],
  ['a page by another method', get('/health', [], 'DELETE')],
  ['a page for a body', get('/health', ['content-length: 3'], 'GET', 'abc')],
  ['a page, and a connection that ends', get('/health', ['Connection: close'])],
  ['a page, and a connection that is kept', get('/health', ['Connection: Keep-Alive'])],
  ['a preflight', get(chat, [`origin: ${console}`, 'access-control-request-method: POST'], 'OPTIONS')],
  ['a preflight from elsewhere', get(chat, ['origin: https://x', 'access-control-request-method: POST'], 'OPTIONS')],
  ['a call of a script', post(chat, echo, { origin: console })],
  ['a call of a script from elsewhere', post(chat, echo, { origin: 'https://x' })],
  ['a call', post(chat, echo)],
  ['a call with a body that one read does not bring', post(chat, ofLength(90_000))],
  ['a call with a large answer', post(chat, ofLength(50_000))],
  ['a call with an answer of some size', post(chat, ofLength(5_000))],
  ['a call over the limit', post(chat, ofLength(110_000))],
  ['a call without a body', post(chat, '')],
  ['a call without JSON', post(chat, '{')],
  ['a call with a type that is not taken', post(chat, echo, { 'content-type': 'text/plain' })],
  ['a call with a wrong key', post(chat, echo, { 'x-api-key': 'wrong' })],
  ['a call with an empty key', post(chat, echo, { 'x-api-key': '' })],
  ['a call that is refused', post(chat, '{"model":"RATE_LIMITED"}')],
  ['a call that crashes', post(chat, '{"model":"crash"}')],
  ['a stream', post(chat, streamed)],
  ['a stream, and a connection that ends', post(chat, streamed, { connection: 'close' })],
  ['a stream that fails', post(chat, '{"model":"late:crash","stream":true}')],
  ['a stream for a script', post(chat, streamed, { origin: console })],
  ['models', get('/v1/models', [`x-api-key: ${keys.admin}`])],
  ['Connect', post(route, '{"serviceId":"echo","payload":"aGk="}')],
  ['Connect, failing', post(route, '{"serviceId":"unknown"}')],
  ['Connect, limited', post(route, '{"serviceId":"limited"}')],
  ['Connect, by the router', post(route, '{"serviceId":7}')],
  ['Connect, late', post(route, '{"serviceId":"held"}', { 'connect-timeout-ms': '50' })],
  ['Connect, binary', post(route, Buffer.from('\n\u0004echo'), { 'content-type': 'application/proto' })],
  ['Connect, with an answer that cannot be one', post(route, '{"serviceId":"a\\r\\nb: c"}')],
  ['Connect, in another spelling', post(route, '{"serviceId":"echo"}', { 'content-type': 'Application/json' })],
  ['Connect, by GET', get(`${service}/CheckQuota?encoding=json&message=%7B%7D&connect=v1`, [`x-api-key: ${keys.own}`])],
  ['a stream over Connect', post(`${service}/StreamRequest`, enveloped('{"serviceId":"echo"}'), streamsJson)],
  [
    'a stream over Connect that fails',
    post(`${service}/StreamRequest`, enveloped('{"serviceId":"crash"}'), streamsJson),
  ],
  ['gRPC-Web', post(route, enveloped('{"serviceId":"echo"}'), { 'content-type': 'application/grpc-web+json' })],
  ['gRPC, which needs HTTP/2', post(route, enveloped('{}'), { 'content-type': 'application/grpc' })],
  ['an RPC that is not there', post(`${service}/Nothing`, '{}')],
  ['an RPC that is not there, over gRPC', post('/a.B/C', '', { 'content-type': 'application/grpc' })],
  ['an RPC by another method', get(route, ['content-type: application/json'], 'PUT')],
  [
    'watching the health over gRPC-Web',
    post('/grpc.health.v1.Health/Check', enveloped('{}'), { 'content-type': 'application/grpc-web+json' }),
  ],
]

const [, call = Buffer.alloc(0)] = simpleRequests.find(([what]) => what === 'a call') ?? []
const half = call.length >> 1

/** What comes in several parts, or does not come to its end. */
const inParts: readonly (readonly [what: string, parts: readonly Uint8Array[]])[] = [
  ['a call in two parts', [call.subarray(0, half), call.subarray(half)]],
  ['a call that does not come to its end', [call.subarray(0, -1)]],
  ['a head that does not come to its end', [call.subarray(0, half)]],
  ['a call in bytes', [...call].map((byte) => Buffer.from([byte]))],
  ['two calls at once', [Buffer.concat([call, call])]],
  ['two calls', [call, call]],
  ['a call and a half', [Buffer.concat([call, call.subarray(0, half)]), call.subarray(half)]],
  ['a call, and what is none', [Buffer.concat([call, Buffer.from('\0')])]],
  ['a call, and an empty line behind it', [call, Buffer.from('\r\n'), call]],
  ['a call of chunks', [request([...plain.slice(0, -1), 'transfer-encoding: chunked'], `10\r\n${echo}\r\n0\r\n\r\n`)]],
  [
    'a call that expects to go on',
    [request([...plain.slice(0, -1), 'expect: 100-continue', 'content-length: 16']), Buffer.from(echo)],
  ],
  ['a call over HTTP/1.0', [request(['GET /health HTTP/1.0', 'connection: keep-alive'])]],
]

const all: readonly (readonly [what: string, parts: readonly Uint8Array[]])[] = [
  ...[...simpleRequests, ...unusualRequests].map(([what, bytes]) => [what, [bytes]] as const),
  ...inParts,
]

async function answersOf(reader: Reader): Promise<ReadonlyMap<string, string>> {
  return new Map(await Promise.all(all.map(async ([what, parts]) => [what, await answerTo(reader, parts)] as const)))
}

beforeAll(async () => {
  fixture = await startFixture({
    headersTimeoutMs: 1_000,
    bodyTimeoutMs: 1_000,
    // The last thing that happens on a connection that stays open; after all that takes its time.
    keepAliveMs: 4_000,
    maxMessageBytes: 100_000,
  })
  const [node, first, later] = await Promise.all([answersOf('Node'), answersOf('own, first'), answersOf('own, later')])
  answers = { Node: node, 'own, first': first, 'own, later': later }
}, 60_000)
afterAll(async () => {
  fixture.release()
  await fixture.close()
})

describe.each(['own, first', 'own, later'] as const)('the answer to %s', (reader) => {
  test.each(all)('%s', (what) => {
    expect(answers[reader].get(what)).toBe(answers.Node.get(what))
  })
})

test('nothing is left behind', async () => {
  fixture.release()
  await until(() => fixture.server.activeCalls() === 0)
  expect(answers.Node.get('a call')).toMatch(/^HTTP\/1.1 200 OK\r\n/)
})
