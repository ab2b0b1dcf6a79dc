/**
 * What a unary call costs between its socket and the gate, and back: `node bench/wire.ts`, about half a minute. The server with
 * its middleware, on a gate that answers each call in the next turn of the event loop; microseconds of CPU a call with 64 callers,
 * the wires in turn. Beside the median stands the tenth percentile, which other programs disturb less.
 */
import pino from 'pino'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import type { Call } from '../src/call.ts'
import type { GateAnswer } from '../src/consumption/gate.ts'
import { servedMessage } from '../src/consumption/served-message.ts'
import { createAuthenticator } from '../src/identity/authenticator.ts'
import { generateKey } from '../src/identity/key-format.ts'
import { newId } from '../src/ids.ts'
import { createBuiltinPolicyEngine } from '../src/policy/policy-engine.ts'
import { buildSnapshot } from '../src/registry/snapshot.ts'
import { register } from '../src/server/rpc.ts'
import { startServer } from '../src/server/server.ts'
import { createCallMetrics } from '../src/telemetry/call-metrics.ts'
import { createMetrics } from '../src/telemetry/metrics.ts'
import { keyOf } from '../test/support/invoke.ts'
import { usageEvent } from '../test/support/usage-events.ts'
import { unaryAnswer } from './backend-answers.ts'
import { pin, startChild, stopChildren } from './children.ts'
import { isLoadReport } from './orders.ts'
import { median } from './report.ts'
import { services } from './services.ts'
import { figure, printTable } from './table.ts'
import { connectTarget, grpcTarget, openaiTarget, type Request } from './targets.ts'

const callers = 64
const rounds = 30
const callsARound = 2_000
const runInCalls = 30_000

const { key } = generateKey()
const principal = keyOf({ id: newId(), organizationId: newId() })
const snapshot = buildSnapshot({ version: 1, services: [], consumers: [], nowMs: 0 })
const standing = [
  ['x-ratelimit-limit', '20000'],
  ['x-ratelimit-remaining', '19999'],
  ['x-ratelimit-reset', '1'],
  ['x-ratelimit-limit-tokens', '1000000'],
  ['x-ratelimit-remaining-tokens', '999000'],
  ['x-ratelimit-reset-tokens', '2592061'],
] as const
const component = { kind: 'input', quantity: 10, rateNanos: 1_000, nanos: 100 } as const
const answer: GateAnswer = {
  body: unaryAnswer(1_024),
  event: usageEvent(),
  charge: {
    nanos: 200,
    currency: 'USD',
    priceVersion: newId(),
    components: [component, { ...component, kind: 'output' }],
  },
  serviceVersion: '1.0.0',
  finishReason: 'stop',
  isReplayed: false,
}

async function route(_request: unknown, call: Call): Promise<GateAnswer> {
  for (const [name, value] of standing) call.setResponseHeader(name, value)
  await new Promise((resolve) => setImmediate(resolve))
  return answer
}

pin(process.pid, 0)
const server = await startServer({
  host: '127.0.0.1',
  port: 0,
  services: [
    register(ConsumptionService, {
      async routeRequest(request, call) {
        const { body, ...served } = await route(request, call)
        return { responseData: body, ...servedMessage(served) }
      },
    }),
  ],
  openai: {
    snapshots: { current: () => snapshot },
    policy: createBuiltinPolicyEngine(),
    gate: { route, stream: () => expectNone() },
  },
  pages: {},
  authenticate: createAuthenticator({ verifier: { verify: async () => principal, recall: () => principal } }),
  rbac: true,
  organizationOf: () => undefined,
  denials: { record: async () => {} },
  corsOrigins: [],
  maxMessageBytes: 4 * 1024 * 1024,
  defaultDeadlineMs: 30_000,
  maxDeadlineMs: 60_000,
  maxStreamsPerConnection: 1000,
  maxConnectionAgeMs: 600_000,
  headersTimeoutMs: 10_000,
  bodyTimeoutMs: 30_000,
  keepAliveMs: 30_000,
  drainMs: 1_000,
  log: pino({ level: 'info' }),
  observer: createCallMetrics(createMetrics()).rpcs,
  newId,
})
const load = await startChild('load.ts', [], 1)
const gate = {
  pid: process.pid,
  origin: server.address,
  serviceId: '',
  consumerId: '',
  key,
  adminKey: '',
  stop: async () => {},
}
const targets = [openaiTarget(gate, 'OpenAI JSON'), connectTarget(gate, 'Connect JSON'), grpcTarget(gate, 'gRPC')]
const samples = new Map(targets.map(({ name }) => [name, [] as number[]]))
for (const target of targets) await cpuUsACall(target.request(services.plain), runInCalls)
for (let round = 0; round < rounds; round++) {
  for (const target of targets) {
    samples.get(target.name)?.push(await cpuUsACall(target.request(services.plain), callsARound))
  }
}
const rows = [...samples].map(([name, all]) => {
  const least = all.toSorted((a, b) => a - b)[Math.floor(all.length / 10)] ?? Number.NaN
  return [name, figure(median(all), 1), figure(least, 1)]
})
console.log(printTable({ title: 'CPU µs a call', columns: ['wire', 'median', 'tenth percentile'], rows }))
await stopChildren()
await server.close()

async function cpuUsACall(request: Request, calls: number): Promise<number> {
  const before = process.cpuUsage()
  const order = { ...request, callers, warmupMs: 0, durationMs: 60_000, maxCalls: calls }
  const report = await load.ask(order, 90_000)
  if (!isLoadReport(report) || report.failure !== null) throw new Error('a call failed')
  const { user, system } = process.cpuUsage(before)
  return (user + system) / report.allCalls
}

function expectNone(): never {
  throw new Error('nobody asks for a stream here')
}
