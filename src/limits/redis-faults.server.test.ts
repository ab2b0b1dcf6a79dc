import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import type { RedisServerOptions } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { admission, bucket, claim, concurrency, drain, period, settlement } from './conformance-support.ts'
import type { Limits } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { admitted, drainedIds, RedisScene, remaining, settleSome } from './redis-scene.ts'

let scene: RedisScene
let redis: RedisClient
let limits: Limits

async function start(options: RedisServerOptions = {}): Promise<void> {
  scene = await RedisScene.start(options)
  redis = await scene.connect()
  limits = await scene.process('one', { redis })
}

afterEach(() => scene.close(), 60_000)

describe('a Redis that', () => {
  it('is killed keeps every answered settlement and every reservation, and is used again when it is back', async () => {
    await start()
    const month = period({ capacity: 100 })
    const call = await admitted(limits, [{ limit: month, amount: 40 }])
    const ids = await settleSome(limits, 5)
    await scene.server.kill9()
    await expect(limits.admit(admission([{ limit: month, amount: 1 }]))).rejects.toMatchObject({
      reason: 'LIMITS_UNAVAILABLE',
    })
    expect(await limits.health()).toMatchObject({ ok: false })
    await scene.server.restart()
    await expect.poll(async () => (await limits.health()).ok, { timeout: 20_000 }).toBe(true)
    await limits.settle(settlement(call, [15]))
    expect(await remaining(limits, month)).toEqual([85])
    expect(await drainedIds(limits, scene.ledger)).toEqual([...ids, call.ifAbandoned.id].sort())
  }, 60_000)

  it('hangs fails admission within the command timeout, and what it took is given back without a record', async () => {
    await start()
    const month = period({ capacity: 110 })
    // Before it hangs it knows the counter and the script, or the admission takes nothing.
    await admitted(limits, [{ limit: month, amount: 10 }])
    const { pid } = scene.server
    process.kill(pid, 'SIGSTOP')
    const admitting = limits.admit({ ...admission([{ limit: month, amount: 40 }]), leaseMs: 1 })
    await expect(admitting.finally(() => process.kill(pid, 'SIGCONT'))).rejects.toMatchObject({
      reason: 'LIMITS_UNAVAILABLE',
    })
    await expect.poll(() => limits.usageLog.sweep().catch(() => -1), { timeout: 20_000 }).toBe(0)
    await expect.poll(async () => remaining(limits, month), { timeout: 20_000 }).toEqual([100])
    expect(await limits.usageLog.backlog()).toBe(0)
  }, 60_000)

  it('holds something else where a counter should be fails the calls of that limit, and none that come with them', async () => {
    await start()
    const [month, broken] = [period({ capacity: 100 }), period({ capacity: 100 })]
    await redis.call('lpush', scene.keys.limit(broken.key), 'nonsense')
    const calls = [month, broken, month].map((limit) => admission([{ limit, amount: 10 }]))
    const [first, second, third] = await Promise.allSettled(calls.map((call) => limits.admit(call)))
    expect([first, third]).toMatchObject([{ value: { outcome: 'admitted' } }, { value: { outcome: 'admitted' } }])
    expect(second).toMatchObject({ reason: { reason: 'LIMITS_UNAVAILABLE' } })
    await redis.call('del', scene.keys.limit(broken.key))
    expect(await remaining(limits, month, broken)).toEqual([80, 100])
  }, 60_000)

  it('is full admits nothing, and takes nothing', async () => {
    await start()
    const month = period({ capacity: 100 })
    const open = await admitted(limits, [{ limit: month, amount: 10 }])
    await redis.call('config', 'set', 'maxmemory', '1')
    const calls = [10, 20, 30].map((amount) => admission([{ limit: month, amount }]))
    const refused = await Promise.allSettled(calls.map((call) => limits.admit(call)))
    expect(refused.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    await expect(limits.settle(settlement(open, [5]))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await redis.call('config', 'set', 'maxmemory', '0')
    expect(await remaining(limits, month)).toEqual([90])
    await limits.settle(settlement(open, [5]))
    expect(await remaining(limits, month)).toEqual([95])
    expect(await drainedIds(limits, scene.ledger)).toEqual([open.ifAbandoned.id])
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
    const other = await scene.process('two')
    const readOne = () => limits.usageLog.read(1, 1_500, AbortSignal.timeout(20_000))
    const ids = await settleSome(limits, 6)
    const [first, second] = [await readOne(), await readOne()]
    expect([first, second].flatMap((batch) => batch.events().map((event) => event.id))).toEqual(ids.slice(0, 2))
    const rest = await other.usageLog.read(100, 1_500, AbortSignal.timeout(20_000))
    expect(rest.size).toBeGreaterThan(0)
    await rest.acknowledge()
    expect(await redis.call('xlen', scene.keys.usage())).toBe(6)
    await first.acknowledge()
    expect(await redis.call('xlen', scene.keys.usage())).toBe(5)
    await second.acknowledge()
    await drain(other.usageLog, scene.ledger)
    expect(await redis.call('xlen', scene.keys.usage())).toBe(0)
  })

  it('sets aside what is not a usage event and goes on', async () => {
    await redis.call('xadd', scene.keys.usage(), '*', 'event', '{"id":1}')
    const [id] = await settleSome(limits, 1)
    expect(await drainedIds(limits, scene.ledger)).toEqual([id])
    expect(await limits.usageLog.backlog()).toBe(0)
    expect(await redis.call('xlen', scene.keys.rejected())).toBe(1)
  })

  it('forgets readers that leave with nothing in hand, and keeps those that hold something', async () => {
    const leaving = await scene.process('leaving')
    const holding = await scene.process('holding')
    await settleSome(limits, 1)
    await expect.poll(() => holding.usageLog.read(10, 100, AbortSignal.timeout(20_000))).toMatchObject({ size: 1 })
    await leaving.usageLog.read(10, 0, AbortSignal.timeout(20_000))
    await leaving.close()
    await holding.close()
    const names = JSON.stringify(await redis.call('xinfo', 'CONSUMERS', scene.keys.usage(), 'ledger'))
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
    expect(await remaining(limits, organization)).toEqual([1_000])
    const [settled] = calls
    if (settled !== undefined) await limits.settle(settlement(settled, [25]))
    expect(await remaining(limits, organization)).toEqual([975])
    await eventually(async () => (await limits.usageLog.sweep()) === 1)
    expect(await remaining(limits, organization, old)).toEqual([935, 35])
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
    await admitted(limits, costs.slice(3))
    await limits.settle(settlement(call, [1, 1, 1, 1], Uint8Array.of(1)))
    await drain(limits.usageLog, scene.ledger)
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
    const call = await admitted(
      limits,
      [known, doubted, concurrency(9)].map((limit) => ({ limit, amount: 5 })),
    )
    const settled = await admitted(limits, [{ limit: known, amount: 9 }])
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
  const connecting = connectRedis({
    url: 'redis://user:hunter2@127.0.0.1:1/0',
    log: pino({ level: 'silent' }),
    connectTimeoutMs: 500,
  })
  await expect(connecting).rejects.toThrow(/Redis at redis:\/\/127\.0\.0\.1:1\/0 cannot be reached/)
  await expect(connecting).rejects.not.toThrow(/hunter2/)
})
