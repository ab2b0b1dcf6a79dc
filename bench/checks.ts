/**
 * `node bench/checks.ts [--quick] [--only TEXT]`; with a text, the rows of calls whose name has it
 *
 * Admissions and settlements a second on one Redis with `appendfsync always`, through the limits of one process: calls
 * with 1, 4 and 8 limits by 1,000 keys, with 1, 50 and 256 calls in flight; a hot organization, whose 1,000 keys share its
 * limits, beside as many keys that share none; and one key that makes all calls. "slices" is with them, and
 * all else without, where every call asks Redis. "embedded" asks no Redis: its limits are in this process, which holds all
 * there is of them, and its records in segment files. Redis has one core, this process the other. "Redis µs" is what a call costs
 * Redis of CPU, with reading, writing and the append-only file, so a million divided by it is what one Redis could do for
 * many processes; "own µs" is what it costs this one. On a busy machine these two are steady, and nothing else is.
 *
 * Where the time of one call in flight goes, the rows below say: "everysec" is the same on a second Redis, which syncs its
 * file beside its work (production must not: an answered call would not be durable), and a bare SET by the same client on
 * either Redis is what the cheapest write takes there.
 *
 * Three rounds in turn, about four minutes; the table shows medians, and the shares of the first row with as many in flight.
 */
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import pino from 'pino'
import { newId } from '../src/ids.ts'
import { limitKey, monthEndMs, monthOf, periodKey } from '../src/limits/limit-keys.ts'
import type { Admission, Limit, Limits, UsageScope } from '../src/limits/limits.ts'
import { createLocalLimits } from '../src/limits/local-limits.ts'
import { createRedisLimits } from '../src/limits/redis-limits.ts'
import { noTokens } from '../src/metering/usage-event.ts'
import { connectRedis, type RedisClient } from '../src/storage/redis.ts'
import { startRedisServer } from '../test/support/redis-server.ts'
import { canPin } from './children.ts'
import { describeMachine, median } from './report.ts'

/** `appendfsync` of a Redis. */
type Fsync = 'always' | 'everysec'
/** Where limits are: in one of the Redis, or in this process. */
type Store = Fsync | 'embedded'

interface Target {
  readonly name: string
  /** Of a call; 0: a bare SET instead of a call. */
  readonly limits: number
  /** Whether all keys belong to one organization. */
  readonly isHot: boolean
  /** How many keys call. */
  readonly keys: number
  /** Percent of what is left that may be in slices; 0: every call asks Redis. */
  readonly percent: number
  readonly store: Store
  readonly inFlight: readonly number[]
}

interface Figures {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** CPU a call of Redis, and of this process. */
  readonly redisUs: number
  readonly ownUs: number
}

interface Sample {
  readonly admit: Figures
  /** Of calls. */
  readonly settle?: Figures
}

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' }, only: { type: 'string', default: '' } } })
const rounds = flags.quick ? 1 : 3
const durationMs = flags.quick ? 200 : 600
const inFlightCounts = [1, 50, 256]
const month = monthOf(Date.now())
const plain = { isHot: false, keys: 1_000, percent: 0, store: 'always', inFlight: inFlightCounts } as const
const single = { ...plain, keys: 1, inFlight: [1] } as const
const callTargets: readonly Target[] = [
  { ...plain, name: '1 limit', limits: 1 },
  { ...plain, name: '4 limits', limits: 4 },
  { ...plain, name: '8 limits', limits: 8 },
  { ...plain, name: '8 limits, hot organization', limits: 8, isHot: true },
  { ...plain, name: '4 limits, one key', limits: 4, keys: 1 },
  { ...plain, name: '4 limits, slices', limits: 4, percent: 12 },
  { ...plain, name: '4 limits, one key, slices', limits: 4, keys: 1, percent: 12 },
  { ...plain, name: '4 limits, embedded', limits: 4, store: 'embedded' },
  { ...plain, name: '4 limits, one key, embedded', limits: 4, keys: 1, store: 'embedded' },
  { ...single, name: '1 limit, one key', limits: 1 },
  { ...single, name: '1 limit, one key, everysec', limits: 1, store: 'everysec' },
  { ...single, name: '4 limits, one key, everysec', limits: 4, store: 'everysec' },
]
const floorTargets: readonly Target[] = [
  { ...single, name: 'bare SET', limits: 0 },
  { ...single, name: 'bare SET, everysec', limits: 0, store: 'everysec' },
]
const targets = [...callTargets.filter(({ name }) => name.includes(flags.only)), ...floorTargets]
const targetsWith = (inFlight: number) => targets.filter((target) => target.inFlight.includes(inFlight))

const machine = describeMachine(canPin)
const log = pino({ level: 'silent' })
if (canPin) execFileSync('taskset', ['-a', '-cp', '1', String(process.pid)], { stdio: 'ignore' })
const closers: (() => Promise<void>)[] = []
try {
  await measure({ always: await openRedis('always'), everysec: await openRedis('everysec') })
} finally {
  for (const close of closers) await close()
}

async function openRedis(fsync: Fsync): Promise<RedisClient> {
  const server = await startRedisServer({ args: ['--appendfsync', fsync] })
  closers.push(() => server.stop())
  if (canPin) execFileSync('taskset', ['-a', '-cp', '0', String(server.pid)], { stdio: 'ignore' })
  const redis = await connectRedis({ url: server.url, log, commandTimeoutMs: 10_000 })
  closers.unshift(async () => redis.disconnect())
  return redis
}

async function measure(servers: Readonly<Record<Fsync, RedisClient>>): Promise<void> {
  const samples = new Map<string, Sample[]>()
  // The first round is run in, unrecorded: a cold process measures the compiler.
  for (let round = 0; round <= rounds; round++) {
    for (const inFlight of inFlightCounts) {
      for (const target of targetsWith(inFlight)) {
        const redis = servers[target.store === 'embedded' ? 'always' : target.store]
        await redis.call('flushall')
        const sample = target.limits === 0 ? await takeFloor(redis) : await takeSample(redis, target, inFlight)
        const key = `${target.name}/${inFlight}`
        if (round > 0) samples.set(key, [...(samples.get(key) ?? []), sample])
        process.stderr.write(
          `round ${round} of ${rounds}, ${inFlight} in flight, ${target.name}: ${sample.admit.perSecond.toFixed(0)}/s\n`,
        )
      }
    }
  }
  const head =
    'limits of a call | in flight | admissions/s | share | p50 ms | p99 ms | Redis µs | own µs | settlements/s | Redis µs | own µs'
  console.log(`| ${head} |\n|${' --- |'.repeat(head.split('|').length)}`)
  for (const inFlight of inFlightCounts) {
    let base = 0
    for (const { name } of targetsWith(inFlight)) {
      const all = samples.get(`${name}/${inFlight}`) ?? []
      const settled = all.flatMap((sample) => sample.settle ?? [])
      const admit = (pick: (figures: Figures) => number) => median(all.map((sample) => pick(sample.admit)))
      const settle = (pick: (figures: Figures) => number) => median(settled.map(pick))
      const perSecond = admit((figures) => figures.perSecond)
      if (base === 0) base = perSecond
      const cells = [
        name,
        inFlight,
        Math.round(perSecond),
        `${Math.round((100 * perSecond) / base)} %`,
        admit((figures) => figures.p50Ms).toFixed(2),
        admit((figures) => figures.p99Ms).toFixed(2),
        admit((figures) => figures.redisUs).toFixed(1),
        admit((figures) => figures.ownUs).toFixed(1),
        ...(settled.length === 0
          ? ['', '', '']
          : [
              Math.round(settle((figures) => figures.perSecond)),
              settle((figures) => figures.redisUs).toFixed(1),
              settle((figures) => figures.ownUs).toFixed(1),
            ]),
      ]
      console.log(`| ${cells.join(' | ')} |`)
    }
  }
  console.log(`\n${JSON.stringify(machine)}`)
}

/** As many bare writes, one after the other, as the time allows. */
async function takeFloor(redis: RedisClient): Promise<Sample> {
  const started = performance.now()
  const admit = await timed(redis, 1, async (index) => {
    if (performance.now() - started > durationMs) return false
    await redis.call('set', 'floor', index)
    return true
  })
  return { admit }
}

/** As many admissions as the time allows, then their settlements, in a Redis that was emptied before or a new folder. */
async function takeSample(redis: RedisClient, target: Target, inFlight: number): Promise<Sample> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-checks-'))
  const seed = async () => 0
  const slicePercent = target.percent
  const limits =
    target.store === 'embedded'
      ? await createLocalLimits({ folder, seed, log, maxBacklog: Number.POSITIVE_INFINITY })
      : await createRedisLimits({ redis, instanceId: newId(), seed, log, graceMs: 0, slicePercent })
  try {
    const hot = newId()
    const callers = Array.from({ length: target.keys }, () => limitsOfKey(target.isHot ? hot : newId(), newId()))
    // Every period is known before the clock runs.
    await timed(redis, 50, async (index) => {
      const caller = callers[index]
      if (caller !== undefined) await limits.read(caller.slice(0, target.limits))
      return caller !== undefined
    })
    const calls: Admission[] = []
    let started = performance.now()
    const admit = await timed(redis, inFlight, async (index) => {
      if (performance.now() - started > durationMs) return false
      const call = callOf(callers[index % target.keys] ?? [], target.limits)
      calls.push(call)
      await mustAdmit(limits, call)
      return true
    })
    started = performance.now()
    const settle = await timed(redis, inFlight, async (index) => {
      const call = calls[index]
      if (call === undefined) return false
      await limits.settle({ admission: call, actual: call.costs.map(() => 3), event: call.ifAbandoned })
      return true
    })
    return { admit, settle }
  } finally {
    await limits.close()
    await rm(folder, { recursive: true })
  }
}

async function mustAdmit(limits: Limits, call: Admission): Promise<void> {
  const { outcome } = await limits.admit(call)
  if (outcome !== 'admitted') throw new Error(`a call is ${outcome}`)
}

/** Runs calls side by side until one says that it is enough. */
async function timed(redis: RedisClient, inFlight: number, run: (index: number) => Promise<boolean>): Promise<Figures> {
  const [redisBefore, ownBefore] = [await redisMicros(redis), process.cpuUsage()]
  const latencies: number[] = []
  let next = 0
  const started = performance.now()
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      for (;;) {
        const before = performance.now()
        if (!(await run(next++))) return
        latencies.push(performance.now() - before)
      }
    }),
  )
  const elapsedMs = performance.now() - started
  const { user, system } = process.cpuUsage(ownBefore)
  const calls = Math.max(1, latencies.length)
  latencies.sort((a, b) => a - b)
  return {
    perSecond: (latencies.length / elapsedMs) * 1_000,
    p50Ms: latencies[Math.floor(latencies.length / 2)] ?? 0,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0,
    redisUs: ((await redisMicros(redis)) - redisBefore) / calls,
    ownUs: (user + system) / calls,
  }
}

/** CPU that Redis has used, in microseconds. */
async function redisMicros(client: RedisClient): Promise<number> {
  const info = String(await client.call('info', 'cpu'))
  const seconds = (name: string) => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)?.[1])
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6
}

/** Eight limits of every kind and scope; those of organization and service stand behind the first two. */
function limitsOfKey(organizationId: string, serviceId: string): Limit[] {
  const [key, consumer] = [scope('key', newId()), scope('consumer', newId())]
  const [organization, service] = [scope('organization', organizationId), scope('service', serviceId)]
  return [
    tokens(consumer),
    rate(key),
    tokens(organization),
    concurrent(organization),
    rate(organization),
    money(organization),
    money(key),
    rate(service),
  ]
}

function scope(kind: UsageScope['kind'], id: string): UsageScope {
  return { kind, id, serviceId: undefined }
}

function tokens(of: UsageScope): Limit {
  return { ...named('tokens_per_month', of), ...period(of), kind: 'period', unit: 'tokens', currency: '' }
}

function money(of: UsageScope): Limit {
  const key = periodKey('cost_per_month', of, month, 'USD')
  return { ...named('cost_per_month', of), ...period(of), kind: 'period', unit: 'nanos', currency: 'USD', key }
}

function period(of: UsageScope): { capacity: number; endsAtMs: number; scope: UsageScope; key: string } {
  const key = periodKey('tokens_per_month', of, month)
  return { capacity: 8e15, endsAtMs: monthEndMs(Date.now()), scope: of, key }
}

function rate(of: UsageScope): Limit {
  const figures = { capacity: 1e8, refill: 1e6, windowMs: 1_000 } as const
  return { ...named('requests_per_second', of), ...figures, kind: 'bucket', unit: 'requests' }
}

function concurrent(of: UsageScope): Limit {
  return { ...named('concurrent_requests', of), kind: 'concurrency', unit: 'calls', capacity: 1e6 }
}

function named(name: string, of: UsageScope): Pick<Limit, 'name' | 'subject' | 'serviceId' | 'key'> {
  return { name, subject: `${of.kind}:${of.id}`, serviceId: '', key: limitKey(name, of) }
}

function callOf(limits: readonly Limit[], count: number): Admission {
  const id = newId()
  const costs = limits.slice(0, count).map((limit) => ({ limit, amount: 1 }))
  const subject = (kind: string) =>
    limits.find((limit) => limit.subject.startsWith(kind))?.subject.slice(kind.length + 1) ?? ''
  return {
    id,
    costs,
    leaseMs: 600_000,
    ifAbandoned: {
      id: newId(),
      requestId: id,
      organizationId: subject('organization'),
      consumerId: subject('consumer'),
      serviceId: subject('service'),
      endpointId: newId(),
      keyId: subject('key'),
      startMs: Date.now(),
      requests: 1,
      corrects: '',
      durationMs: 100,
      firstTokenMs: 0,
      status: 'abandoned',
      errorReason: '',
      tokens: { ...noTokens, input: 1 },
      usageSource: 'estimated',
      costNanos: 1,
      currency: 'USD',
      priceVersion: 'v1',
      model: 'practice',
      attempt: 1,
      metadata: {},
      traceparent: '',
    },
  }
}
