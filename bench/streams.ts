/**
 * `node bench/streams.ts [--quick]`
 *
 * Streams through the whole gate (authentication, policy, limits, breaker, usage, price, durable record) as server-sent
 * events of the OpenAI API and as gRPC, beside the same backend called directly and through a bare Node proxy, in the same
 * run; streams have 50 tokens. Three scenes:
 *
 * - **one**: one caller, tokens as fast as they come: the time to the first token.
 * - **many**: 32 callers, the same: streams a second, and what a stream costs.
 * - **paced**: 32 callers, a token every 10 ms, as a model makes them: the time between tokens, and what a token costs.
 *
 * All targets in turn, five rounds; the table shows medians. Gate or proxy have one core, backend and load the other.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { create, toBinary } from '@bufbuild/protobuf'
import { StreamRequestRequestSchema } from '../gen/marketplace/v1/consumption_pb.ts'
import { type Child, canPin, readCpu, startChild, stopChildren } from './children.ts'
import { type Gate, registerService, startGate } from './gate.ts'
import { describeMachine, median } from './report.ts'
import { isStreamReport, type StreamOrder, type StreamReport } from './stream-orders.ts'

type Where = Pick<StreamOrder, 'wire' | 'origin' | 'path' | 'headers' | 'body'>

interface Target {
  readonly name: string
  /** Process between caller and backend; undefined for none. */
  readonly pid: number | undefined
  /** Of a service whose backend has this pace, "fast" or "paced". */
  order(pace: Pace): Where
}

type Pace = 'fast' | 'paced'

interface Figures extends StreamReport {
  /** CPU time of the process between caller and backend, of all its streams. */
  readonly cpuUs: number
}

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' } } })
const rounds = flags.quick ? 1 : 5
/** A paced stream takes half a second. */
const durationMs: Readonly<Record<Pace, number>> = flags.quick
  ? { fast: 500, paced: 2_000 }
  : { fast: 2_500, paced: 3_000 }
const tokens = 50
const models: Readonly<Record<Pace, string>> = {
  fast: `practice:out=${tokens}`,
  paced: `practice:out=${tokens},pace=10`,
}
const scenes = [
  { name: 'one', callers: 1, pace: 'fast' },
  { name: 'many', callers: 32, pace: 'fast' },
  { name: 'paced', callers: 32, pace: 'paced' },
] as const
const gateCpu = 0
const loadCpu = 1

const dataDir = mkdtempSync(join(tmpdir(), 'tollgate-bench-'))
const hardStop = setTimeout(() => process.kill(process.pid, 'SIGTERM'), 300_000)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void leave(1))
try {
  await measure()
  await leave(0)
} catch (error) {
  console.error(error)
  await leave(1)
}

async function leave(code: number): Promise<void> {
  clearTimeout(hardStop)
  await stopChildren()
  rmSync(dataDir, { recursive: true, force: true })
  process.exit(code)
}

async function measure(): Promise<void> {
  const machine = describeMachine(canPin)
  const backend = await startChild('backend.ts', [], loadCpu)
  const backendUrl = urlOf(backend)
  const proxy = await startChild('bare-proxy.ts', [backendUrl], gateCpu)
  const load = await startChild('stream-load.ts', [], loadCpu)
  const gate = await startGate('src/main.ts', dataDir, backendUrl, gateCpu)
  for (const [name, model] of Object.entries(models)) await registerService(gate, name, backendUrl, model)
  const targets = [
    plainTarget('backend, direct', undefined, backendUrl),
    plainTarget('bare proxy', proxy.pid, urlOf(proxy)),
    sseTarget(gate),
    grpcTarget(gate),
  ]
  const samples = new Map<string, Figures[]>()
  // The first round is run in, unrecorded: a cold process measures the compiler.
  for (let round = 0; round <= rounds; round++) {
    for (const scene of scenes) {
      for (const target of targets) {
        const sample = await takeSample(target, scene.callers, scene.pace, load)
        const key = `${scene.name}/${target.name}`
        if (round > 0) samples.set(key, [...(samples.get(key) ?? []), sample])
        process.stderr.write(`round ${round} of ${rounds}, ${scene.name}, ${target.name}: ${sample.streams} streams\n`)
      }
    }
  }
  print(targets, samples)
  console.log(`\n${JSON.stringify(machine)}`)
}

async function takeSample(target: Target, callers: number, pace: Pace, load: Child): Promise<Figures> {
  const before = target.pid === undefined ? undefined : readCpu(target.pid)
  const order: StreamOrder = { ...target.order(pace), callers, warmupMs: 300, durationMs: durationMs[pace] }
  const report = await load.ask(order, order.durationMs + 70_000)
  const after = target.pid === undefined ? undefined : readCpu(target.pid)
  if (!isStreamReport(report)) throw new Error('the load generator made no report')
  if (report.failure !== null) throw new Error(`${target.name}: ${report.failure}`)
  if (report.allTokens !== report.allStreams * tokens) throw new Error(`${target.name}: tokens were lost`)
  return { ...report, cpuUs: before && after ? after.ownUs - before.ownUs : Number.NaN }
}

function print(targets: readonly Target[], samples: ReadonlyMap<string, readonly Figures[]>): void {
  console.log(
    '| target | first token p50 ms | p99 ms | streams/s, 32 callers | of bare proxy | CPU µs a stream | µs between tokens, paced | CPU µs a token |\n' +
      '|---|---:|---:|---:|---:|---:|---:|---:|',
  )
  const of = (scene: string, name: string, pick: (figures: Figures) => number): number =>
    median((samples.get(`${scene}/${name}`) ?? []).map(pick))
  const perSecond = (name: string): number =>
    of('many', name, ({ streams, elapsedMs }) => (1_000 * streams) / elapsedMs)
  const proxyPerSecond = perSecond('bare proxy')
  for (const { name, pid } of targets) {
    const cpu = (value: number): string => (pid === undefined ? '-' : value.toFixed(0))
    const cells = [
      name,
      of('one', name, (figures) => figures.firstTokenP50Ms).toFixed(2),
      of('one', name, (figures) => figures.firstTokenP99Ms).toFixed(2),
      perSecond(name).toFixed(0),
      `${Math.round((100 * perSecond(name)) / proxyPerSecond)} %`,
      cpu(of('many', name, ({ cpuUs, allStreams }) => cpuUs / allStreams)),
      of('paced', name, (figures) => figures.perTokenUs).toFixed(0),
      cpu(of('paced', name, ({ cpuUs, allTokens }) => cpuUs / allTokens)),
    ]
    console.log(`| ${cells.join(' | ')} |`)
  }
}

function bodyOf(model: string): Buffer {
  const messages = [{ role: 'user', content: 'How many tokens pass a gate that counts every one of them?' }]
  return Buffer.from(JSON.stringify({ model, stream: true, messages, max_tokens: 2 * tokens }))
}

function plainTarget(name: string, pid: number | undefined, origin: string): Target {
  const where = { wire: 'sse', origin, path: '/v1/chat/completions' } as const
  const headers = { 'content-type': 'application/json' }
  return { name, pid, order: (pace) => ({ ...where, headers, body: bodyOf(models[pace]).toString('base64') }) }
}

function sseTarget({ pid, origin, key }: Gate): Target {
  const where = { wire: 'sse', origin, path: '/v1/chat/completions' } as const
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${key}` }
  return { name: 'gate, SSE', pid, order: (pace) => ({ ...where, headers, body: bodyOf(pace).toString('base64') }) }
}

function grpcTarget({ pid, origin, key }: Gate): Target {
  const where = { wire: 'grpc', origin, path: '/marketplace.v1.ConsumptionService/StreamRequest' } as const
  const headers = { authorization: `Bearer ${key}` }
  const message = (serviceId: string): Uint8Array =>
    toBinary(
      StreamRequestRequestSchema,
      create(StreamRequestRequestSchema, { serviceId, payload: bodyOf(models.fast) }),
    )
  return {
    name: 'gate, gRPC',
    pid,
    order: (pace) => ({ ...where, headers, body: Buffer.from(message(pace)).toString('base64') }),
  }
}

function urlOf(child: Child): string {
  const { hello } = child
  if (typeof hello === 'object' && hello !== null && 'url' in hello && typeof hello.url === 'string') return hello.url
  throw new Error('a child process told no address')
}
