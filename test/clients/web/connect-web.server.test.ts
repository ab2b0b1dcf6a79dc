import { Code, ConnectError, createClient, type Interceptor, type Transport } from '@connectrpc/connect'
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ErrorInfoSchema } from '../../../gen/google/rpc/error_details_pb.ts'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../../gen/grpc/health/v1/health_pb.ts'
import { ConsumptionService } from '../../../gen/marketplace/v1/consumption_pb.ts'
import { UsageService } from '../../../gen/marketplace/v1/usage_pb.ts'
import { readPracticeLog } from '../../../src/practice/log.ts'
import { chat } from '../../support/payloads.ts'
import { demoFacts, startTollgate, type Tollgate } from '../../support/tollgate.ts'
import { browserFetch, type Fetch } from './browser-fetch.ts'

const allowed = 'https://console.example'
const second = 'http://127.0.0.1:4999'
/** Differ from an allowed origin in one part each. */
const others = ['https://evil.example', 'http://console.example', 'https://console.example:8443', 'null']

let tollgate: Tollgate
let facts: Record<string, string>

beforeAll(async () => {
  tollgate = await startTollgate({ command: 'dev', env: { CORS_ORIGINS: `${allowed},${second}` } })
  facts = await demoFacts(tollgate)
})

afterAll(async () => {
  await tollgate?.stop()
})

const wires: Readonly<Record<string, (origin: string) => Transport>> = {
  'Connect JSON': (origin) => createConnectTransport({ ...optionsOf(origin), useBinaryFormat: false }),
  'Connect binary': (origin) => createConnectTransport({ ...optionsOf(origin), useBinaryFormat: true }),
  'Connect with GET': (origin) => createConnectTransport({ ...optionsOf(origin), useHttpGet: true }),
  'gRPC-Web binary': (origin) => createGrpcWebTransport({ ...optionsOf(origin), useBinaryFormat: true }),
  'gRPC-Web JSON': (origin) => createGrpcWebTransport({ ...optionsOf(origin), useBinaryFormat: false }),
}

describe.each(Object.entries(wires))('connect-web over %s', (_wire, transportAt) => {
  test.each([allowed, second])('calls from the allowed origin %s', async (origin) => {
    const gate = createClient(ConsumptionService, transportAt(origin))
    let requestId: string | null = null
    const answer = await gate.routeRequest(
      { serviceId: facts.serviceId ?? '', payload: chat('hello') },
      {
        onHeader: (headers) => {
          requestId = headers.get('x-request-id')
        },
        timeoutMs: 20_000,
      },
    )
    expect(answer.usage?.totalTokens).toBeGreaterThan(0n)
    expect(requestId).toBe(answer.requestId)
    expect(await gate.checkQuota({ serviceId: facts.serviceId ?? '' })).toMatchObject({ tier: 'enterprise' })
    const usage = createClient(UsageService, transportAt(origin))
    expect((await usage.listUsageRecords({ pageSize: 1 })).usageRecords.length).toBeLessThanOrEqual(1)
  })

  test('reads errors with their details, and streams', async () => {
    const gate = createClient(ConsumptionService, transportAt(allowed))
    const error = await failure(gate.checkQuota({ serviceId: 'none' }))
    expect(error.code).toBe(Code.NotFound)
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: 'SERVICE_NOT_FOUND', domain: 'tollgate' }])
    const leave = new AbortController()
    const health = createClient(Health, transportAt(allowed))
    for await (const { status } of health.watch({}, { signal: leave.signal })) {
      expect(status).toBe(Status.SERVING)
      break
    }
    leave.abort()
  })

  test.each(others)('is refused from the origin %s, before the call', async (origin) => {
    const served = practiceCalls()
    const gate = createClient(ConsumptionService, transportAt(origin))
    const error = await failure(gate.routeRequest({ serviceId: facts.serviceId ?? '', payload: chat('hello') }))
    expect(error.rawMessage).toContain('the preflight was answered with 403')
    expect(practiceCalls()).toBe(served)
  })
})

describe('the raw answers', () => {
  const rpc = '/marketplace.v1.ConsumptionService/RouteRequest'

  test.each([
    ['connect', 'authorization,connect-protocol-version,connect-timeout-ms,content-type'],
    ['gRPC-Web', 'authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent'],
  ])('allow the preflight of %s from an allowed origin, with no credentials', async (_wire, headers) => {
    const answer = await ask(allowed, 'OPTIONS', rpc, headers)
    expect(answer.status).toBe(204)
    expect(answer.headers.get('access-control-allow-origin')).toBe(allowed)
    expect(answer.headers.get('access-control-allow-methods')).toMatch(/\bPOST\b/)
    const allowedHeaders = answer.headers.get('access-control-allow-headers')?.toLowerCase().split(', ')
    expect(allowedHeaders).toEqual(expect.arrayContaining(headers.split(',')))
    expect(answer.headers.get('access-control-allow-credentials')).toBeNull()
    expect(answer.headers.get('vary')?.toLowerCase()).toContain('origin')
  })

  test.each(others)('refuse the preflight from %s and allow it nothing', async (origin) => {
    const answer = await ask(origin, 'OPTIONS', rpc, 'authorization,content-type')
    expect(answer.status).toBe(403)
    expect([...answer.headers.keys()].filter((name) => name.startsWith('access-control-'))).toEqual([])
    expect(answer.headers.get('vary')?.toLowerCase()).toContain('origin')
  })

  test('take no call that a page may send without a preflight', async () => {
    const served = practiceCalls()
    const body = JSON.stringify({ serviceId: facts.serviceId, payload: Buffer.from(chat('hello')).toString('base64') })
    const answer = await fetch(`${tollgate.address}${rpc}`, {
      method: 'POST',
      headers: { origin: 'https://evil.example', 'content-type': 'text/plain', 'x-api-key': facts.key ?? '' },
      body,
    })
    expect(answer.status).toBe(415)
    expect(answer.headers.get('access-control-allow-origin')).toBeNull()
    await answer.arrayBuffer()
    expect(practiceCalls()).toBe(served)
  })
})

function optionsOf(origin: string): { baseUrl: string; fetch: Fetch; interceptors: Interceptor[] } {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set('authorization', `Bearer ${facts.key}`)
    return next(request)
  }
  return { baseUrl: tollgate.address, fetch: browserFetch(origin), interceptors: [authorize] }
}

async function ask(origin: string, method: string, path: string, headers: string): Promise<Response> {
  const response = await fetch(`${tollgate.address}${path}`, {
    method,
    headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': headers },
  })
  await response.arrayBuffer()
  return response
}

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(
    () => expect.unreachable('the call got through'),
    (error: unknown) => ConnectError.from(error),
  )
}

function practiceCalls(): number {
  return readPracticeLog(`${tollgate.dataDir}/backend.jsonl`).length
}
