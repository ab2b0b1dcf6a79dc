/** The limits of two replicas while a real Redis is killed, stopped or emptied under load. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type RedisServer, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis } from '../storage/redis.ts'
import { costs } from './conformance-scene.ts'
import { admission, bucket, concurrency, FakeLedger, outcomeOf, period, settlement } from './conformance-support.ts'
import { createFailoverLimits, type FailoverLimits } from './failover-limits.ts'
import { startDrain } from './failover-support.ts'
import type { Admission, LimitCost, Limits } from './limits.ts'
import { createLocalLimits } from './local-limits.ts'
import { createRedisLimits } from './redis-limits.ts'
import { type Replicas, startReplicas } from './replicas.ts'

const log = pino({ level: 'silent' })
const commandTimeoutMs = 400
const closers: (() => Promise<unknown>)[] = []
let server: RedisServer
let ledger: FakeLedger
/** Events that the ledger was given, by id; it keeps the first. */
let booked: Map<string, number>

beforeEach(async () => {
  server = await startRedisServer()
  closers.unshift(() => server.stop())
  ledger = new FakeLedger()
  booked = new Map()
}, 60_000)

afterEach(async () => {
  for (const close of closers.splice(0)) await close()
}, 60_000)

interface Replica {
  readonly limits: FailoverLimits
  readonly redis: Limits
  readonly replicas: Replicas
}

async function start(instanceId: string, mode: 'open' | 'local'): Promise<Replica> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-away-'))
  closers.unshift(() => rm(folder, { recursive: true, force: true }))
  const client = await connectRedis({ url: server.url, log, commandTimeoutMs })
  closers.unshift(async () => client.disconnect())
  const { seed } = ledger
  const redis = await createRedisLimits({ redis: client, instanceId, seed, log, reclaimIdleMs: 500 })
  closers.unshift(() => redis.close())
  const replicas = await startReplicas({ redis: client, instanceId, everyMs: 50 })
  closers.unshift(() => replicas.stop())
  const limits = await createFailoverLimits({
    primary: redis,
    openLocal: (ownSeed) => createLocalLimits({ folder: join(folder, 'usage'), seed: ownSeed, log }),
    folder,
    mode,
    replicas: replicas.count,
    seed,
    log,
    probeEveryMs: 50,
  })
  closers.unshift(() => limits.close())
  const taking: Pick<FakeLedger, 'take'> = {
    take(events) {
      for (const event of events) {
        if (!booked.has(event.id)) booked.set(event.id, event.tokens.input)
      }
      ledger.take(events)
    },
  }
  for (const usageLog of [limits.usageLog, limits.localUsageLog]) {
    const drain = startDrain(usageLog, taking)
    closers.unshift(() => drain.stop())
  }
  return { limits, redis, replicas }
}

async function startTwo(mode: 'open' | 'local'): Promise<[Replica, Replica]> {
  const one = await start('one', mode)
  const two = await start('two', mode)
  await eventually(() => one.replicas.count() === 2)
  return [one, two]
}

interface Call {
  readonly call: Admission
  readonly used: number
}

/** Callers that admit and settle until they are told to stop; what fails must be LIMITS_UNAVAILABLE. */
function startLoad(limits: Limits, cost: () => readonly LimitCost[], callers: number) {
  const settled: Call[] = []
  const unsettled: Call[] = []
  let refused = 0
  let unavailable = 0
  let stopped = false
  async function caller(): Promise<void> {
    while (!stopped) {
      const call = admission(cost())
      const outcome = await outcomeOf(limits, call)
      if (outcome !== 'admitted') {
        if (outcome === undefined) unavailable += 1
        else refused += 1
        await delay(5)
        continue
      }
      const used = 1 + (unsettled.length % 10)
      unsettled.push({ call, used })
      await delay(unsettled.length % 20)
      await limits.settle(settlement(call, [used, 1, 1]))
      settled.push({ call, used })
    }
  }
  const running = Promise.all(Array.from({ length: callers }, caller))
  running.catch(() => undefined)
  return {
    settled,
    counts: () => ({ settled: settled.length, refused, unavailable }),
    async stop(): Promise<void> {
      stopped = true
      await running
      expect(unsettled).toHaveLength(settled.length)
    },
  }
}

type Fault = readonly [name: string, strike: () => Promise<void> | void, heal: () => Promise<void> | void]

const faults: readonly Fault[] = [
  ['killed and restarted', () => server.kill9(), () => server.restart()],
  [
    'stopped and continued',
    () => void process.kill(server.pid, 'SIGSTOP'),
    () => void process.kill(server.pid, 'SIGCONT'),
  ],
]

const sum = (calls: readonly Call[]): number => calls.reduce((total, { used }) => total + used, 0)

describe.each(['open', 'local'] as const)('mode %s under load, while Redis is', (mode) => {
  it.each(faults)(
    '%s: calls go on, nothing is lost or doubled, and counters end as the ledger',
    async (_, strike, heal) => {
      const replicas = await startTwo(mode)
      const [month, requests, open] = [
        period({ capacity: 1e9 }),
        bucket({ capacity: 1e6, refill: 1e6 }),
        concurrency(1_000),
      ]
      const cost = () => costs([month, 10], [requests, 1], [open, 1])
      const loads = replicas.map(({ limits }) => startLoad(limits, cost, 8))
      const more = async (count: number) => {
        const targets = loads.map((load) => load.settled.length + count)
        await eventually(() => loads.every((load, index) => load.settled.length >= (targets[index] ?? 0)))
      }
      for (let round = 0; round < 2; round++) {
        await more(50)
        await strike()
        await eventually(() => replicas.every(({ limits }) => limits.state().mode === mode))
        await more(100)
        await heal()
        await eventually(() => replicas.every(({ limits }) => limits.state().mode === 'redis'))
      }
      await more(50)
      for (const load of loads) await load.stop()
      // Each of the 8 callers had one call on its way when it began.
      for (const load of loads) expect(load.counts().unavailable).toBeLessThanOrEqual(2 * 8)
      const calls = loads.flatMap((load) => load.settled)
      await eventually(() => calls.every(({ call }) => booked.has(call.ifAbandoned.id)), {
        what: () => `${calls.filter(({ call }) => !booked.has(call.ifAbandoned.id)).length} events in the ledger`,
      })
      for (const { call, used } of calls) expect(booked.get(call.ifAbandoned.id)).toBe(used)
      const used = sum(calls)
      for (const { redis } of replicas) {
        await eventually(async () => {
          const [left, , calm] = await redis.read([month, requests, open])
          return left?.remaining === month.capacity - used && calm?.remaining === open.capacity
        })
      }
      expect(await ledger.seed(month, [])).toBe(used)
      // Nothing but what was settled: no admission of unknown outcome was charged.
      expect([...booked.values()].reduce((total, tokens) => total + tokens, 0)).toBe(used)
    },
    120_000,
  )
})

describe('mode local', () => {
  it('two replicas never admit more than is left of a budget, before, while and after Redis is away', async () => {
    const [one, two] = await startTwo('local')
    const month = period({ capacity: 10_000 })
    const cost = () => costs([month, 10])
    const loads = [one, two].map(({ limits }) => startLoad(limits, cost, 8))
    const used = () => sum(loads.flatMap((load) => load.settled))
    await eventually(() => used() > 1_000)
    await server.kill9()
    await eventually(() => loads.every((load) => load.counts().refused > 0))
    for (const load of loads) await load.stop()
    expect(used()).toBeLessThanOrEqual(month.capacity)
    // A share ends when a reservation does not fit any more, beside those that are open.
    expect(used()).toBeGreaterThan(month.capacity - 2 * 8 * 10 - 100)
    await server.restart()
    await eventually(() => [one, two].every(({ limits }) => limits.state().mode === 'redis'))
    await eventually(async () => (await one.redis.read([month]))[0]?.remaining === month.capacity - used())
    const rest: Admission[] = []
    for (;;) {
      const call = admission(costs([month, 1]))
      if ((await two.limits.admit(call)).outcome !== 'admitted') break
      rest.push(call)
    }
    expect(used() + rest.length).toBe(month.capacity)
  }, 120_000)

  it('no call waits for a Redis that hangs, once one has', async () => {
    const [one] = await startTwo('local')
    const requests = bucket({ capacity: 1e6, refill: 1e6 })
    process.kill(server.pid, 'SIGSTOP')
    try {
      await expect(one.limits.admit(admission(costs([requests, 1])))).rejects.toMatchObject({
        reason: 'LIMITS_UNAVAILABLE',
      })
      // A hundred calls one after the other, each of which would have waited for the timeout.
      const patience = AbortSignal.timeout(50 * commandTimeoutMs)
      for (let index = 0; index < 100; index++) {
        const call = admission(costs([requests, 1]))
        expect(await one.limits.admit(call)).toMatchObject({ outcome: 'admitted' })
        await one.limits.settle(settlement(call, [1]))
        patience.throwIfAborted()
      }
    } finally {
      process.kill(server.pid, 'SIGCONT')
    }
  }, 60_000)

  it('a Redis that comes back without its data has the counters of the ledger', async () => {
    await server.stop()
    server = await startRedisServer({ appendonly: false, port: server.port })
    closers.push(() => server.stop())
    const [one, two] = await startTwo('local')
    const month = period({ capacity: 100_000 })
    const loads = [one, two].map(({ limits }) => startLoad(limits, () => costs([month, 10]), 4))
    const used = () => sum(loads.flatMap((load) => load.settled))
    await eventually(() => used() > 500)
    await server.kill9()
    await eventually(() => used() > 1_500)
    await server.restart()
    await eventually(() => [one, two].every(({ limits }) => limits.state().mode === 'redis'))
    const before = used()
    await eventually(() => used() > before + 500)
    for (const load of loads) await load.stop()
    await eventually(async () => (await ledger.seed(month, [])) === used())
    await eventually(async () => (await one.redis.read([month]))[0]?.remaining === month.capacity - used())
  }, 120_000)
})
