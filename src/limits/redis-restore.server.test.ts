import { setImmediate as turn } from 'node:timers/promises'
import pino from 'pino'
import { afterEach, describe, expect, it, onTestFinished } from 'vitest'
import { startCutProxy } from '../../test/support/cut-proxy.ts'
import { eventually } from '../../test/support/eventually.ts'
import type { RedisServerOptions } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { admission, bucket, claim, concurrency, period, settlement, uuid } from './conformance-support.ts'
import type { Admission, Limit, LimitCost, Limits } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { admitted, drainedIds, RedisScene, remaining, settleSome } from './redis-scene.ts'

let scene: RedisScene
let redis: RedisClient
let one: Limits
let two: Limits

async function start(options: RedisServerOptions = {}): Promise<void> {
  scene = await RedisScene.start(options)
  redis = await scene.connect()
  ;[one, two] = await Promise.all([scene.process('one'), scene.process('two')])
}

const costs = (limits: readonly Limit[], amount: number): LimitCost[] =>
  limits.map((limit) => ({ limit, amount: limit.kind === 'concurrency' ? 1 : amount }))

afterEach(() => scene.close(), 60_000)

describe('after Redis lost all data', () => {
  it('open calls are held again, settled ones are recorded, and counters start from the ledger', async () => {
    await start()
    const scope = { kind: 'organization', id: uuid(), serviceId: undefined } as const
    const [month, calls, rate] = [period({ capacity: 1_000, scope }), concurrency(5), bucket({ capacity: 500 })]
    scene.ledger.usedBefore.set(month.key, 100)
    const all = [month, calls, rate]
    const [first, second] = [await admitted(one, costs(all, 40)), await admitted(two, costs(all, 50))]
    const drained = await admitted(one, costs(all, 60))
    await one.settle(settlement(drained, [60, 1, 60]))
    await drainedIds(one, scene.ledger)
    const settled = await admitted(two, costs(all, 70))
    await two.settle(settlement(settled, [7, 1, 70]))
    await redis.call('flushall')
    expect(await remaining(one, month, calls, rate)).toEqual([1_000 - 100 - 60 - 7 - 40 - 50, 3, 500])
    await one.settle(settlement(first, [4, 1, 4]))
    // Again, as after a lost answer.
    await one.settle(settlement(first, [4, 1, 4]))
    await one.settle(settlement(drained, [60, 1, 60]))
    await two.settle(settlement(settled, [7, 1, 70]))
    await two.settle(settlement(second, [5, 1, 5]))
    expect(await remaining(two, month, calls)).toEqual([1_000 - 100 - 60 - 7 - 4 - 5, 5])
    await drainedIds(two, scene.ledger)
    expect(new Set(scene.ledger.ids)).toEqual(
      new Set([drained, settled, first, second].map((call) => call.ifAbandoned.id)),
    )
    await two.correct({ events: [], counters: [month.key] })
    expect(await remaining(two, month, calls)).toEqual([1_000 - 100 - 60 - 7 - 4 - 5, 5])
    expect(await two.usageLog.backlog()).toBe(0)
  }, 60_000)

  it('a process notices without a call', async () => {
    await start()
    const [month, calls] = [period({ capacity: 100 }), concurrency(2)]
    const call = await admitted(one, costs([month, calls], 30))
    const [id] = await settleSome(one, 1)
    await redis.call('flushall')
    await eventually(async () => (await readRedisLimits(redis)).reservations.length === 1)
    await eventually(async () => (await readRedisLimits(redis)).events.length === 1)
    const { counters, events } = await readRedisLimits(redis)
    expect(counters).toEqual([{ key: month.key, used: undefined, held: 30 }])
    expect(events.map(({ event }) => event.id)).toEqual([id])
    expect(await remaining(two, calls)).toEqual([1])
    await one.settle(settlement(call, [20, 1]))
    expect(await remaining(two, month, calls)).toEqual([80, 2])
  }, 60_000)

  it('an open call keeps its lease and its claim', async () => {
    await start()
    const held = claim()
    const [month, calls] = [period({ capacity: 100 }), concurrency(2)]
    const call = await admitted(one, costs([month, calls], 30), { claim: held })
    const dying = await admitted(one, costs([month, calls], 10), { leaseMs: 300 })
    await redis.call('flushall')
    expect(await two.admit(admission([], { claim: held }))).toEqual({ outcome: 'running' })
    await eventually(async () => (await two.usageLog.sweep()) === 1)
    expect(await remaining(two, month, calls)).toEqual([60, 1])
    await one.settle(settlement(call, [30, 1], Uint8Array.of(7)))
    expect(await two.admit(admission([], { claim: held }))).toEqual({ outcome: 'answered', answer: Uint8Array.of(7) })
    await one.settle(settlement(dying, [3, 1]))
    expect(await remaining(two, month, calls)).toEqual([67, 2])
  }, 60_000)

  it('a call that was recorded as abandoned is counted once, and still corrected by its late settlement', async () => {
    await start()
    const month = period({ capacity: 100 })
    const call = await admitted(one, costs([month], 40), { leaseMs: 1 })
    await eventually(async () => (await two.usageLog.sweep()) === 1)
    await redis.call('flushall')
    expect(await remaining(one, month)).toEqual([60])
    expect(await two.usageLog.sweep()).toBe(0)
    expect(await remaining(one, month)).toEqual([60])
    await one.settle(settlement(call, [15]))
    expect(await remaining(two, month)).toEqual([85])
    await drainedIds(two, scene.ledger)
    await two.correct({ events: [], counters: [month.key] })
    expect(await remaining(two, month)).toEqual([85])
  }, 60_000)

  it('a threshold is told once: not again, and not never when it is passed just then', async () => {
    await start()
    const month = period({ capacity: 100 })
    const told = async (call: Admission, actual: number) =>
      (await one.settle(settlement(call, [actual]))).crossed.map(({ threshold }) => threshold)
    expect(await told(await admitted(one, costs([month], 1)), 85)).toEqual([80])
    const open = await admitted(one, costs([month], 1))
    await redis.call('flushall')
    expect(await told(open, 14)).toEqual([])
    expect(await told(await admitted(one, costs([month], 1)), 0)).toEqual([])
    const last = await admitted(one, costs([month], 1))
    await redis.call('flushall')
    expect(await told(last, 1)).toEqual([])
    scene.ledger.usedBefore.set(month.key, -50)
    await two.correct({ events: [], counters: [month.key] })
    expect(await told(await admitted(two, costs([month], 1)), 50)).toEqual([100])
  }, 60_000)

  it('a process that starts waits until the others had the time to restore', async () => {
    await start()
    const calls = concurrency(1)
    await admitted(one, costs([calls], 1))
    await redis.call('flushall')
    const three = await scene.process('three')
    expect(await three.admit(admission(costs([calls], 1)))).toMatchObject({ outcome: 'refused' })
  }, 60_000)
})

describe('a process that restores late', () => {
  it('lets the others pass a limit by what it had in flight and not yet in the ledger, until it does', async () => {
    await start()
    const proxy = await startCutProxy({ upstream: () => ({ host: '127.0.0.1', port: scene.server.port }) })
    onTestFinished(() => proxy.close())
    const log = pino({ level: 'silent' })
    const slow = await connectRedis({ url: `redis://127.0.0.1:${proxy.port}`, log, commandTimeoutMs: 500 })
    onTestFinished(() => slow.disconnect())
    const late = await scene.process('late', { redis: slow })
    const month = period({ capacity: 100 })
    const open = await admitted(late, costs([month], 30))
    await late.settle(settlement(await admitted(late, costs([month], 20)), [20]))
    proxy.stall()
    await redis.call('flushall')
    expect(await remaining(one, month)).toEqual([100])
    const other = await admitted(one, costs([month], 100))
    proxy.heal()
    await eventually(async () => (await remaining(one, month)).join() === '-50')
    expect(await one.admit(admission(costs([month], 1)))).toMatchObject({ outcome: 'refused' })
    await eventually(() => late.settle(settlement(open, [30])))
    await one.settle(settlement(other, [100]))
    await drainedIds(one, scene.ledger)
    expect(scene.ledger.ids).toHaveLength(3)
    await one.correct({ events: [], counters: [month.key] })
    expect(await remaining(one, month)).toEqual([-50])
  }, 60_000)
})

describe('a Redis that comes back', () => {
  it('with a clock that is behind is used as any other', async () => {
    await start()
    const ahead = Date.now() + 86_400_000
    await redis.call('xadd', scene.keys.usage(), `${ahead}-0`, 'event', 'nonsense')
    const ids = await settleSome(one, 2)
    await redis.call('flushall')
    const month = period({ capacity: 100 })
    const call = await admitted(one, costs([month], 30))
    await one.settle(settlement(call, [30]))
    expect(await remaining(two, month)).toEqual([70])
    expect(new Set(await drainedIds(one, scene.ledger))).toEqual(new Set([...ids, call.ifAbandoned.id]))
  }, 60_000)

  it('without its data has all of it again from the processes', async () => {
    await start({ appendonly: false })
    const [month, calls] = [period({ capacity: 100 }), concurrency(2)]
    const call = await admitted(one, costs([month, calls], 30))
    const ids = await settleSome(two, 3)
    await scene.server.kill9()
    await scene.server.restart()
    await eventually(async () => (await remaining(two, month, calls)).join() === '70,1')
    await eventually(() => one.settle(settlement(call, [20, 1])))
    expect(await remaining(two, month, calls)).toEqual([80, 2])
    expect(new Set(await drainedIds(one, scene.ledger))).toEqual(new Set([...ids, call.ifAbandoned.id]))
  }, 60_000)

  it('without its last writes has them again, and a call that ended in them stays ended', async () => {
    await start({ appendonly: false })
    const [month, calls] = [period({ capacity: 100 }), concurrency(3)]
    const [early, late] = [
      await admitted(one, costs([month, calls], 30)),
      await admitted(two, costs([month, calls], 20)),
    ]
    await redis.call('save')
    await one.settle(settlement(early, [10, 1]))
    const lost = await admitted(one, costs([month, calls], 5))
    await scene.server.kill9()
    await scene.server.restart()
    await eventually(async () => (await remaining(two, month, calls)).join() === `${100 - 10 - 20 - 5},1`)
    for (const call of [early, late, lost]) await eventually(() => one.settle(settlement(call, [1, 1])))
    expect(await remaining(two, month, calls)).toEqual([100 - 10 - 1 - 1, 3])
    const ids = new Set(await drainedIds(one, scene.ledger))
    expect(ids).toEqual(new Set([early, late, lost].map((call) => call.ifAbandoned.id)))
    expect((await readRedisLimits(redis)).reservations).toEqual([])
  }, 60_000)
})

describe('a Redis that was restarted without its last writes', () => {
  it('admits nothing on what is left before all have given back what they hold', async () => {
    await start({ appendonly: false })
    const calls = concurrency(1)
    // Each process has a connection that learnt the scripts, and has begun to look.
    for (const from of [one, two]) await remaining(from, calls)
    await redis.call('save')
    const call = await admitted(one, costs([calls], 1))
    await scene.server.kill9()
    await scene.server.restart()
    const { outcome } = await eventually(() => two.admit(admission(costs([calls], 1))))
    expect(outcome).toBe('refused')
    await one.settle(settlement(call, [1]))
    expect(await remaining(two, calls)).toEqual([1])
  }, 60_000)

  it('is noticed by the process that made them, also when another one writes first', async () => {
    await start({ appendonly: false })
    const proxy = await startCutProxy({ upstream: () => ({ host: '127.0.0.1', port: scene.server.port }) })
    onTestFinished(() => proxy.close())
    const log = pino({ level: 'silent' })
    const slow = await connectRedis({ url: `redis://127.0.0.1:${proxy.port}`, log, commandTimeoutMs: 500 })
    onTestFinished(() => slow.disconnect())
    const late = await scene.process('late', { redis: slow })
    const [month, calls] = [period({ capacity: 100 }), concurrency(5)]
    const call = await admitted(late, costs([month, calls], 30))
    await redis.call('save')
    await late.settle(settlement(call, [10, 1]))
    const lost = await admitted(late, costs([month, calls], 20))
    proxy.stall()
    await scene.server.kill9()
    await scene.server.restart()
    await eventually(() => settleSome(two, 1))
    proxy.cut()
    proxy.heal()
    await eventually(async () => (await remaining(two, month, calls)).join() === '70,4')
    await eventually(() => late.settle(settlement(lost, [20, 1])))
    const ids = new Set(await drainedIds(one, scene.ledger))
    for (const { ifAbandoned } of [call, lost]) expect(ids).toContain(ifAbandoned.id)
    expect(await remaining(two, month, calls)).toEqual([70, 5])
  }, 60_000)
})

describe('a loss of all data in the middle of a load from two processes', () => {
  const runs = [1, 2, 3, 4, 5]
  it.each(runs)(
    'ends in the right counters, loses nothing, and passes no limit (run %i)',
    async (run) => {
      await start()
      const scope = { kind: 'organization', id: uuid(), serviceId: undefined } as const
      const wide = period({ capacity: 1_000_000, scope })
      const edge = period({ capacity: 600, scope, unit: 'nanos' })
      const calls = concurrency(5)
      const limits = [wide, edge, calls]
      const settled: string[] = []
      const used = { tokens: 0, nanos: 0 }
      const refusals = new Set<Limit | undefined>()
      const long = [await admitted(one, costs(limits, 5)), await admitted(two, costs(limits, 5))]
      let open = long.length
      let mostOpen = 0

      async function settle(from: Limits, call: Admission, tokens: number, nanos: number): Promise<void> {
        open -= 1
        await from.settle(settlement(call, [tokens, nanos, 1]))
        settled.push(call.ifAbandoned.id)
        used.tokens += tokens
        used.nanos += nanos
      }

      /** Uses of the money exactly what was reserved, of the tokens less or more. */
      async function call(from: Limits, index: number): Promise<void> {
        const next = admission(limits.map((limit) => ({ limit, amount: limit === wide ? 20 : 1 })))
        let result = await from.admit(next)
        while (result.outcome === 'refused' && limits[result.refusedBy] === calls) result = await from.admit(next)
        if (result.outcome === 'refused') refusals.add(limits[result.refusedBy])
        if (result.outcome !== 'admitted') return
        open += 1
        mostOpen = Math.max(mostOpen, open)
        for (let turns = (index * run) % 7; turns > 0; turns--) await turn()
        await settle(from, next, (index * 7 * run) % 31, 1)
      }

      const loads = [one, two].map(async (from, process) => {
        for (let index = 0; index < 150; index++) {
          await Promise.all([0, 1, 2].map((part) => call(from, 3 * index + part + process)))
        }
      })
      const draining = new AbortController()
      onTestFinished(() => draining.abort())
      const drains = [one, two].map(async ({ usageLog }) => {
        while (!draining.signal.aborted) {
          const batch = await usageLog.read(20, 50, draining.signal)
          scene.ledger.take(batch.events())
          await batch.acknowledge()
        }
      })
      const flushing = [1, 2, 3].map(async (flush) => {
        await eventually(() => settled.length >= flush * (60 + 19 * run))
        await redis.call('flushall')
      })
      await Promise.all([...loads, ...flushing])
      draining.abort()
      await Promise.all(drains)
      await settle(one, long[0] ?? admission([]), 5, 5)
      await settle(two, long[1] ?? admission([]), 5, 5)

      // Calls were admitted as long as there was money, and no others.
      expect(used.nanos).toBe(600)
      expect(refusals).toEqual(new Set([edge]))
      expect(mostOpen).toBeLessThanOrEqual(5)
      const right = [wide.capacity - used.tokens, 0, 5]
      expect(await remaining(one, ...limits)).toEqual(right)
      await drainedIds(one, scene.ledger)
      expect(new Set(scene.ledger.ids)).toEqual(new Set(settled))
      expect(await one.usageLog.backlog()).toBe(0)
      await one.correct({ events: [], counters: [wide.key, edge.key] })
      expect(await remaining(one, ...limits)).toEqual(right)
      expect((await readRedisLimits(redis)).reservations).toEqual([])
    },
    60_000,
  )
})
