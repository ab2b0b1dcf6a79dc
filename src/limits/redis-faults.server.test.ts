import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type RedisServer, type RedisServerOptions, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import {
  admission,
  bucket,
  claim,
  concurrency,
  drain,
  FakeLedger,
  period,
  settlement,
  unknownCall,
} from './conformance-support.ts'
import type { Limit, LimitCost, Limits } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { RedisKeys } from './redis-keys.ts'
import { createRedisLimits, type RedisLimitsOptions } from './redis-limits.ts'

const log = pino({ level: 'silent' })
const keys = new RedisKeys()
const stream = keys.usage()
const ended: (() => Promise<unknown>)[] = []
let ledger: FakeLedger
let server: RedisServer
let redis: RedisClient
let limits: Limits

async function start(options: RedisServerOptions = {}): Promise<void> {
  ledger = new FakeLedger()
  server = await startRedisServer(options)
  ended.push(() => server.stop())
  redis = await connect()
  limits = await make('one')
}

async function connect(): Promise<RedisClient> {
  const client = await connectRedis({ url: server.url, log, commandTimeoutMs: 500 })
  ended.unshift(async () => client.disconnect())
  return client
}

async function make(instanceId: string, changes: Partial<RedisLimitsOptions> = {}): Promise<Limits> {
  const made = await createRedisLimits({
    redis,
    instanceId,
    seed: ledger.seed,
    log,
    reclaimIdleMs: 500,
    graceMs: 200,
    ...changes,
  })
  ended.unshift(() => made.close())
  return made
}

async function admitted(costs: readonly LimitCost[]) {
  const call = admission(costs)
  expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
  return call
}

async function settleSome(count: number): Promise<string[]> {
  const ids: string[] = []
  for (let index = 0; index < count; index++) {
    const call = unknownCall()
    await limits.settle(call)
    ids.push(call.event.id)
  }
  return ids
}

async function remaining(...of: Limit[]): Promise<number[]> {
  return (await limits.read(of)).map((state) => state.remaining)
}

async function drainedIds(of: Limits = limits): Promise<string[]> {
  return (await drain(of.usageLog, ledger)).map((event) => event.id).sort()
}

afterEach(async () => {
  for (const end of ended.splice(0)) await end()
}, 60_000)

describe('a Redis that', () => {
  it('is killed keeps every answered settlement and every reservation, and is used again when it is back', async () => {
    await start()
    const month = period({ capacity: 100 })
    const call = await admitted([{ limit: month, amount: 40 }])
    const ids = await settleSome(5)
    await server.kill9()
    await expect(limits.admit(admission([{ limit: month, amount: 1 }]))).rejects.toMatchObject({
      reason: 'LIMITS_UNAVAILABLE',
    })
    expect(await limits.health()).toMatchObject({ ok: false })
    await server.restart()
    await expect.poll(async () => (await limits.health()).ok, { timeout: 20_000 }).toBe(true)
    await limits.settle(settlement(call, [15]))
    expect(await remaining(month)).toEqual([85])
    expect(await drainedIds()).toEqual([...ids, call.ifAbandoned.id].sort())
  }, 60_000)

  it('hangs fails admission within the command timeout, and what it took is given back without a record', async () => {
    await start()
    const month = period({ capacity: 100 })
    expect(await remaining(month)).toEqual([100])
    const { pid } = server
    process.kill(pid, 'SIGSTOP')
    const admitting = limits.admit({ ...admission([{ limit: month, amount: 40 }]), leaseMs: 1 })
    await expect(admitting.finally(() => process.kill(pid, 'SIGCONT'))).rejects.toMatchObject({
      reason: 'LIMITS_UNAVAILABLE',
    })
    await expect.poll(() => limits.usageLog.sweep().catch(() => -1), { timeout: 20_000 }).toBe(0)
    await expect.poll(async () => remaining(month), { timeout: 20_000 }).toEqual([100])
    expect(await limits.usageLog.backlog()).toBe(0)
  }, 60_000)

  it('does not keep what it acknowledges is named in health', async () => {
    await start({ appendonly: false })
    expect(await limits.health()).toMatchObject({
      ok: true,
      detail: expect.stringContaining('not durable: appendonly no'),
    })
  }, 60_000)
})

describe('the usage stream', () => {
  beforeEach(() => start(), 60_000)

  it('is trimmed up to the oldest entry that is not acknowledged, never beyond', async () => {
    const other = await make('two')
    const readOne = () => limits.usageLog.read(1, 1_500, AbortSignal.timeout(20_000))
    const ids = await settleSome(6)
    const held = [await readOne(), await readOne()].flat()
    expect(held.map((entry) => entry.event.id)).toEqual(ids.slice(0, 2))
    const [first, second] = held
    const rest = await other.usageLog.read(100, 1_500, AbortSignal.timeout(20_000))
    expect(rest.length).toBeGreaterThan(0)
    await other.usageLog.acknowledge(rest)
    expect(await redis.call('xlen', stream)).toBe(6)
    if (first === undefined || second === undefined) throw new Error('nothing held')
    await limits.usageLog.acknowledge([first])
    expect(await redis.call('xlen', stream)).toBe(5)
    await limits.usageLog.acknowledge([second])
    await drain(other.usageLog, ledger)
    expect(await redis.call('xlen', stream)).toBe(0)
  })

  it('sets aside what is not a usage event and goes on', async () => {
    await redis.call('xadd', stream, '*', 'event', '{"id":1}')
    const [id] = await settleSome(1)
    expect(await drainedIds()).toEqual([id])
    expect(await limits.usageLog.backlog()).toBe(0)
    expect(await redis.call('xlen', keys.rejected())).toBe(1)
  })

  it('forgets readers that leave with nothing in hand, and keeps those that hold something', async () => {
    const leaving = await make('leaving')
    const holding = await make('holding')
    await settleSome(1)
    await expect.poll(() => holding.usageLog.read(10, 100, AbortSignal.timeout(20_000))).toHaveLength(1)
    await leaving.usageLog.read(10, 0, AbortSignal.timeout(20_000))
    await leaving.close()
    await holding.close()
    const names = JSON.stringify(await redis.call('xinfo', 'CONSUMERS', stream, 'ledger'))
    expect(names).toContain('holding')
    expect(names).not.toContain('leaving')
  })
})

describe('a counter whose limit is newer than a call that moves it', () => {
  const scope = { kind: 'organization', id: 'new', serviceId: undefined } as const
  beforeEach(() => start(), 60_000)

  it('knows the call after its settlement, and after its abandonment', async () => {
    const organization = period({ capacity: 1_000, scope })
    const old = period({ capacity: 100 })
    const calls = [50, 1].map((leaseMs) => {
      const call = admission([{ limit: old, amount: 40 }], { leaseMs: leaseMs === 1 ? 1 : 60_000 })
      return { ...call, ifAbandoned: { ...call.ifAbandoned, organizationId: scope.id } }
    })
    for (const call of calls) expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
    expect(await remaining(organization)).toEqual([1_000])
    const [settled] = calls
    if (settled !== undefined) await limits.settle(settlement(settled, [25]))
    expect(await remaining(organization)).toEqual([975])
    await eventually(async () => (await limits.usageLog.sweep()) === 1)
    expect(await remaining(organization, old)).toEqual([935, 35])
  })
})

describe('the keys', () => {
  it('of a settled call have an end, all of them in one slot', async () => {
    await start()
    const costs = [bucket({ capacity: 10, refill: 2 }), period({ capacity: 10 }), concurrency(2), concurrency(2)].map(
      (limit) => ({ limit, amount: 1 }),
    )
    const call = admission(costs, { claim: claim() })
    await limits.admit(call)
    await admitted(costs.slice(3))
    await limits.settle(settlement(call, [1, 1, 1, 1], Uint8Array.of(1)))
    await drain(limits.usageLog, ledger)
    const found = await redis.call('keys', '*')
    const names = Array.isArray(found) ? found.map(String) : []
    expect(names.filter((name) => !name.startsWith('tg:{limits}:'))).toEqual([])
    const open = /:(usage|leases|generation)$/
    const endless: string[] = []
    for (const name of names) if (Number(await redis.call('pttl', name)) < 60_000) endless.push(name)
    // The reservation of the open call has a lease in its place.
    expect(endless.filter((name) => !open.test(name))).toHaveLength(1)
    expect(names.filter((name) => !open.test(name))).toHaveLength(6)
  }, 60_000)

  it('of limits are what the books read', async () => {
    await start()
    const [known, doubted] = [period({ capacity: 100 }), period({ capacity: 100, unit: 'nanos' })]
    const call = await admitted([known, doubted, concurrency(9)].map((limit) => ({ limit, amount: 5 })))
    const settled = await admitted([{ limit: known, amount: 9 }])
    await limits.settle(settlement(settled, [7]))
    await limits.correct({ events: [], counters: [doubted.key] })
    const { counters = [], reservations, events, unreadable } = await readRedisLimits(redis)
    expect(new Set(counters)).toEqual(
      new Set([
        { key: known.key, used: 7, held: 5 },
        { key: doubted.key, used: undefined, held: 5 },
      ]),
    )
    const holds = [known, doubted].map(({ key }) => ({ key, units: 5 }))
    expect(reservations).toEqual([{ event: call.ifAbandoned, holds }])
    expect(events).toMatchObject([{ event: { id: settled.ifAbandoned.id }, acknowledged: false }])
    expect(unreadable).toBe(0)
  }, 60_000)
})

it('names the server without its credentials when it cannot connect', async () => {
  const connecting = connectRedis({ url: 'redis://user:hunter2@127.0.0.1:1/0', log, connectTimeoutMs: 500 })
  await expect(connecting).rejects.toThrow(/Redis at redis:\/\/127\.0\.0\.1:1\/0 cannot be reached/)
  await expect(connecting).rejects.not.toThrow(/hunter2/)
})
