import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health_pb.ts'
import { ServerReflection } from '../../gen/grpc/reflection/v1/reflection_pb.ts'
import { as, type Fixture, keys, startFixture, until } from './fixture.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
})

describe('health', () => {
  test('answers Check and List for the server and each service, without a credential', async () => {
    const client = createClient(Health, createGrpcTransport({ baseUrl: fixture.server.address }))
    expect((await client.check({})).status).toBe(Status.SERVING)
    expect((await client.check({ service: 'marketplace.v1.ConsumptionService' })).status).toBe(Status.SERVING)
    await expect(client.check({ service: 'nobody' })).rejects.toMatchObject({ code: Code.NotFound })
    expect(Object.keys((await client.list({})).statuses)).toContain('marketplace.v1.ConsumptionService')
  })

  test('Watch tells every change, and ends with its caller', async () => {
    const client = createClient(Health, createGrpcTransport({ baseUrl: fixture.server.address }))
    const leave = new AbortController()
    const seen: Status[] = []
    const watching = (async () => {
      for await (const { status } of client.watch({}, { signal: leave.signal })) seen.push(status)
    })().catch((error: unknown) => ConnectError.from(error).code)
    await until(() => seen.length === 1)
    fixture.server.setServing(false)
    await until(() => seen.length === 2)
    fixture.server.setServing(true)
    await until(() => seen.length === 3)
    expect(seen).toEqual([Status.SERVING, Status.NOT_SERVING, Status.SERVING])
    leave.abort()
    expect(await watching).toBe(Code.Canceled)
    await until(() => fixture.server.activeCalls() === 0)
  })
})

describe('reflection', () => {
  const curl = async (...args: string[]): Promise<string> => {
    const buf = fileURLToPath(new URL('../../node_modules/.bin/buf', import.meta.url))
    const options = ['curl', '--http2-prior-knowledge', '--protocol', 'grpc']
    return (await promisify(execFile)(buf, [...options, ...args])).stdout
  }

  test('buf curl lists the services and their methods', async () => {
    const services = await curl('--list-services', fixture.server.address)
    expect(services.split('\n')).toEqual(
      expect.arrayContaining([
        'grpc.health.v1.Health',
        'grpc.reflection.v1.ServerReflection',
        'grpc.reflection.v1alpha.ServerReflection',
        'marketplace.v1.ConsumptionService',
      ]),
    )
    const methods = await curl('--list-methods', fixture.server.address)
    expect(methods).toContain('marketplace.v1.ConsumptionService/RouteRequest')
  }, 60_000)

  test.each(['grpc-v1', 'grpc-v1alpha'])(
    'buf curl calls by %s',
    async (version) => {
      const answer = await curl(
        '--reflect-protocol',
        version,
        '--header',
        `authorization: Bearer ${keys.own}`,
        '--data',
        '{"service_id":"s"}',
        `${fixture.server.address}/marketplace.v1.ConsumptionService/CheckQuota`,
      )
      expect(JSON.parse(answer)).toMatchObject({ serviceId: 's', limit: '100000' })
    },
    60_000,
  )

  test('finds symbols, extensions and their numbers, and says what it does not know', async () => {
    const client = createClient(ServerReflection, createGrpcTransport({ baseUrl: fixture.server.address }))
    const ask = async (messageRequest: Parameters<typeof requestOf>[0]) => {
      for await (const answer of client.serverReflectionInfo(requestOf(messageRequest))) return answer.messageResponse
      return undefined
    }
    const methodOptions = 'google.protobuf.MethodOptions'
    const symbols = ['ConsumptionService.CheckQuota', 'CostComponent.Kind', 'QuotaStatus.tier', 'access']
    for (const name of symbols) {
      const found = await ask({ case: 'fileContainingSymbol', value: `marketplace.v1.${name}` })
      expect(found?.case, name).toBe('fileDescriptorResponse')
    }
    const extension = { containingType: methodOptions, extensionNumber: 50810 }
    expect((await ask({ case: 'fileContainingExtension', value: extension }))?.case).toBe('fileDescriptorResponse')
    expect(await ask({ case: 'allExtensionNumbersOfType', value: methodOptions })).toMatchObject({
      value: { extensionNumber: expect.arrayContaining([50810]) },
    })
    expect(await ask({ case: 'fileByFilename', value: 'none.proto' })).toMatchObject({ value: { errorCode: 5 } })
  })
})

type Ask =
  | { case: 'fileByFilename' | 'fileContainingSymbol' | 'allExtensionNumbersOfType'; value: string }
  | { case: 'fileContainingExtension'; value: { containingType: string; extensionNumber: number } }

async function* requestOf(messageRequest: Ask) {
  yield { messageRequest }
}

describe('unknown RPCs', () => {
  const path = '/marketplace.v1.ConsumptionService/Nope'

  test('gRPC callers see UNIMPLEMENTED, with status 12 in the trailers', async () => {
    const client = new Client(`${fixture.server.host}:${fixture.server.port}`, credentials.createInsecure())
    const bytes = (value: Buffer): Buffer => value
    const error = await new Promise((resolve) =>
      client.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), new Metadata(), resolve),
    )
    expect(error).toMatchObject({ code: 12, details: 'this RPC does not exist here' })
    client.close()
  })

  test('Connect callers see unimplemented as JSON', async () => {
    const response = await fetch(fixture.server.address + path, { method: 'POST', body: '{}' })
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({ code: 'unimplemented' })
  })
})

test('grpc-js calls and sees errors', async () => {
  const client = new Client(`${fixture.server.host}:${fixture.server.port}`, credentials.createInsecure())
  const bytes = (value: Buffer): Buffer => value
  const metadata = new Metadata()
  metadata.set('authorization', `Bearer ${keys.own}`)
  const call = (message: Buffer) =>
    new Promise((resolve) =>
      client.makeUnaryRequest(
        '/marketplace.v1.ConsumptionService/CheckQuota',
        bytes,
        bytes,
        message,
        metadata,
        (error, answer) => resolve(error ?? answer),
      ),
    )
  // Field 2, "s".
  expect(Buffer.isBuffer(await call(Buffer.from([0x12, 1, 0x73])))).toBe(true)
  expect(await call(Buffer.alloc(0))).toMatchObject({ code: 3 })
  const many = await Promise.all(Array.from({ length: 200 }, () => call(Buffer.from([0x12, 1, 0x73]))))
  expect(many.every(Buffer.isBuffer)).toBe(true)
  client.close()
})

describe('CORS', () => {
  const url = (): string => `${fixture.server.address}/marketplace.v1.ConsumptionService/CheckQuota`
  const preflight = (origin: string): Promise<Response> =>
    fetch(url(), {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'x-grpc-web' },
    })

  test('a configured origin may call and read what the protocols need', async () => {
    const allowed = await preflight('https://console.example')
    expect(allowed.status).toBe(204)
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://console.example')
    for (const name of ['x-grpc-web', 'connect-protocol-version', 'authorization', 'x-api-key', 'grpc-timeout']) {
      expect(allowed.headers.get('access-control-allow-headers')?.toLowerCase()).toContain(name)
    }
    const answer = await fetch(url(), {
      method: 'POST',
      headers: { origin: 'https://console.example', 'content-type': 'application/json', ...as(keys.own).headers },
      body: '{"serviceId":"s"}',
    })
    expect(answer.headers.get('access-control-allow-origin')).toBe('https://console.example')
    for (const name of ['grpc-status', 'grpc-message', 'grpc-status-details-bin', 'x-request-id', 'retry-after']) {
      expect(answer.headers.get('access-control-expose-headers')?.toLowerCase()).toContain(name)
    }
  })

  test('another origin gets no CORS headers, and its preflight 403', async () => {
    const refused = await preflight('https://elsewhere.example')
    expect(refused.status).toBe(403)
    expect(refused.headers.get('access-control-allow-origin')).toBeNull()
  })
})

describe('pages', () => {
  test('answers what it was given, over both HTTP versions', async () => {
    const response = await fetch(`${fixture.server.address}/health`)
    expect([response.status, await response.text()]).toEqual([200, '{"status":"ok"}'])
  })

  test('answers 404 as JSON for other paths, 405 for other methods', async () => {
    const missing = await fetch(`${fixture.server.address}/nothing`)
    expect([missing.status, await missing.json()]).toMatchObject([404, { code: 'not_found' }])
    expect((await fetch(`${fixture.server.address}/health`, { method: 'PUT', body: 'x' })).status).toBe(405)
  })
})
