import { once } from 'node:events'
import type { ServerHttp2Stream } from 'node:http2'
import { createServer } from 'node:net'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import {
  answerGrpc,
  beginGrpc,
  type GrpcUpstream,
  refuseGrpc,
  routed,
  startGrpcUpstream,
  streamed,
} from '../../test/support/grpc-upstream.ts'
import { testCall } from '../../test/support/invoke.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { selfSigned } from '../../test/support/test-ca.ts'
import { TollgateError } from '../errors.ts'
import type { Answer, Mode } from '../providers/provider.ts'
import { createProvider } from '../providers/providers.ts'
import type { EndpointRecord } from '../registry/records.ts'
import { createCredentials } from './credentials.ts'
import { createDispatcher, type Dispatched, type Dispatcher, type Opened } from './dispatcher.ts'
import { failureOf } from './retry-table.ts'

const provider = createProvider({ protocol: 'grpc', defaultMaxOutputTokens: 64 })
const usage = { inputTokens: 3n, outputTokens: 4n, totalTokens: 7n }
const ok = { 'grpc-status': '0' }
const answer = routed({ responseData: Buffer.from('{"a":1}'), usage, finishReason: 'stop' })
const chunk = '{"choices":[{"index":0,"delta":{"content":"x"}}]}'
const piece = streamed({ case: 'eventData', value: Buffer.from(chunk) })
const end = streamed({ case: 'end', value: { usage, finishReason: 'stop' } })

let dispatcher: Dispatcher
let upstream: GrpcUpstream

beforeAll(async () => {
  upstream = await startGrpcUpstream()
})
afterAll(async () => {
  await dispatcher?.close()
  await upstream?.close()
})
beforeEach(async () => {
  await dispatcher?.close()
  dispatcher = createDispatcher({
    connectionsPerHost: 4,
    connectTimeoutMs: 2_000,
    maxResponseBytes: 1_048_576,
    breaker: { failures: 100, windowMs: 10_000, resetMs: 10_000 },
    credentials: createCredentials({}, Date.now),
    now: Date.now,
    observer: { breakerChanged: () => {}, attempted: () => {}, credentialRefused: () => {} },
  })
  for (const list of [upstream.calls, upstream.sessions, upstream.aborted]) list.length = 0
})

function taskOf(mode: Mode) {
  const payload = Buffer.from('{"messages":[]}')
  const asked = provider.readRequest({ payload, mode, dialect: 'native', startMs: 0 })
  return {
    attemptId: (number: number) => `attempt-${number}`,
    prepare: ({ url, model }: EndpointRecord) => provider.prepare(asked, { url, model, credential: undefined }),
    read: (bytes: Uint8Array) => provider.readAnswer(bytes, asked),
    openReader: () => provider.openStream(asked),
  }
}

function serviceOf(changes: Partial<EndpointRecord> = {}) {
  return serviceRecord({
    endpoints: [endpointRecord({ protocol: 'grpc', model: 'up', url: upstream.url, ...changes })],
  })
}

function route(changes: Partial<EndpointRecord> = {}, call = testCall()): Promise<Dispatched<Answer>> {
  return dispatcher.dispatch(serviceOf(changes), taskOf('unary'), call)
}

function open(changes: Partial<EndpointRecord> = {}, call = testCall()): Promise<Opened> {
  return dispatcher.open(serviceOf(changes), taskOf('stream'), call)
}

async function readAll(opened: Opened) {
  if ('error' in opened) throw opened.error
  let pieces = 0
  for await (const some of opened.value.pieces) pieces += some.length
  return { pieces, end: await opened.value.end, report: opened.value.report(), attempt: await opened.over }
}

async function failureIn(dispatched: Promise<Dispatched<Answer>>) {
  const told = await dispatched
  if ('value' in told) throw new Error('it was answered')
  return {
    failure: failureOf(told.error),
    reason: told.error.reason,
    attempts: told.attempts.length,
    error: told.error,
  }
}

/** All calls but the first are answered. */
function answerAfter(first: (stream: ServerHttp2Stream) => void): void {
  upstream.answer = (stream) => {
    upstream.answer = (later) => answerGrpc(later, [answer], ok)
    first(stream)
  }
}

describe('a call', () => {
  test('is answered whole and in a stream, with its deadline told', async () => {
    upstream.answer = (stream) => answerGrpc(stream, [answer], ok)
    const whole = await route()
    expect(whole).toMatchObject({
      value: { finishReason: 'stop', usageSource: 'provider', tokens: { input: 3, output: 4 } },
    })
    upstream.answer = (stream) => answerGrpc(stream, [piece, piece, end], ok)
    const read = await readAll(await open())
    expect(read).toMatchObject({ pieces: 2, end: { verdict: 'complete' }, report: { tokens: { output: 4 } } })
    expect(read.attempt).toMatchObject({ error: undefined, status: 200 })
    for (const headers of upstream.calls) {
      expect(headers).toMatchObject({ te: 'trailers', 'grpc-timeout': expect.stringMatching(/^\d{5}m$/) })
    }
  })

  test('goes over TLS, too', async () => {
    const tls = selfSigned()
    const trusted = getCACertificates('default')
    setDefaultCACertificates([...trusted, tls.cert])
    const secure = await startGrpcUpstream(tls)
    try {
      secure.answer = (stream) => answerGrpc(stream, [answer], ok)
      expect(await route({ url: secure.url })).toMatchObject({ value: { finishReason: 'stop' } })
    } finally {
      setDefaultCACertificates(trusted)
      await dispatcher.close()
      await secure.close()
    }
  })

  test('shares its connection with others', async () => {
    upstream.answer = (stream) => answerGrpc(stream, [answer], ok)
    await route()
    await Promise.all(Array.from({ length: 50 }, () => route()))
    expect(upstream.calls).toHaveLength(51)
    expect(upstream.sessions).toHaveLength(1)
  })

  test('whose caller leaves is reset, and its connection stays', async () => {
    const leaving = new AbortController()
    upstream.answer = (stream) => beginGrpc(stream, [piece], ok)
    const opened = await open({}, testCall(undefined, { signal: leaving.signal }))
    leaving.abort(new TollgateError('CANCELLED', 'gone'))
    expect(await readAll(opened)).toMatchObject({ end: { verdict: 'cut', error: { reason: 'CANCELLED' } } })
    await eventually(() => upstream.aborted.length === 1)
    upstream.answer = (stream) => answerGrpc(stream, [answer], ok)
    expect(await route()).toHaveProperty('value')
    expect(upstream.sessions).toHaveLength(1)
  })

  test('that is read slowly makes the upstream wait, and no other call on the connection', async () => {
    const large = streamed({ case: 'eventData', value: Buffer.alloc(65_536, 'x') })
    let written = 0
    upstream.answer = (stream) => {
      beginGrpc(stream, [], ok)
      const write = (): void => {
        while (written < 400) {
          written += 1
          if (!stream.write(large)) {
            stream.once('drain', write)
            return
          }
        }
        stream.end(end)
      }
      write()
    }
    const slow = await open()
    await eventually(() => written > 2)
    upstream.answer = (stream) => answerGrpc(stream, [answer], ok)
    for (let n = 0; n < 200; n += 1) expect(await route()).toHaveProperty('value')
    expect(upstream.sessions).toHaveLength(1)
    expect(written).toBeLessThan(50)
    expect(await readAll(slow)).toMatchObject({ pieces: 400, end: { verdict: 'complete' } })
  })

  test('goes on when the upstream retires its connection, and later ones take another', async () => {
    let finish = (): void => {}
    upstream.answer = (stream) => {
      beginGrpc(stream, [piece], ok)
      finish = () => stream.end(Buffer.concat([piece, end]))
    }
    const opened = await open()
    const [first] = upstream.sessions
    first?.close()
    upstream.answer = (stream) => answerGrpc(stream, [answer], ok)
    const later = await Promise.all(Array.from({ length: 10 }, () => route()))
    expect(later.every((told) => 'value' in told && told.attempts.length === 1)).toBe(true)
    expect(upstream.sessions.length).toBeGreaterThan(1)
    finish()
    expect(await readAll(opened)).toMatchObject({ pieces: 2, end: { verdict: 'complete' } })
  })
})

describe('a failure before the first output', () => {
  test.each([
    ['a status alone', (stream) => refuseGrpc(stream, { 'grpc-status': '14' }), 'unavailable'],
    ['a status after no message', (stream) => answerGrpc(stream, [], { 'grpc-status': '13' }), 'server_error'],
    ['no status', (stream) => answerGrpc(stream, [answer]), 'cut'],
    ['a reset', (stream) => stream.close(2), 'reset'],
    [
      'a reset within the answer',
      (stream) => {
        beginGrpc(stream, [answer.subarray(0, 8)])
        stream.close(2)
      },
      'cut',
    ],
    ['a connection that dies', (stream) => stream.session?.destroy(), 'reset'],
  ] satisfies [string, (stream: ServerHttp2Stream) => void, string][])('%s is tried again', async (_, first) => {
    answerAfter(first)
    const told = await route()
    expect(told).toHaveProperty('value')
    expect(told.attempts).toHaveLength(2)
  })

  test.each([
    [
      'a page',
      (stream) => {
        stream.respond({ ':status': 200, 'content-type': 'text/html' })
        stream.end('<html></html>')
      },
      'invalid_answer',
    ],
    ['an HTTP status', (stream) => stream.respond({ ':status': 404 }, { endStream: true }), 'rejected'],
    [
      'a redirect',
      (stream) => stream.respond({ ':status': 302, location: 'http://127.0.0.1:1/' }, { endStream: true }),
      'unusable_status',
    ],
    ['no message with status OK', (stream) => answerGrpc(stream, [], ok), 'invalid_answer'],
    ['a refused credential', (stream) => refuseGrpc(stream, { 'grpc-status': '16' }), 'credential_refused'],
    ['a rejected request', (stream) => refuseGrpc(stream, { 'grpc-status': '3' }), 'rejected'],
  ] satisfies [string, (stream: ServerHttp2Stream) => void, string][])(
    '%s is told as what it is',
    async (_, answered, failure) => {
      upstream.answer = answered
      expect(await failureIn(route())).toMatchObject({ failure, attempts: 1 })
    },
  )

  test('a server that speaks no HTTP/2 is one that fails', async () => {
    const server = createServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = address === null || typeof address === 'string' ? 0 : address.port
    expect(await failureIn(route({ url: `http://127.0.0.1:${port}` }))).toMatchObject({
      reason: expect.stringMatching(/^BACKEND_/),
    })
    server.close()
  })

  test('nobody there is no connection', async () => {
    expect(await failureIn(route({ url: 'http://127.0.0.1:1' }))).toMatchObject({
      failure: 'no_connection',
      attempts: 3,
    })
  })

  test('silence is bounded', async () => {
    answerAfter(() => {})
    const slow = await failureIn(route({ headersTimeoutMs: 50 }))
    expect(slow).toMatchObject({ failure: 'headers_timeout', reason: 'BACKEND_TIMEOUT' })
    await eventually(() => upstream.aborted.length === 1)
    expect(await route()).toHaveProperty('value')
  })
})

describe('a stream that breaks off', () => {
  test.each([
    ['by its status', (stream) => answerGrpc(stream, [piece, piece], { 'grpc-status': '14' })],
    ['without StreamEnd, though its status is OK', (stream) => answerGrpc(stream, [piece, piece], ok)],
    ['without a status', (stream) => answerGrpc(stream, [piece, piece])],
    [
      'by a reset',
      (stream) => {
        beginGrpc(stream, [piece], ok)
        stream.write(piece, () => stream.close(8))
      },
    ],
    [
      'with its connection',
      (stream) => {
        beginGrpc(stream, [piece], ok)
        stream.write(piece, () => setImmediate(() => stream.session?.destroy()))
      },
    ],
    ['in the middle of a message', (stream) => answerGrpc(stream, [piece, piece, piece.subarray(0, 9)], ok)],
  ] satisfies [string, (stream: ServerHttp2Stream) => void][])(
    '%s is no success, and what came is known',
    async (_, answered) => {
      upstream.answer = answered
      const { pieces, end: ended, report, attempt } = await readAll(await open())
      expect(ended).toMatchObject({ verdict: 'cut', error: { reason: 'BACKEND_FAILED' } })
      expect(pieces).toBe(2)
      expect(report).toMatchObject({ usageSource: 'partial', tokens: { output: 2 } })
      expect(attempt.error?.reason).toBe('BACKEND_FAILED')
    },
  )
})
