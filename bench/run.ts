/**
 * `node bench/run.ts [--quick] [--json FILE] [--baselines] [--main FILE] [--callers N]`
 *
 * Calls through the whole gate (authentication, policy, limits, breaker, price, durable usage) as gRPC unary and as
 * Connect JSON, beside the same backend called directly and through a bare Node proxy, in the same run. All targets are
 * measured in turn, three rounds, with 1 and 64 callers; the table shows medians. Gate or proxy have one core, backend
 * and load generator the other. `--baselines` leaves the gate out; `--main dist/tollgate.js` measures the bundle.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { create, toBinary } from '@bufbuild/protobuf'
import { RouteRequestRequestSchema } from '../gen/marketplace/v1/consumption_pb.ts'
import { type Child, canPin, readCpu, startChild, stopChildren } from './children.ts'
import { callGate, type Gate, startGate } from './gate.ts'
import { isLoadReport, type LoadOrder } from './orders.ts'
import { describeMachine, printTable, ratio, type Sample, summarize } from './report.ts'

interface Target {
  readonly name: string
  /** Process between caller and backend; undefined for none. */
  readonly pid: number | undefined
  readonly order: Pick<LoadOrder, 'wire' | 'origin' | 'path' | 'headers' | 'body'>
}

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    json: { type: 'string' },
    baselines: { type: 'boolean' },
    main: { type: 'string' },
    callers: { type: 'string' },
  },
})
const timing = flags.quick ? { warmupMs: 100, durationMs: 300 } : { warmupMs: 500, durationMs: 2_500 }
const rounds = 3
const callerCounts = flags.callers === undefined ? [1, 64] : [Number(flags.callers)]
if (!callerCounts.every((callers) => callers >= 1 && callers <= 1_000)) throw new Error('--callers: from 1 to 1000')
const maxCalls = 1_000_000
const hardStopMs = 300_000
const direct = 'backend, direct'
const proxy = 'bare proxy'
const gateCpu = 0
const loadCpu = 1

const body = Buffer.from(
  JSON.stringify({
    model: 'practice',
    messages: [
      { role: 'system', content: 'You answer in one short sentence.' },
      { role: 'user', content: 'How many calls pass a gate that counts every one of them? '.repeat(4) },
    ],
    max_tokens: 32,
  }),
)

const dataDir = mkdtempSync(join(tmpdir(), 'tollgate-bench-'))
const hardStop = setTimeout(() => void leave(new Error('the benchmark took too long')), hardStopMs)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void leave(new Error(signal)))
let leaving = false
try {
  await measure()
} catch (error) {
  await leave(error)
}
await leave()

async function leave(error?: unknown): Promise<void> {
  // Children that are told to stop make the measurement fail too: the first reason is the one to tell.
  if (leaving) return await new Promise(() => {})
  leaving = true
  clearTimeout(hardStop)
  if (error !== undefined) console.error(error)
  await stopChildren()
  rmSync(dataDir, { recursive: true, force: true })
  process.exit(error === undefined ? 0 : 1)
}

async function measure(): Promise<void> {
  const machine = describeMachine(canPin)
  const backend = await startChild('backend.ts', [], loadCpu)
  const backendUrl = urlOf(backend)
  const bareProxy = await startChild('bare-proxy.ts', [backendUrl], gateCpu)
  const load = await startChild('load.ts', [], loadCpu)
  const gate = flags.baselines ? undefined : await startGate(flags.main ?? 'src/main.ts', dataDir, backendUrl, gateCpu)
  if (gate !== undefined) await checkGate(gate)
  const targets = [
    httpTarget(direct, undefined, backendUrl),
    httpTarget(proxy, bareProxy.pid, urlOf(bareProxy)),
    ...(gate === undefined ? [] : gateTargets(gate)),
  ]

  // A cold process measures the compiler: every target is run in once, unrecorded.
  for (const target of targets) await takeSample(target, 64, load, backend)
  const samples = new Map<string, Sample[]>()
  for (let round = 0; round < rounds; round += 1) {
    for (const callers of callerCounts) {
      for (const target of targets) {
        const sample = await takeSample(target, callers, load, backend)
        const key = `${target.name}/${callers}`
        samples.set(key, [...(samples.get(key) ?? []), sample])
        process.stderr.write(
          `round ${round + 1} of ${rounds}, ${callers} callers, ${target.name}: ${sample.requestsPerSecond.toFixed(0)}/s\n`,
        )
      }
    }
  }

  const results = callerCounts.flatMap((callers) =>
    targets.map((target) => summarize(target.name, callers, samples.get(`${target.name}/${callers}`) ?? [])),
  )
  console.log(printTable(results, direct, proxy))
  console.log(`\n${JSON.stringify(machine)}`)
  if (flags.json === undefined) return
  const report = {
    machine,
    time: new Date().toISOString(),
    settings: { rounds, ...timing, payloadBytes: body.length },
    results: results.map((result) => ({
      ...result,
      ofDirect: ratio(results, result, direct),
      ofProxy: ratio(results, result, proxy),
    })),
  }
  writeFileSync(flags.json, `${JSON.stringify(report, undefined, 2)}\n`)
}

async function takeSample(target: Target, callers: number, load: Child, backend: Child): Promise<Sample> {
  const servedBefore = await served(backend)
  const before = target.pid === undefined ? undefined : readCpu(target.pid)
  const order: LoadOrder = { ...target.order, callers, maxCalls, ...timing }
  const start = performance.now()
  const report = await load.ask(order, timing.warmupMs + timing.durationMs + 60_000)
  const elapsedUs = (performance.now() - start) * 1_000
  const after = target.pid === undefined ? undefined : readCpu(target.pid)
  if (!isLoadReport(report)) throw new Error('the load generator made no report')
  if (report.failure !== null) throw new Error(`${target.name}: ${report.failure}`)
  // A gate that answered without asking the backend would be fast, and measured wrongly.
  const reached = (await served(backend)) - servedBefore
  if (reached < report.allCalls) throw new Error(`${target.name}: ${report.allCalls} calls, ${reached} at the backend`)
  const perCall = (us: number): number => us / report.allCalls
  return {
    requestsPerSecond: (report.calls / report.elapsedMs) * 1_000,
    p50Ms: report.p50Ms,
    p99Ms: report.p99Ms,
    cpuUs: before && after ? perCall(after.ownUs - before.ownUs) : null,
    childrenCpuUs: before && after ? perCall(after.descendantsUs - before.descendantsUs) : null,
    waited: before && after ? (after.waitedUs - before.waitedUs) / elapsedUs : null,
    loadCpuUs: perCall(report.loadCpuUs),
  }
}

function httpTarget(name: string, pid: number | undefined, origin: string): Target {
  const headers = { 'content-type': 'application/json' }
  return {
    name,
    pid,
    order: { wire: 'http1', origin, path: '/v1/chat/completions', headers, body: body.toString('base64') },
  }
}

function gateTargets(gate: Gate): Target[] {
  const path = '/marketplace.v1.ConsumptionService/RouteRequest'
  const authorization = `Bearer ${gate.key}`
  const message = toBinary(
    RouteRequestRequestSchema,
    create(RouteRequestRequestSchema, { serviceId: gate.serviceId, payload: body }),
  )
  const json = JSON.stringify({ serviceId: gate.serviceId, payload: body.toString('base64') })
  const { pid, origin } = gate
  return [
    {
      name: 'gate, Connect JSON',
      pid,
      order: {
        wire: 'http1',
        origin,
        path,
        headers: { 'content-type': 'application/json', authorization },
        body: Buffer.from(json).toString('base64'),
      },
    },
    {
      name: 'gate, gRPC',
      pid,
      order: { wire: 'grpc', origin, path, headers: { authorization }, body: Buffer.from(message).toString('base64') },
    },
  ]
}

/** One call, looked at: the gate must have metered and priced it before its speed means anything. */
async function checkGate(gate: Gate): Promise<void> {
  const answer = await callGate(gate.origin, gate.key, 'ConsumptionService/RouteRequest', {
    serviceId: gate.serviceId,
    payload: body.toString('base64'),
  })
  if (!JSON.stringify(answer.usage).includes('USAGE_SOURCE_PROVIDER') || answer.cost === undefined)
    throw new Error(`the gate does not meter: ${JSON.stringify({ ...answer, responseData: undefined })}`)
}

async function served(backend: Child): Promise<number> {
  const stats = await backend.ask({ want: 'stats' }, 10_000)
  if (typeof stats === 'object' && stats !== null && 'served' in stats && typeof stats.served === 'number')
    return stats.served
  throw new Error('the backend has no counters')
}

function urlOf(child: Child): string {
  const { hello } = child
  if (typeof hello === 'object' && hello !== null && 'url' in hello && typeof hello.url === 'string') return hello.url
  throw new Error('a child process told no address')
}
