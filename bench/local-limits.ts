/**
 * What embedded limits cost a call, alone: `node bench/local-limits.ts [callers]`, about half a minute. Admission, an answer
 * within a millisecond, settlement; the usage log is on disk, and a reader acknowledges it. Medians of five rounds.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { newId } from '../src/ids.ts'
import { limitsOfCall } from '../src/limits/call-limits.ts'
import type { Admission } from '../src/limits/limits.ts'
import { createLocalLimits } from '../src/limits/local-limits.ts'
import { noTokens, type UsageEvent } from '../src/metering/usage-event.ts'

const rounds = 5
const roundMs = 4_000
const warmupMs = 1_500
const reserved = 120

const callers = Number(process.argv[2] ?? 64)
const folder = await mkdtemp(join(tmpdir(), 'tollgate-local-limits-'))
const limits = await createLocalLimits({ folder, log: pino({ level: 'silent' }), seed: async () => 0 })
const overrides = { requestsPerSecond: 1_000_000, tokensPerMonth: 1e12 }
const consumer = { id: newId(), organizationId: newId(), tier: 'enterprise', overrides } as const
const [serviceId, keyId, endpointId] = [newId(), newId(), newId()]
/** Those who wait for the answer of their backend, which comes to all at once, as sockets bring it. */
let waiting: (() => void)[] = []
let latenciesMs: number[] = []
let isOver = false

const backend = setInterval(() => {
  const all = waiting
  waiting = []
  for (const answer of all) answer()
}, 1)
const calling = Array.from({ length: callers }, callForever)
const draining = drainForever()
await delay(warmupMs)
const samples: {
  readonly cpuUs: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}[] = []
for (let round = 0; round < rounds; round++) samples.push(await measure())
isOver = true
await Promise.all([...calling, draining])
clearInterval(backend)
await limits.close()
await rm(folder, { recursive: true })
console.log('| callers | calls/s | CPU µs a call | p50 ms | p99 ms |\n|---:|---:|---:|---:|---:|')
const row = [callers, median('perSecond').toFixed(0), median('cpuUs').toFixed(1), median('p50Ms').toFixed(2)]
console.log(`| ${[...row, median('p99Ms').toFixed(2)].join(' | ')} |`)

/** The time of a call without that of its backend. */
async function callForever(): Promise<void> {
  while (!isOver) {
    const beganMs = performance.now()
    const startMs = Date.now()
    const requestId = newId()
    const costs = limitsOfCall(new Map(), { consumer, serviceId, keyId, atMs: startMs }).map((limit) => ({
      limit,
      amount: limit.unit === 'tokens' ? reserved : 1,
    }))
    const ifAbandoned = eventOf(requestId, startMs, { status: 'abandoned', errorReason: 'INTERNAL' })
    const admission: Admission = { id: requestId, costs, leaseMs: 45_000, ifAbandoned }
    const { outcome } = await limits.admit(admission)
    if (outcome !== 'admitted') throw new Error(`a call was ${outcome}`)
    const admittedMs = performance.now()
    await new Promise<void>((answered) => waiting.push(answered))
    const answeredMs = performance.now()
    const event: UsageEvent = { ...ifAbandoned, status: 'succeeded', errorReason: '', model: 'bench', durationMs: 5 }
    await limits.settle({ admission, actual: costs.map(({ amount }) => amount), event })
    latenciesMs.push(admittedMs - beganMs + performance.now() - answeredMs)
  }
}

function eventOf(requestId: string, startMs: number, ending: Pick<UsageEvent, 'status' | 'errorReason'>): UsageEvent {
  return {
    id: newId(),
    requestId,
    organizationId: consumer.organizationId,
    consumerId: consumer.id,
    serviceId,
    endpointId,
    keyId,
    startMs,
    requests: 1,
    corrects: '',
    durationMs: 0,
    firstTokenMs: 0,
    tokens: { ...noTokens, input: 88, output: reserved - 88 },
    usageSource: 'provider',
    costNanos: 123_456,
    currency: 'USD',
    priceVersion: '2026-11-01T00:00:00.000Z',
    model: '',
    attempt: 1,
    metadata: {},
    traceparent: '',
    ...ending,
  }
}

/** As the drain does, without a ledger. */
async function drainForever(): Promise<void> {
  while (!isOver) {
    const batch = await limits.usageLog.read(2_000, 100, new AbortController().signal)
    batch.encoded()
    await batch.acknowledge()
    await delay(25)
  }
}

async function measure(): Promise<(typeof samples)[number]> {
  latenciesMs = []
  const cpu = process.cpuUsage()
  const beganMs = performance.now()
  await delay(roundMs)
  const { user, system } = process.cpuUsage(cpu)
  const sorted = latenciesMs.sort((a, b) => a - b)
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0
  return {
    cpuUs: (user + system) / sorted.length,
    perSecond: (sorted.length / (performance.now() - beganMs)) * 1_000,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  }
}

function median(name: keyof (typeof samples)[number]): number {
  return samples.map((sample) => sample[name]).sort((a, b) => a - b)[Math.floor(rounds / 2)] ?? 0
}
