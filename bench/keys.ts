/**
 * `node bench/keys.ts [--wrong N] [--rate N]`
 *
 * What wrong keys cost the holder of a right one. A caller asks GET /v1/models fifty times a second with a right key, each
 * call at its time whether the one before was answered or not, and its latency runs from that time. Beside it:
 *
 * - **quiet**: nothing;
 * - **no credential**: N / 5 requests without a credential, refused before any look at a key: what the requests alone cost;
 * - **one address**: N wrong keys from one address, which CREDENTIAL_FAILURES_PER_MINUTE stops;
 * - **500 addresses**: N wrong keys from so many that most are looked at.
 *
 * Wrong keys have the right form and a right checksum, half of them the id of a key that exists. Gate (`tollgate dev`, with its
 * Postgres) on one core, the flood on the other.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Pool } from 'undici'
import { callGate } from './call-gate.ts'
import { canPin, readCpu, startChild, stopChildren } from './children.ts'
import { type Gate, startGate } from './gate.ts'
import { describeMachine } from './report.ts'
import type { FloodMessage, FloodOrder, FloodReport } from './wrong-keys.ts'

const { values: flags } = parseArgs({ options: { wrong: { type: 'string' }, rate: { type: 'string' } } })
const wrong = Number(flags.wrong ?? 100_000)
const rate = Number(flags.rate ?? 2_000)
const callsPerSecond = 50
const quietMs = 10_000
const hardStopMs = 400_000
const requestId = 'bench'

const dataDir = mkdtempSync(join(tmpdir(), 'tollgate-bench-'))
const hardStop = setTimeout(() => void leave(new Error('the benchmark took too long')), hardStopMs)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void leave(new Error(signal)))
try {
  await measure()
  await leave()
} catch (error) {
  await leave(error)
}

async function leave(error?: unknown): Promise<void> {
  clearTimeout(hardStop)
  if (error !== undefined) console.error(error)
  await stopChildren()
  rmSync(dataDir, { recursive: true, force: true })
  process.exit(error === undefined ? 0 : 1)
}

async function measure(): Promise<void> {
  const machine = describeMachine(canPin)
  const gate = await startGate('src/main.ts', dataDir, 'http://127.0.0.1:9', 0)
  const { key, consumerId } = await makeKey(gate)
  const child = await startChild('wrong-keys.ts', [], 1)
  const floodBy = async (order: Partial<FloodOrder>): Promise<() => Promise<unknown>> => {
    const plain = {
      origin: gate.origin,
      total: wrong,
      perSecond: rate,
      addresses: 1,
      idSeed: `${consumerId} ${requestId}`,
    }
    await child.ask({ prepare: { ...plain, ...order } } satisfies FloodMessage, hardStopMs)
    return () => child.ask({ begin: true } satisfies FloodMessage, hardStopMs)
  }
  await watch(gate, key, () => delay(3_000))
  const quiet = async () => () => delay(quietMs)
  const rows: Row[] = []
  const scenes = [
    ['quiet', quiet],
    ['no credential', () => floodBy({ total: wrong / 5, idSeed: undefined })],
    ['one address', () => floodBy({})],
    ['500 addresses', () => floodBy({ addresses: 500 })],
    ['quiet again', quiet],
  ] as const
  for (const [scene, prepare] of scenes) {
    rows.push({ scene, ...(await watch(gate, key, await prepare())) })
    process.stderr.write(`${scene}: done\n`)
  }
  print(rows)
  console.log(`\n${JSON.stringify(machine)}`)
}

/** A key whose id the flood can know: it follows from the request id. */
async function makeKey({ origin, adminKey }: Gate): Promise<{ key: string; consumerId: string }> {
  const { consumers } = await callGate(origin, adminKey, 'ConsumerService/ListConsumers', {})
  const [consumer] = Array.isArray(consumers) ? consumers : []
  const consumerId = String(Reflect.get(Object(consumer), 'id'))
  const { key } = await callGate(origin, adminKey, 'KeyService/CreateKey', { consumerId, requestId })
  if (typeof key !== 'string') throw new Error('the gate gave no key')
  return { key, consumerId }
}

interface Watched {
  readonly calls: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
  /** Share of a core. */
  readonly gateCpu: number
  readonly flood: FloodReport | undefined
}

interface Row extends Watched {
  readonly scene: string
}

/** Calls with the right key for as long as the flood lasts. */
async function watch(gate: Gate, key: string, flood: () => Promise<unknown>): Promise<Watched> {
  const headers = { authorization: `Bearer ${key}` }
  const latencies: number[] = []
  const failures: unknown[] = []
  const running: Promise<void>[] = []
  const connections = new Pool(gate.origin, { connections: 16 })
  const call = async (dueMs: number): Promise<void> => {
    const { statusCode, body } = await connections.request({ path: '/v1/models', method: 'GET', headers })
    await body.dump()
    if (statusCode !== 200) throw new Error(`the right key was answered with ${statusCode}`)
    latencies.push(performance.now() - dueMs)
  }
  const startMs = performance.now()
  const cpu = readCpu(gate.pid)
  let isOver = false
  const flooded = flood().finally(() => {
    isOver = true
  })
  for (let count = 0; !isOver; count++) {
    const dueMs = startMs + (count * 1_000) / callsPerSecond
    await delay(Math.max(0, dueMs - performance.now()))
    running.push(call(dueMs).catch((error: unknown) => void failures.push(error)))
  }
  const report = await flooded
  await Promise.all(running)
  await connections.close()
  if (failures.length > 0) throw failures[0]
  const elapsedMs = performance.now() - startMs
  const usedUs = (readCpu(gate.pid)?.ownUs ?? 0) - (cpu?.ownUs ?? 0)
  latencies.sort((a, b) => a - b)
  const at = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0
  return {
    calls: latencies.length,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    maxMs: at(1),
    gateCpu: usedUs / 1_000 / elapsedMs,
    flood: isFloodReport(report) ? report : undefined,
  }
}

function isFloodReport(value: unknown): value is FloodReport {
  return typeof value === 'object' && value !== null && 'statuses' in value
}

function print(rows: readonly Row[]): void {
  const [quiet] = rows
  console.log(
    '| beside it | refused/s | answers | right calls | p50 ms | p99 ms | max ms | p50 of quiet | p99 of quiet | core |',
  )
  console.log('|---|---:|---|---:|---:|---:|---:|---:|---:|---:|')
  for (const { scene, flood, calls, p50Ms, p99Ms, maxMs, gateCpu } of rows) {
    const answers = Object.entries(flood?.statuses ?? {}).map(([status, count]) => `${count} × ${status}`)
    const total = Object.values(flood?.statuses ?? {}).reduce((sum, count) => sum + count, 0)
    const perSecond = flood === undefined ? '-' : ((total * 1_000) / flood.elapsedMs).toFixed(0)
    const figures = [p50Ms, p99Ms, maxMs].map((ms) => ms.toFixed(2))
    const ratios = [p50Ms / (quiet?.p50Ms ?? 1), p99Ms / (quiet?.p99Ms ?? 1)].map((each) => each.toFixed(2))
    const cells = [
      scene,
      perSecond,
      answers.join(', ') || '-',
      calls,
      ...figures,
      ...ratios,
      `${(gateCpu * 100).toFixed(0)} %`,
    ]
    console.log(`| ${cells.join(' | ')} |`)
  }
}
