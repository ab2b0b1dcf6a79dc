import { createServer, type Server } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import { type AddressInfo, createServer as createSilentServer, type Socket } from 'node:net'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Health } from '../../gen/grpc/health/v1/health_pb.ts'
import type { HealthCheck, Probe } from '../registry/health-check.ts'
import { probeEndpoint } from './probe-endpoint.ts'

const asked: string[] = []
let http: Server
const grpc = createHttp2Server(
  connectNodeAdapter({
    routes: (router) => {
      router.service(Health, { check: ({ service }) => ({ status: service === 'sick' ? 2 : 1 }) })
    },
  }),
)
const sockets: Socket[] = []
const silent = createSilentServer((socket) => {
  sockets.push(socket.on('error', () => {}))
})

beforeAll(async () => {
  http = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers.authorization ?? 'no credential'}`)
    const status = Number(/\d+/.exec(request.url ?? '')?.[0] ?? 200)
    response.writeHead(status, status === 302 ? { location: '/200' } : {}).end('x'.repeat(200_000))
  })
  for (const server of [http, grpc, silent]) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  }
})
afterAll(async () => {
  for (const socket of sockets) socket.destroy()
  for (const server of [http, grpc, silent]) await new Promise((resolve) => server.close(resolve))
})

const urlOf = (server: { address(): string | AddressInfo | null }) => {
  const address = server.address()
  return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/v1/chat`
}

function probe(server: Parameters<typeof urlOf>[0], what: Probe, timeoutMs = 5_000): Promise<string | undefined> {
  const check: HealthCheck = { probe: what, intervalMs: 1_000, timeoutMs, healthyThreshold: 1, unhealthyThreshold: 1 }
  return probeEndpoint(urlOf(server), check, new AbortController().signal)
}

describe('over HTTP', () => {
  test.each([
    ['/200?deep=1', undefined],
    ['/204', undefined],
    ['/302', 'status 302'],
    ['/404', 'status 404'],
    ['/503', 'status 503'],
  ])('%s: %s', async (path, failure) => {
    expect(await probe(http, { kind: 'http', path })).toBe(failure)
    expect(asked.at(-1)).toBe(`GET ${path} no credential`)
  })
})

describe('over gRPC', () => {
  test.each([
    ['', undefined],
    ['sick', 'it is not serving'],
  ])('service "%s": %s', async (service, failure) => {
    expect(await probe(grpc, { kind: 'grpc', service })).toBe(failure)
  })
})

test('who does not answer in time is not well', async () => {
  expect(await probe(silent, { kind: 'http', path: '/' }, 50)).toBe('no answer within 50 ms')
  expect(await probe(silent, { kind: 'grpc', service: '' }, 50)).toBe('no answer within 50 ms')
})

test('who is not there is not well', async () => {
  const gone = createServer()
  await new Promise<void>((resolve) => gone.listen(0, '127.0.0.1', () => resolve()))
  const address = urlOf(gone)
  await new Promise((resolve) => gone.close(resolve))
  const check = { intervalMs: 1_000, timeoutMs: 5_000, healthyThreshold: 1, unhealthyThreshold: 1 }
  const signal = new AbortController().signal
  expect(await probeEndpoint(address, { ...check, probe: { kind: 'http', path: '/' } }, signal)).toBe('ECONNREFUSED')
  expect(await probeEndpoint(address, { ...check, probe: { kind: 'grpc', service: '' } }, signal)).toMatch(
    /^gRPC status/,
  )
})
