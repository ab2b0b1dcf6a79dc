/**
 * What a call costs between its headers and its answer: `node bench/call.ts`, about ten seconds. The middleware, the gate and the
 * dispatcher with all that they govern, 64 calls at once, without what is around them: exchanges, the store of limits and the
 * backend's connections are stand-ins that answer at once or in the next turn. Microseconds of CPU a call of this thread, least
 * and median of rounds. Put a round of another checkout between two of this one before you believe a difference.
 */
import { Readable } from 'node:stream'
import { create, toBinary } from '@bufbuild/protobuf'
import pino from 'pino'
import { ConsumptionService, RouteRequestRequestSchema } from '../gen/marketplace/v1/consumption_pb.ts'
import { PolicySpecSchema } from '../gen/marketplace/v1/policy_pb.ts'
import { createConsumptionService } from '../src/consumption/consumption-service.ts'
import { createGate } from '../src/consumption/gate.ts'
import { createResponseCache } from '../src/consumption/response-cache.ts'
import { createAuthenticator } from '../src/identity/authenticator.ts'
import { generateKey, parseKey, secretTag } from '../src/identity/key-format.ts'
import { createKeyVerifier, type KeyRecord } from '../src/identity/key-verifier.ts'
import { newId } from '../src/ids.ts'
import type { Limits } from '../src/limits/limits.ts'
import { createLocalJudge, defaultLimits } from '../src/policy/judge.ts'
import { createPolicyEngine } from '../src/policy/policy-engine.ts'
import { buildSnapshot } from '../src/registry/snapshot.ts'
import { createCredentials } from '../src/routing/credentials.ts'
import { createDispatcher } from '../src/routing/dispatcher.ts'
import { Http1Transport } from '../src/routing/http1-transport.ts'
import type { TransportController, TransportHandler, TransportRequest } from '../src/routing/transport.ts'
import { authenticateCalls } from '../src/server/authenticate.ts'
import { authorizeCalls, confineCalls } from '../src/server/authorize.ts'
import { createCors } from '../src/server/cors.ts'
import { limitDeadlines } from '../src/server/deadline.ts'
import { createDispatcher as createServerDispatcher } from '../src/server/dispatch.ts'
import type { Exchange, Trailers } from '../src/server/exchange.ts'
import { createChain } from '../src/server/middleware.ts'
import { observeCalls } from '../src/server/observe.ts'
import { createOpenAiApi } from '../src/server/openai/openai-api.ts'
import { createPeerAddress } from '../src/server/peer-address.ts'
import { envelope } from '../src/server/plain-formats.ts'
import { createPlainRpcs } from '../src/server/plain-rpcs.ts'
import { slowBodies } from '../src/server/read-whole.ts'
import { describeRpcs, register } from '../src/server/rpc.ts'
import type { IncomingHeaders } from '../src/server/server-call.ts'
import { traceCalls } from '../src/server/trace.ts'
import { validateMessages } from '../src/server/validate.ts'
import { createCallMetrics } from '../src/telemetry/call-metrics.ts'
import { createMetrics } from '../src/telemetry/metrics.ts'
import { consumerRecord, endpointRecord, serviceRecord } from '../test/support/registry-records.ts'
import { unaryAnswer } from './backend-answers.ts'
import { median } from './report.ts'

const callers = 64
const rounds = 15
const callsARound = 8_000
const runInCalls = 30_000

const log = pino({ level: 'silent' })
const { key } = generateKey()
const keyId = parseKey(key)?.keyId ?? ''
const rates = {
  inputNanosPerMillion: 2_500_000_000,
  cachedInputNanosPerMillion: 2_500_000_000,
  cacheWriteInputNanosPerMillion: 2_500_000_000,
  outputNanosPerMillion: 10_000_000_000,
  reasoningOutputNanosPerMillion: 10_000_000_000,
}
const price = {
  version: newId(),
  currency: 'USD',
  effectiveFromMs: 0,
  model: { kind: 'per_token', ...rates, tiers: [] },
} as const
const consumer = consumerRecord({
  id: newId(),
  organizationId: newId(),
  tier: 'enterprise',
  grantedServices: new Set(['*']),
})
const service = serviceRecord({
  id: newId(),
  name: 'bench',
  endpoints: [endpointRecord({ id: newId(), url: 'http://127.0.0.1:9/v1/chat/completions' })],
  prices: [price],
})
/** With the two of every consumer, six limits. */
const limitRules = (
  [
    ['key', keyId, 'requests_per_minute', undefined],
    ['consumer', consumer.id, 'concurrent_requests', undefined],
    ['organization', consumer.organizationId, 'requests_per_minute', undefined],
    ['organization', consumer.organizationId, 'cost_per_month', 'USD'],
  ] as const
).map(([scope, subjectId, name, currency]) => ({
  scope,
  subjectId,
  name,
  currency,
  serviceId: undefined,
  amount: 1_000_000,
  burst: undefined,
}))
const snapshot = buildSnapshot({
  version: 1,
  nowMs: Date.now(),
  services: [service],
  consumers: [consumer],
  limitRules,
})
const snapshots = { current: () => snapshot }

/** As in `bench/governance.ts`. */
const policies = [
  { access: { allowIf: '!("banned" in request.metadata)' } },
  { cost: { maxInputTokens: 1_000_000n, maxOutputTokens: 100_000n } },
].map(({ access, cost }, index) => ({
  id: `policy-${index}`,
  name: `policy-${index}`,
  version: 1,
  mode: 'enforce' as const,
  spec: create(PolicySpecSchema, {
    rule: access === undefined ? { case: 'cost', value: cost ?? {} } : { case: 'access', value: access },
  }),
}))
const judge = createLocalJudge({ policies: () => policies, failMode: 'closed', limits: defaultLimits })
const policy = createPolicyEngine(judge, Date.now)

const settled = { crossed: [] }
const notAsked = () => Promise.reject(new Error('nothing here asks for this'))
const limits: Limits = {
  admit: async ({ costs }) => ({
    outcome: 'admitted',
    limits: costs.map(() => ({ remaining: 1_000, resetAtMs: Date.now() + 1_000 })),
  }),
  settle: () => new Promise((resolve) => setImmediate(resolve, settled)),
  correct: notAsked,
  read: notAsked,
  usageLog: { read: notAsked, backlog: notAsked, sweep: notAsked },
  health: notAsked,
  close: notAsked,
}

const answer = unaryAnswer(1_024)
const controller: TransportController = { abort() {}, pause() {}, resume() {} }
Http1Transport.prototype.dispatch = (_sent: TransportRequest, handler: TransportHandler): void => {
  handler.onRequestStart(controller)
  setImmediate(() => {
    handler.onResponseStart(controller, 200, {})
    handler.onResponseData(controller, answer)
    handler.onResponseEnd(controller, {})
  })
}
const dispatcher = createDispatcher({
  connectionsPerHost: callers,
  connectTimeoutMs: 2_000,
  maxResponseBytes: 1_048_576,
  breaker: { failures: 5, windowMs: 10_000, resetMs: 10_000 },
  credentials: createCredentials({}, Date.now),
  now: Date.now,
  observer: { breakerChanged() {}, attempted() {}, credentialRefused() {} },
})

const metrics = createCallMetrics(createMetrics())
const gate = createGate({
  snapshots,
  policy,
  limits,
  cache: createResponseCache(0, Date.now),
  dispatcher,
  openCalls: { follow: () => () => {} },
  rateLimiting: true,
  observer: {
    refused: ({ error }) => console.error(error),
    recorded: metrics.gate.recorded,
    thresholdPassed() {},
    cacheAsked() {},
    policyDecided() {},
  },
  log,
  now: Date.now,
  newId,
})

const known: KeyRecord = {
  id: keyId,
  consumerId: consumer.id,
  organizationId: consumer.organizationId,
  consumerStatus: 'active',
  secretHash: '',
  secretTag: secretTag(key),
  expiresAtMs: undefined,
  revokedAtMs: undefined,
  scopes: undefined,
  tier: undefined,
}
const verifier = createKeyVerifier({
  loadKey: async () => known,
  hasher: { verify: async () => true },
  clock: Date.now,
})
const chain = createChain([
  traceCalls(),
  observeCalls(metrics.rpcs, log),
  limitDeadlines({ defaultDeadlineMs: 30_000, maxDeadlineMs: 60_000, longLivedMs: 600_000 }),
  authenticateCalls({ authenticate: createAuthenticator({ verifier }), rbac: true }),
  authorizeCalls(),
  confineCalls(() => undefined),
  validateMessages(new Set([RouteRequestRequestSchema])),
])
const reading = { maxMessageBytes: 4_194_304, slowBodies: slowBodies(30_000) }
const openai = createOpenAiApi({ ...reading, gate, snapshots, policy, chain, log })
const registrations = [
  register(
    ConsumptionService,
    createConsumptionService({ gate, snapshots, limits, keyOwner: notAsked, rateLimiting: true, now: Date.now, newId }),
  ),
]
const plain = createPlainRpcs({
  ...reading,
  registrations,
  rpcs: describeRpcs(registrations),
  chain,
  log,
  writeMaxBytes: 67_108_864,
  askRouter: notAsked,
})
const server = createServerDispatcher({
  rpcs: [plain],
  chain,
  cors: createCors([]),
  operations: openai.find,
  pages: async () => {},
  peerAddressOf: createPeerAddress([]),
  newId,
  failed: () => undefined,
  log,
})

/** A request that is there as a whole, and an answer that is gone at once. */
class StandIn implements Exchange {
  readonly httpVersion: string
  readonly isHttp2: boolean
  readonly method = 'POST'
  readonly url: string
  readonly path: string
  readonly headers: IncomingHeaders
  readonly body = noBody
  readonly isBodyOver = true
  readonly connection = noBody
  readonly socket = { remoteAddress: '127.0.0.1' }
  readonly isGone = false
  readonly isFull = false
  readonly #sent: Uint8Array
  readonly #over: () => void

  constructor({ path, isHttp2, headers, body }: Request, over: () => void) {
    this.httpVersion = isHttp2 ? '2.0' : '1.1'
    this.isHttp2 = isHttp2
    this.url = path
    this.path = path
    this.headers = headers
    this.#sent = body
    this.#over = over
  }

  takeBody(): Uint8Array {
    return this.#sent
  }

  end(bytes: Uint8Array, trailers: Trailers = { 'grpc-status': '0' }): void {
    if (bytes.length < answer.length || trailers['grpc-status'] !== '0') throw new Error('a call failed')
    this.#over()
  }

  onLeft(): void {}
  setHeader(): void {}
  head(): void {}
  write(): void {}
  async drained(): Promise<void> {}
  left(): undefined {}
  cut(): void {
    throw new Error('a call was cut')
  }
}

interface Request {
  readonly path: string
  readonly isHttp2: boolean
  readonly headers: IncomingHeaders
  readonly body: Uint8Array
}

const noBody = Readable.from([])
const authorization = `Bearer ${key}`
const messages = [{ role: 'user', content: 'How many calls pass a gate that counts every one of them? '.repeat(4) }]
const payload = Buffer.from(JSON.stringify({ model: service.name, messages, max_tokens: 32 }))
const message = toBinary(
  RouteRequestRequestSchema,
  create(RouteRequestRequestSchema, { serviceId: service.id, payload }),
)
const requests: Readonly<Record<string, Request>> = {
  'OpenAI JSON': {
    path: '/v1/chat/completions',
    isHttp2: false,
    headers: { 'content-type': 'application/json', authorization, 'content-length': String(payload.length) },
    body: payload,
  },
  gRPC: {
    path: '/marketplace.v1.ConsumptionService/RouteRequest',
    isHttp2: true,
    headers: { 'content-type': 'application/grpc+proto', te: 'trailers', authorization },
    body: envelope(0, message),
  },
}

/** CPU µs a call. */
async function round(request: Request, calls: number): Promise<number> {
  let left = calls
  const before = process.threadCpuUsage()
  const caller = async (): Promise<void> => {
    for (; left > 0; left -= 1) await new Promise<void>((over) => server.handle(new StandIn(request, over)))
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const { user, system } = process.threadCpuUsage(before)
  return (user + system) / calls
}

const seen = new Map<string, number[]>(Object.keys(requests).map((name) => [name, []]))
for (const request of Object.values(requests)) await round(request, runInCalls)
for (let n = 0; n < rounds; n += 1) {
  for (const [name, request] of Object.entries(requests)) seen.get(name)?.push(await round(request, callsARound))
}
console.log('| wire | least µs | median µs |\n|---|---:|---:|')
for (const [name, costs] of seen) {
  console.log(`| ${name} | ${Math.min(...costs).toFixed(1)} | ${median(costs).toFixed(1)} |`)
}
process.exit(0)
