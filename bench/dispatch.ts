/**
 * What the way to a backend costs: `node bench/dispatch.ts`, under a minute. Microseconds of CPU of one thread a call, 64
 * calls at once, the ways in turn: the connections to a backend that answers 1 KiB at once, beside those of undici, and the
 * dispatcher on top of them; then the dispatcher alone, above connections that answer at once.
 */
import { Agent, Pool } from 'undici'
import type { Call } from '../src/call.ts'
import { createProvider } from '../src/providers/providers.ts'
import type { EndpointRecord, ServiceRecord } from '../src/registry/records.ts'
import { createCredentials } from '../src/routing/credentials.ts'
import { createDispatcher, type StreamTask, type UnaryTask } from '../src/routing/dispatcher.ts'
import { Http1Transport } from '../src/routing/http1-transport.ts'
import type { TransportController, TransportHandler, TransportRequest } from '../src/routing/transport.ts'
import { testCall } from '../test/support/invoke.ts'
import { endpointRecord, serviceRecord } from '../test/support/registry-records.ts'
import { streamEvents, unaryAnswer } from './backend-answers.ts'
import { startChild, stopChildren, urlOf } from './children.ts'
import { median } from './report.ts'

type Way = () => Promise<unknown>

const callers = 64
const connections = 100
const rounds = 25
const roundMs = 100

const { origin } = new URL(urlOf(await startChild('backend.ts', [], 1)))
const path = '/v1/chat/completions'
const provider = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 64 })
const endless: Call = { ...testCall(), deadlineMs: Date.now() + 3_600_000, onEnd() {}, offEnd() {} }

const request = read('unary')
const asStream = read('stream')
const target = { url: origin + path, model: '', credential: 'secret' }
const { body, headers } = provider.prepare(request, target)
const posted = { path, method: 'POST', body, headers: { ...headers } } as const

const unary: UnaryTask<Uint8Array> = {
  attemptId: String,
  prepare: ({ url }, credential) => provider.prepare(request, { ...target, url, credential }),
  read: (answer) => answer,
}
const stream: StreamTask = {
  attemptId: String,
  prepare: ({ url }, credential) => provider.prepare(asStream, { ...target, url, credential }),
  openReader: () => provider.openStream(asStream),
}

const dispatcher = createDispatcher({
  connectionsPerHost: connections,
  connectTimeoutMs: 2_000,
  maxResponseBytes: 1_048_576,
  breaker: { failures: 5, windowMs: 10_000, resetMs: 10_000 },
  credentials: createCredentials({ KEY: 'secret' }, Date.now),
  now: Date.now,
  observer: { breakerChanged() {}, attempted() {}, credentialRefused() {} },
})

const whole = unaryAnswer(1_024)
const { opening, words, closing } = streamEvents(50)
const chunks = [...opening, ...words, ...closing].map((event) => Buffer.from(event))
const controller: TransportController = { abort() {}, pause() {}, resume() {} }

const options = { connections, headersTimeout: 0, bodyTimeout: 0 }
const transport = new Http1Transport({ origin, connectTimeoutMs: 2_000, maxConnections: connections })
const pool = new Pool(origin, options)
const agent = new Agent(options)
await measure('a backend that answers at once', {
  'connections of the gate': () => wholeBody((handler) => transport.dispatch(posted, handler)),
  'undici Pool': () => wholeBody((handler) => pool.dispatch(posted, handler)),
  'undici Agent': () => wholeBody((handler) => agent.dispatch({ ...posted, origin }, handler)),
  dispatcher: () => dispatchTo(service()),
})

Http1Transport.prototype.dispatch = answerWithoutConnection
const deadlines = { headersTimeoutMs: 60_000, firstTokenTimeoutMs: 60_000, idleTimeoutMs: 30_000, timeoutMs: 50_000 }
await measure('the dispatcher alone', {
  'whole answer': () => dispatchTo(service()),
  'with all deadlines set': () => dispatchTo(service(deadlines)),
  'with on_disconnect DRAIN': () => dispatchTo(service({}, { onDisconnect: 'drain' })),
  'stream of 54 chunks, each read apart': () => readStream(service()),
})
await stopChildren()
process.exit(0)

async function measure(title: string, ways: Readonly<Record<string, Way>>): Promise<void> {
  const seen = new Map<string, number[]>(Object.keys(ways).map((name) => [name, []]))
  for (const way of Object.values(ways)) await round(way, 1_000)
  for (let n = 0; n < rounds; n += 1) {
    for (const [name, way] of Object.entries(ways)) seen.get(name)?.push(await round(way, roundMs))
  }
  console.log(`\n| ${title} | median µs | least µs |\n|---|---:|---:|`)
  for (const [name, costs] of seen) {
    console.log(`| ${name} | ${median(costs).toFixed(1)} | ${Math.min(...costs).toFixed(1)} |`)
  }
}

/** CPU µs a call. */
async function round(way: Way, ms: number): Promise<number> {
  const until = performance.now() + ms
  const before = process.cpuUsage()
  let calls = 0
  const caller = async (): Promise<void> => {
    for (; performance.now() < until; calls += 1) await way()
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const { user, system } = process.cpuUsage(before)
  return (user + system) / calls
}

function read(mode: 'unary' | 'stream') {
  const messages = [{ role: 'user', content: 'How many calls pass a gate that counts every one of them? '.repeat(4) }]
  const json = JSON.stringify({ model: 'bench', messages, ...(mode === 'stream' ? { stream: true } : {}) })
  return provider.readRequest({ payload: Buffer.from(json), mode, dialect: 'native', startMs: 0 })
}

function service(endpoint: Partial<EndpointRecord> = {}, changes: Partial<ServiceRecord> = {}): ServiceRecord {
  const record = endpointRecord({ url: origin + path, credentialRef: 'env:KEY', ...endpoint })
  return serviceRecord({ endpoints: [record], ...changes })
}

async function dispatchTo(to: ServiceRecord): Promise<void> {
  const dispatched = await dispatcher.dispatch(to, unary, endless)
  if ('error' in dispatched) throw dispatched.error
}

async function readStream(from: ServiceRecord): Promise<void> {
  const opened = await dispatcher.open(from, stream, endless)
  if ('error' in opened) throw opened.error
  for await (const pieces of opened.value.pieces) void pieces
  const end = await opened.value.end
  if (end.verdict !== 'complete') throw end.error
}

function answerWithoutConnection(sent: TransportRequest, handler: TransportHandler): void {
  const isStream = sent.body.length === asStream.body.length
  const [first, ...rest] = isStream ? chunks : [whole]
  const end = (): void => handler.onResponseEnd(controller, {})
  const next = (): void => {
    const chunk = rest.shift()
    if (chunk === undefined) {
      end()
      return
    }
    handler.onResponseData(controller, chunk)
    setImmediate(next)
  }
  queueMicrotask(() => {
    handler.onRequestStart(controller)
    handler.onResponseStart(controller, 200, {})
    handler.onResponseData(controller, first ?? whole)
    if (isStream) setImmediate(next)
    else end()
  })
}

function wholeBody(begin: (handler: TransportHandler) => void): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  let answer: Buffer = whole
  begin({
    onRequestStart() {},
    onResponseStart() {},
    onResponseData(_, chunk) {
      answer = chunk
    },
    onResponseEnd: () => resolve(answer),
    onResponseError: (_, error) => reject(error),
  })
  return promise
}
