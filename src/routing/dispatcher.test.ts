import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { testCall } from '../../test/support/invoke.ts'
import { endpointRecord } from '../../test/support/registry-records.ts'
import { TollgateError } from '../errors.ts'
import type { EndpointRecord } from '../registry/records.ts'
import { createCredentials } from './credentials.ts'
import { createDispatcher, type Dispatcher } from './dispatcher.ts'

let backend: Server
let answer: (request: IncomingMessage, response: ServerResponse) => void
let dispatcher: Dispatcher

const payload = new TextEncoder().encode('{"a":1}')
const attempt = { id: 'attempt-1', serviceId: 'service-1', payload, read: (answer: Uint8Array) => answer }

beforeEach(async () => {
  backend = createServer((request, response) => answer(request, response))
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  dispatcher = createDispatcher({
    connectionsPerHost: 4,
    connectTimeoutMs: 1_000,
    maxResponseBytes: 1_024,
    breaker: { failures: 5, windowMs: 10_000, resetMs: 10_000 },
    credentials: createCredentials({ BACKEND_KEY: 'very-secret' }, Date.now),
    now: Date.now,
    onBreakerChange: () => {},
  })
})

afterEach(async () => {
  await dispatcher.close()
  backend.closeAllConnections()
  await new Promise((resolve) => backend.close(resolve))
})

function endpoint(changes: Partial<EndpointRecord> = {}): EndpointRecord {
  const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1/chat?x=1`
  return endpointRecord({ url, ...changes })
}

async function failureOf(changes: Partial<EndpointRecord> = {}, signal?: AbortSignal): Promise<TollgateError> {
  const call = testCall(undefined, signal === undefined ? {} : { signal })
  try {
    await dispatcher.dispatch(endpoint(changes), attempt, call)
  } catch (error) {
    if (error instanceof TollgateError) return error
    throw error
  }
  throw new Error('the dispatch succeeded')
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
    const bytes = await dispatcher.dispatch(endpoint({ credentialRef: 'env:BACKEND_KEY' }), attempt, call)
    expect(new TextDecoder().decode(bytes)).toBe('{"b":2}')
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
    [500, 'BACKEND_FAILED'],
    [503, 'BACKEND_FAILED'],
    [429, 'BACKEND_FAILED'],
    [408, 'BACKEND_FAILED'],
    [302, 'BACKEND_FAILED'],
    [400, 'BACKEND_REJECTED'],
    [422, 'BACKEND_REJECTED'],
    [401, 'BACKEND_CREDENTIAL_REFUSED'],
    [403, 'BACKEND_CREDENTIAL_REFUSED'],
  ])('status %i is %s, without its text', async (status, reason) => {
    answer = (request, response) => {
      request.resume()
      response.writeHead(status, { 'retry-after': '7', location: '/elsewhere' }).end('its own text')
    }
    const error = await failureOf()
    expect(error).toMatchObject({ reason, metadata: { backendStatus: String(status) } })
    expect(error.message).not.toContain('its own text')
    if (reason === 'BACKEND_FAILED') expect(error.retryAfterMs).toBe(7_000)
  })

  test('an answer that is too large', async () => {
    answer = (_, response) => response.end(Buffer.alloc(4_096))
    expect(await failureOf()).toMatchObject({ reason: 'BACKEND_ANSWER_TOO_LARGE' })
  })

  test('a connection that breaks before the answer, and in it', async () => {
    answer = (request) => request.socket.destroy()
    expect(await failureOf()).toMatchObject({ reason: 'BACKEND_FAILED' })
    answer = (request, response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('{', () => request.socket.destroy())
    }
    expect(await failureOf()).toMatchObject({ reason: 'BACKEND_FAILED' })
  })

  test('nobody listens', async () => {
    expect(await failureOf({ url: 'http://127.0.0.1:1/' })).toMatchObject({ reason: 'BACKEND_UNREACHABLE' })
  })

  test("the endpoint's own timeout", async () => {
    answer = () => {}
    expect(await failureOf({ timeoutMs: 50 })).toMatchObject({ reason: 'BACKEND_FAILED' })
  })

  test('a credential that is not there, named by its reference', async () => {
    answer = (_, response) => response.end('{}')
    for (const credentialRef of ['env:NOT_THERE', 'file:/nowhere/at/all']) {
      expect(await failureOf({ credentialRef })).toMatchObject({
        reason: 'BACKEND_CREDENTIAL_REFUSED',
        metadata: { credentialRef },
      })
    }
  })
})

test('answers that cannot be read open the breaker as failures do', async () => {
  answer = (_, response) => response.end('<html></html>')
  const read = (): never => {
    throw new TollgateError('BACKEND_ANSWER_INVALID', 'no JSON')
  }
  const reasons: unknown[] = []
  for (let i = 0; i < 6; i += 1) {
    await dispatcher.dispatch(endpoint(), { ...attempt, read }, testCall()).catch((error: TollgateError) => {
      reasons.push(error.reason)
    })
  }
  expect(reasons).toEqual([...Array(5).fill('BACKEND_ANSWER_INVALID'), 'BREAKER_OPEN'])
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
      expect(await failureOf({}, caller.signal)).toMatchObject({ reason: 'DEADLINE_EXCEEDED' })
    }
    await closed
    expect(dispatcher.breakers()).toEqual([{ serviceId: 'service-1', endpointId: 'endpoint-1', state: 'closed' }])
  })
})
