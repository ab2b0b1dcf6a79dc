import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { testCall } from '../../test/support/invoke.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { requestHeaders } from '../providers/target.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import { createCredentials } from './credentials.ts'
import { createDispatcher, type Dispatcher, type UnaryTask } from './dispatcher.ts'
import { failureOf } from './retry-table.ts'

let backend: Server
let answer: (request: IncomingMessage, response: ServerResponse) => void
let dispatcher: Dispatcher
let told: { attempted: string[]; refusedCredentials: string[] }

const payload = new TextEncoder().encode('{"a":1}')

function task<T>(read: (answer: Uint8Array) => T): UnaryTask<T> {
  return {
    attemptId: (number) => `attempt-${number}`,
    prepare: (endpoint, credential) => ({
      url: endpoint.url,
      headers: requestHeaders('bearer', { url: endpoint.url, model: '', credential }, 'application/json'),
      body: payload,
    }),
    read,
  }
}
const text = task((bytes) => new TextDecoder().decode(bytes))

beforeEach(async () => {
  backend = createServer((request, response) => answer(request, response))
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  told = { attempted: [], refusedCredentials: [] }
  dispatcher = createDispatcher({
    connectionsPerHost: 4,
    connectTimeoutMs: 1_000,
    maxResponseBytes: 1_024,
    breaker: { failures: 5, windowMs: 10_000, resetMs: 10_000 },
    credentials: createCredentials({ BACKEND_KEY: 'very-secret' }, Date.now),
    now: Date.now,
    observer: {
      breakerChanged: () => {},
      attempted: (_, { error }) => told.attempted.push(error === undefined ? 'succeeded' : failureOf(error)),
      credentialRefused: (_, { credentialRef }) => told.refusedCredentials.push(credentialRef),
    },
  })
})

afterEach(async () => {
  backend.closeAllConnections()
  await dispatcher.close()
  await new Promise((resolve) => backend.close(resolve))
})

function service(...endpoints: Partial<EndpointRecord>[]): ServiceRecord {
  const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1/chat?x=1`
  return serviceRecord({ endpoints: endpoints.map((changes, i) => endpointRecord({ id: `e${i}`, url, ...changes })) })
}

async function failureOfCall(changes: Partial<EndpointRecord> = {}, of: Partial<Call> = {}): Promise<TollgateError> {
  const outcome = await dispatcher.dispatch(service(changes), text, testCall(undefined, of))
  if ('value' in outcome) throw new Error('the dispatch succeeded')
  return outcome.error
}

describe('a call that works', () => {
  test('reaches the path with its bytes, ids, remaining time and credential, and returns the bytes', async () => {
    let seen: IncomingMessage | undefined
    let body = ''
    answer = async (request, response) => {
      seen = request
      for await (const chunk of request) body += String(chunk)
      response.end('{"b":2}')
    }
    const call = testCall()
    const outcome = await dispatcher.dispatch(service({ credentialRef: 'env:BACKEND_KEY' }), text, call)
    expect(outcome).toMatchObject({
      value: '{"b":2}',
      attempts: [{ id: 'attempt-1', number: 1, endpointId: 'e0', status: 200, receivedBytes: 7, error: undefined }],
    })
    expect(body).toBe('{"a":1}')
    expect(seen?.url).toBe('/v1/chat?x=1')
    expect(seen?.headers).toMatchObject({
      authorization: 'Bearer very-secret',
      'x-request-id': call.id,
      'x-tollgate-attempt-id': 'attempt-1',
    })
    const timeoutMs = Number(seen?.headers['x-request-timeout-ms'])
    expect(timeoutMs).toBeGreaterThan(0)
    expect(timeoutMs).toBeLessThanOrEqual(call.deadlineMs - Date.now() + 5_000)
  })
})

describe('a backend that fails is told apart', () => {
  test.each([
    [500, 'BACKEND_FAILED', 'server_error'],
    [502, 'BACKEND_FAILED', 'server_error'],
    [503, 'BACKEND_FAILED', 'unavailable'],
    [529, 'BACKEND_FAILED', 'unavailable'],
    [504, 'BACKEND_FAILED', 'gateway_timeout'],
    [501, 'BACKEND_FAILED', 'unusable_status'],
    [429, 'BACKEND_FAILED', 'busy'],
    [408, 'BACKEND_FAILED', 'server_error'],
    [302, 'BACKEND_FAILED', 'unusable_status'],
    [307, 'BACKEND_FAILED', 'unusable_status'],
    [400, 'BACKEND_REJECTED', 'rejected'],
    [422, 'BACKEND_REJECTED', 'rejected'],
    [401, 'BACKEND_CREDENTIAL_REFUSED', 'credential_refused'],
    [403, 'BACKEND_CREDENTIAL_REFUSED', 'credential_refused'],
  ])('status %i is %s (%s), without its text, and no redirect is followed', async (status, reason, failure) => {
    const paths: unknown[] = []
    answer = (request, response) => {
      paths.push(request.url)
      request.resume()
      response.writeHead(status, { 'retry-after': '7', location: '/elsewhere' }).end('its own very-secret text')
    }
    // Its Retry-After lies beyond the deadline: there is no second attempt.
    const error = await failureOfCall({ credentialRef: 'env:BACKEND_KEY' }, { deadlineMs: Date.now() + 5_000 })
    expect(error).toMatchObject({ reason, metadata: { failure, backendStatus: String(status) } })
    expect(JSON.stringify([error.message, error.metadata])).not.toMatch(/its own|very-secret|elsewhere/)
    if (reason === 'BACKEND_FAILED') expect(error.retryAfterMs).toBe(7_000)
    expect(paths).toEqual(['/v1/chat?x=1'])
  })

  test('a refusal for a credential, in the codes of a body, whatever its status', async () => {
    answer = (_, response) => {
      response.writeHead(400).end('{"error":{"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}')
    }
    expect(await failureOfCall()).toMatchObject({ reason: 'BACKEND_CREDENTIAL_REFUSED' })
  })

  test('an answer that is too large', async () => {
    answer = (_, response) => response.end(Buffer.alloc(4_096))
    expect(await failureOfCall()).toMatchObject({ reason: 'BACKEND_ANSWER_TOO_LARGE' })
    expect(told.attempted).toEqual(['answer_too_large'])
  })

  test('an error answer that never ends', async () => {
    answer = (_, response) => response.writeHead(400).write('{')
    expect(await failureOfCall()).toMatchObject({ reason: 'BACKEND_REJECTED' })
  })

  test('a connection that breaks before the answer, and in it', async () => {
    answer = (request) => request.socket.destroy()
    expect(await failureOfCall()).toMatchObject({ reason: 'BACKEND_FAILED', metadata: { failure: 'reset' } })
    answer = (request, response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('{', () => request.socket.destroy())
    }
    expect(await failureOfCall()).toMatchObject({ reason: 'BACKEND_FAILED', metadata: { failure: 'cut' } })
    expect(told.attempted).toEqual(['reset', 'reset', 'reset', 'cut', 'cut'])
  })

  test('nobody listens', async () => {
    expect(await failureOfCall({ url: 'http://127.0.0.1:1/' })).toMatchObject({
      reason: 'BACKEND_UNREACHABLE',
      metadata: { failure: 'no_connection', attempts: '3' },
    })
  })

  test('a credential that is not there, named by its reference, loudly', async () => {
    answer = (_, response) => response.end('{}')
    for (const credentialRef of ['env:NOT_THERE', 'file:/nowhere/at/all']) {
      expect(await failureOfCall({ credentialRef })).toMatchObject({
        reason: 'BACKEND_CREDENTIAL_REFUSED',
        metadata: { failure: 'credential_missing', credentialRef },
      })
    }
    expect(told.refusedCredentials).toEqual(['env:NOT_THERE', 'file:/nowhere/at/all'])
  })

  test('a failure of the gate itself, which is no failure of the backend', async () => {
    answer = (_, response) => response.end('{}')
    const broken = task(() => {
      throw new RangeError('a bug')
    })
    for (let i = 0; i < 6; i += 1) {
      expect(await dispatcher.dispatch(service({}), broken, testCall())).toMatchObject({
        error: { reason: 'INTERNAL' },
      })
    }
    expect(dispatcher.breakers()).toMatchObject([{ state: 'closed' }])
  })
})

describe('each deadline of an endpoint has its own error', () => {
  const silent = (): void => {}
  const halfway = (_: IncomingMessage, response: ServerResponse): void => {
    response.writeHead(200, { 'content-length': '100' }).write('{')
  }

  test.each<[string, Partial<EndpointRecord>, typeof halfway, RegExp]>([
    ['headers_timeout', { headersTimeoutMs: 40 }, silent, /began no answer within 40 ms \(.*headers_timeout\)/],
    ['idle_timeout', { idleTimeoutMs: 30, headersTimeoutMs: 5_000 }, halfway, /silent for 30 ms .*idle_timeout/],
    ['total_timeout', { timeoutMs: 50, idleTimeoutMs: 5_000 }, halfway, /did not answer within 50 ms .*timeout/],
  ])('%s', async (failure, changes, behaviour, message) => {
    answer = behaviour
    const error = await failureOfCall(changes)
    expect(error).toMatchObject({ reason: 'BACKEND_TIMEOUT', metadata: { failure } })
    expect(error.message).toMatch(message)
    // The backend may still be computing: it is not asked a second time.
    expect(told.attempted).toEqual([failure])
  })

  test('connect_timeout', async () => {
    const mute = createTcpServer((socket) => socket.resume().on('error', () => {}))
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve))
    try {
      // TLS is part of connecting, and this server says nothing.
      const url = `https://127.0.0.1:${(mute.address() as AddressInfo).port}/`
      const error = await failureOfCall({ url, connectTimeoutMs: 40 })
      expect(error).toMatchObject({
        reason: 'BACKEND_TIMEOUT',
        metadata: { failure: 'connect_timeout', attempts: '3' },
      })
      expect(error.message).toMatch(/took no connection within 40 ms .*connect_timeout/)
      // A backend that cannot be connected to within the whole of its time is no full pool.
      const failure = await failureOfCall({ url, connectTimeoutMs: 5_000, timeoutMs: 40 })
      expect(failure).toMatchObject({ reason: 'BACKEND_TIMEOUT', metadata: { failure: 'total_timeout' } })
    } finally {
      mute.close()
    }
  })

  test('an answer that keeps coming is not idle', async () => {
    answer = async (_, response) => {
      response.writeHead(200)
      for (let i = 0; i < 6; i += 1) {
        response.write('x')
        await delay(250)
      }
      response.end()
    }
    expect(await dispatcher.dispatch(service({ idleTimeoutMs: 1_000 }), text, testCall())).toMatchObject({
      value: 'xxxxxx',
    })
  })
})

describe('the breaker of the only endpoint', () => {
  const unreadable = task(() => {
    throw new TollgateError('BACKEND_ANSWER_INVALID', 'no JSON')
  })
  const outcomes = async (times: number): Promise<string[]> => {
    const reasons: string[] = []
    for (let i = 0; i < times; i += 1) {
      const outcome = await dispatcher.dispatch(service({}), unreadable, testCall())
      reasons.push('error' in outcome ? outcome.error.reason : 'ok')
    }
    return reasons
  }

  test('opens after five answers that cannot be read, and the call that met it was no attempt', async () => {
    answer = (_, response) => response.end('<html></html>')
    expect(await outcomes(6)).toEqual([...Array(5).fill('BACKEND_ANSWER_INVALID'), 'BREAKER_OPEN'])
    expect(await dispatcher.dispatch(service({}), text, testCall())).toMatchObject({ attempts: [] })
    expect(told.attempted).toHaveLength(5)
  })

  test('a retry that it refuses leaves the answer of the backend', async () => {
    answer = (request) => request.socket.destroy()
    expect(await failureOfCall()).toMatchObject({ metadata: { failure: 'reset', attempts: '3' } })
    expect(await failureOfCall()).toMatchObject({ metadata: { failure: 'reset', attempts: '2' } })
    expect(await failureOfCall()).toMatchObject({ reason: 'BREAKER_OPEN' })
  })

  test('neither refused requests nor a busy backend open it', async () => {
    for (const status of [400, 429]) {
      answer = (_, response) => response.writeHead(status, { 'retry-after': '60' }).end()
      for (let i = 0; i < 6; i += 1) await failureOfCall({}, { deadlineMs: Date.now() + 5_000 })
    }
    expect(dispatcher.breakers()).toEqual([{ serviceId: 'service-1', endpointId: 'e0', state: 'closed' }])
  })
})

describe('a call that its caller ends', () => {
  test("fails with the signal's reason, ends the backend's call, and says nothing about the backend", async () => {
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    for (let i = 0; i < 6; i += 1) {
      const caller = new AbortController()
      answer = (request) => {
        request.socket.once('close', resolve)
        caller.abort(new TollgateError('DEADLINE_EXCEEDED', 'too late'))
      }
      expect(await failureOfCall({}, { signal: caller.signal })).toMatchObject({ reason: 'DEADLINE_EXCEEDED' })
    }
    await closed
    expect(dispatcher.breakers()).toEqual([{ serviceId: 'service-1', endpointId: 'e0', state: 'closed' }])
  })

  test('before its first attempt makes none, and during a pause no other', async () => {
    let asked = 0
    const caller = new AbortController()
    answer = (_, response) => {
      asked += 1
      response.writeHead(503, { 'retry-after': '30' }).end()
      response.once('close', () => caller.abort(new TollgateError('CANCELLED', 'gone')))
    }
    expect(await failureOfCall({}, { signal: caller.signal })).toMatchObject({ reason: 'CANCELLED' })
    expect(await failureOfCall({}, { signal: caller.signal })).toMatchObject({ reason: 'CANCELLED' })
    expect(asked).toBe(1)
  })

  test('goes on without it where the service drains, so that its usage is known', async () => {
    const caller = new AbortController()
    answer = (_, response) => {
      caller.abort(new TollgateError('CANCELLED', 'gone'))
      setTimeout(() => response.end('used'), 30)
    }
    const drained = { ...service({}), onDisconnect: 'drain' } as const
    const call = testCall(undefined, { signal: caller.signal })
    expect(await dispatcher.dispatch(drained, text, call)).toMatchObject({ value: 'used' })
  })

  test.each([
    ['longer than the service drains', { drainLimitMs: 30 }, 'CANCELLED', 'CANCELLED'],
    ['beyond the drain window of the gate', { drainLimitMs: 60_000 }, 'SHUTTING_DOWN', 'SHUTTING_DOWN'],
  ] as const)('ends %s', async (_, limit, reason, expected) => {
    const caller = new AbortController()
    answer = () => caller.abort(new TollgateError(reason, 'gone'))
    const drained = { ...service({}), onDisconnect: 'drain', ...limit } as const
    const call = testCall(undefined, { signal: caller.signal })
    expect(await dispatcher.dispatch(drained, text, call)).toMatchObject({ error: { reason: expected } })
  })

  test('and that is drained ends when the gate does', async () => {
    const caller = new AbortController()
    answer = () => caller.abort(new TollgateError('CANCELLED', 'gone'))
    const call = testCall(undefined, { signal: caller.signal })
    const running = dispatcher.dispatch({ ...service({}), onDisconnect: 'drain' }, text, call)
    await eventually(() => caller.signal.aborted)
    await dispatcher.close()
    expect(await running).toMatchObject({ error: { reason: 'SHUTTING_DOWN' } })
  })
})

test('a call after the gate has closed its connections is told so, and reaches no backend', async () => {
  let reached = false
  answer = (_, response) => {
    reached = true
    response.end('late')
  }
  await dispatcher.close()
  expect(await failureOfCall()).toMatchObject({ reason: 'SHUTTING_DOWN' })
  expect(reached).toBe(false)
})
