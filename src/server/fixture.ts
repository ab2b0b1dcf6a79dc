import { create } from '@bufbuild/protobuf'
import { type Client, createClient, type Transport } from '@connectrpc/connect'
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from '@connectrpc/connect-node'
import { pino } from 'pino'
import { ConsumptionService, QuotaStatusSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { administrator, keyOf } from '../../test/support/invoke.ts'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { Caller } from '../identity/principal.ts'
import type { CallObserver } from './observe.ts'
import { type Asked, fixtureApi } from './openai/fixture-gate.ts'
import { register, type ServiceRegistration } from './rpc.ts'
import { type RunningServer, type ServerOptions, startServer } from './server.ts'

/**
 * A server for tests of this folder: the real one, on a free port, with an implementation of ConsumptionService that
 * does what `service_id` says; behind the OpenAI API the gate of openai/fixture-gate.ts.
 */
export async function startFixture(overrides: Partial<ServerOptions> = {}): Promise<Fixture> {
  const ended: Fixture['ended'] = []
  const lines: string[] = []
  const calls: Call[] = []
  const streams: Streams = { taken: 0, open: 0 }
  const asked: Asked = { requests: [], taken: 0, open: 0 }
  let held = Promise.withResolvers<void>()
  const observer: CallObserver = {
    start: () => {},
    end: (_call, { method, name }, { error }) =>
      ended.push({ rpc: method?.name ?? name, reason: error?.reason ?? 'OK' }),
  }
  const server = await startServer({
    host: '127.0.0.1',
    port: 0,
    services: [consumption(calls, () => held.promise, streams)],
    openai: fixtureApi(ownConsumer, asked, () => held.promise),
    pages: { '/health': async () => ({ status: 200, contentType: 'application/json', body: '{"status":"ok"}' }) },
    authenticate,
    rbac: true,
    organizationOf: () => undefined,
    denials: { record: async () => {} },
    corsOrigins: ['https://console.example'],
    maxMessageBytes: 4 * 1024 * 1024,
    defaultDeadlineMs: 30_000,
    maxDeadlineMs: 60_000,
    maxStreamsPerConnection: 1000,
    maxConnectionAgeMs: 600_000,
    headersTimeoutMs: 10_000,
    bodyTimeoutMs: 30_000,
    keepAliveMs: 30_000,
    drainMs: 10_000,
    log: pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) }),
    observer,
    newId: () => crypto.randomUUID(),
    ...overrides,
  })
  const release = (): void => {
    held.resolve()
    held = Promise.withResolvers()
  }
  return { server, calls, streams, asked, ended, lines, release, close: () => server.close() }
}

export interface Fixture {
  readonly server: RunningServer
  /** What the implementation was called with, in order. */
  readonly calls: readonly Call[]
  /** What became of the streams of StreamRequest. */
  readonly streams: Streams
  /** What the gate behind the OpenAI API was asked. */
  readonly asked: Asked
  /** What the observer was told, in order. */
  readonly ended: { readonly rpc: string; readonly reason: string }[]
  /** Log lines. */
  readonly lines: readonly string[]
  /** Lets the calls to the services "held" and "deaf" go on. */
  release(): void
  close(): Promise<void>
}

export const ownConsumer = '018f0000-0000-7000-8000-000000000001'

/** Keys that the fixture knows. */
export const keys = { own: 'tg_own', noRoles: 'tg_no_roles', admin: 'tg_admin' } as const

export const wires = {
  grpc: (baseUrl: string): Transport => createGrpcTransport({ baseUrl }),
  'grpc-web over HTTP/2': (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: '2' }),
  'grpc-web over HTTP/1.1': (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: '1.1' }),
  'Connect JSON over HTTP/1.1': (baseUrl) =>
    createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: false }),
  'Connect binary over HTTP/1.1': (baseUrl) =>
    createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: true }),
  'Connect JSON over HTTP/2': (baseUrl) => {
    // Node's client rejects an answer's headers while more than 10 MB of requests are queued, unless it may hold more.
    const sessionManager = new Http2SessionManager(baseUrl, {}, { maxSessionMemory: 64 })
    return createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: false, sessionManager })
  },
  'Connect binary over HTTP/2': (baseUrl) =>
    createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: true }),
} as const satisfies Record<string, (baseUrl: string) => Transport>

export type Wire = keyof typeof wires

export const wireNames: readonly Wire[] = [
  'grpc',
  'grpc-web over HTTP/2',
  'grpc-web over HTTP/1.1',
  'Connect JSON over HTTP/1.1',
  'Connect binary over HTTP/1.1',
  'Connect JSON over HTTP/2',
  'Connect binary over HTTP/2',
]

export function clientOf(fixture: Fixture, wire: Wire): Client<typeof ConsumptionService> {
  return createClient(ConsumptionService, wires[wire](fixture.server.address))
}

export function as(key: string): { headers: { authorization: string } } {
  return { headers: { authorization: `Bearer ${key}` } }
}

/** Waits until `check` holds, for at most 10 seconds. */
export async function until(check: () => boolean): Promise<void> {
  const giveUp = Date.now() + 10_000
  while (!check()) {
    if (Date.now() > giveUp) throw new Error(`never came true: ${check}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

async function authenticate(credential: string | undefined): Promise<Caller> {
  const key = keyOf({ id: ownConsumer, organizationId: 'o1' })
  switch (credential) {
    case keys.own:
      return key
    case keys.noRoles:
      return { ...key, roles: [] }
    case keys.admin:
      return administrator
    case undefined:
      throw new TollgateError('CREDENTIAL_MISSING', 'no credential')
    default:
      throw new TollgateError('CREDENTIAL_INVALID', 'the credential is not known')
  }
}

export function consumption(
  calls: Call[],
  held: () => Promise<void>,
  streams: Streams = { taken: 0, open: 0 },
): ServiceRegistration {
  return register(ConsumptionService, {
    async routeRequest({ serviceId, payload }, call) {
      calls.push(call)
      await act(serviceId, held)
      call.setResponseHeader('x-served', serviceId)
      return { requestId: call.id, responseData: payload }
    },
    async *streamRequest({ serviceId, payload }, call) {
      calls.push(call)
      streams.open++
      try {
        await act(serviceId, held)
        call.setResponseHeader('x-served', serviceId)
        if (serviceId === 'silent') return
        yield { part: { case: 'start', value: { requestId: call.id } } }
        if (serviceId.startsWith('late:')) await act(serviceId.slice('late:'.length), held)
        const parts = serviceId === 'flood' ? Number.POSITIVE_INFINITY : serviceId === 'many' ? 500 : 1
        for (let part = 0; part < parts; part++) {
          streams.taken++
          yield { part: { case: 'eventData', value: payload } }
        }
        yield { part: { case: 'end', value: { requestId: call.id } } }
      } finally {
        streams.open--
      }
    },
    async checkQuota({ serviceId }, call) {
      calls.push(call)
      return create(QuotaStatusSchema, { serviceId, limit: 100_000n, tier: 'basic' })
    },
  })
}

/** What became of the streams of the fixture. */
export interface Streams {
  /** Parts that were taken from all of them. */
  taken: number
  /** Those that are not over. */
  open: number
}

/** Does what the name of a service says. */
async function act(serviceId: string, held: () => Promise<void>): Promise<void> {
  switch (serviceId) {
    case 'held':
      return await held()
    case 'deaf':
      // Ignores its signal for as long as it likes.
      await held()
      throw new Error('too late for anybody')
    case 'crash':
      throw new Error('password of the database is hunter2')
    case 'limited':
      throw rateLimited()
    default:
      if (serviceId.startsWith('unknown')) {
        throw new TollgateError('SERVICE_NOT_FOUND', `no service "${serviceId} ${'é😀'.repeat(5000)}"`, {
          metadata: { service: 'x'.repeat(20_000) },
        })
      }
  }
}

/** A refusal with everything that a caller may be told of a limit. */
export function rateLimited(): TollgateError {
  return new TollgateError('RATE_LIMITED', 'too many requests', {
    retryAfterMs: 1500,
    metadata: { limit: 'requests_per_second' },
    limits: [
      {
        subject: 'consumer:c1',
        limit: 'requests_per_second',
        capacity: 20,
        remaining: 0,
        unit: 'requests',
        resetAtMs: Date.now() + 2000,
      },
    ],
  })
}
