import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  freePort,
  type RedisServer,
  type RedisServerOptions,
  startRedisServer,
} from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { admission, bucket, drain, open, period, usageEvent } from './conformance-support.ts'
import type { LimitCost, Limits } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { RedisKeys, shardOf } from './redis-keys.ts'
import { createRedisLimits, type RedisLimitsOptions } from './redis-limits.ts'

const log = pino({ level: 'silent' })
const keys = new RedisKeys()
const stream = keys.usage(shardOf('org'))
const used = new Map<string, number>()
const ended: (() => Promise<unknown>)[] = []
let server: RedisServer
let redis: RedisClient
let limits: Limits

async function start(options: RedisServerOptions = {}, urls = 1): Promise<void> {
  server = await startRedisServer(options)
  ended.push(() => server.stop())
  if (urls > 1) {
    const single = await connectRedis({ url: server.url, log })
    ended.unshift(async () => single.disconnect())
    await single.call('cluster', 'ADDSLOTSRANGE', 0, 16383)
    const state = async () => String(await single.call('cluster', 'INFO'))
    await expect.poll(state, { timeout: 20_000 }).toContain('cluster_state:ok')
  }
  redis = await connectRedis({
    url: Array.from({ length: urls }, () => server.url).join(','),
    log,
    commandTimeoutMs: 500,
  })
  ended.unshift(async () => redis.disconnect())
  limits = await make('one')
}

async function make(instanceId: string, changes: Partial<RedisLimitsOptions> = {}): Promise<Limits> {
  const seed = async ({ key }: { key: string }) => used.get(key) ?? 0
  const made = await createRedisLimits({ redis, instanceId, seed, log, reclaimIdleMs: 500, ...changes })
  ended.unshift(() => made.close())
  return made
}

async function admitted(costs: readonly LimitCost[]) {
  const call = admission(costs)
  expect(await limits.admit(call)).toMatchObject({ admitted: true })
  return call
}

async function settleSome(count: number): Promise<string[]> {
  const ids: string[] = []
  for (let index = 0; index < count; index++) {
    const event = usageEvent()
    await limits.settle({ id: event.requestId, organizationId: 'org', actual: [], event })
    ids.push(event.id)
  }
  return ids
}

beforeEach(() => used.clear())
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
    await limits.settle({ ...open(call), actual: [15] })
    expect(await limits.read('org', [month])).toMatchObject([{ remaining: 85 }])
    const found = (await drain(limits.usageLog)).map((entry) => entry.event.id)
    expect(found.sort()).toEqual([...ids, call.ifAbandoned.id].sort())
  }, 60_000)

  it('loses all data is seeded from the ledger, and calls in flight keep their record', async () => {
    await start()
    const month = period({ capacity: 100 })
    const call = await admitted([{ limit: month, amount: 40 }])
    await redis.call('flushall')
    used.set(month.key, 25)
    expect(await limits.read('org', [month])).toMatchObject([{ remaining: 75 }])
    await limits.settle({ ...open(call), actual: [15] })
    await limits.settle({ ...open(call), actual: [15] })
    expect(await limits.read('org', [month])).toMatchObject([{ remaining: 75 }])
    expect((await drain(limits.usageLog)).map((entry) => entry.event.id)).toEqual([call.ifAbandoned.id])
    expect(await limits.usageLog.backlog()).toBe(0)
  }, 60_000)

  it('hangs fails admission within the command timeout, and what it took is given back without a record', async () => {
    await start()
    const month = period({ capacity: 100 })
    expect(await limits.read('org', [month])).toMatchObject([{ remaining: 100 }])
    const { pid } = server
    process.kill(pid, 'SIGSTOP')
    const admitting = limits.admit({ ...admission([{ limit: month, amount: 40 }]), leaseMs: 1 })
    await expect(admitting.finally(() => process.kill(pid, 'SIGCONT'))).rejects.toMatchObject({
      reason: 'LIMITS_UNAVAILABLE',
    })
    await expect.poll(() => limits.usageLog.sweep().catch(() => -1), { timeout: 20_000 }).toBe(0)
    await expect.poll(async () => (await limits.read('org', [month]))[0]?.remaining, { timeout: 20_000 }).toBe(100)
    expect(await limits.usageLog.backlog()).toBe(0)
  }, 60_000)

  it('is a cluster runs the same scripts, and is read as a whole', async () => {
    const cluster = ['--cluster-enabled', 'yes', '--cluster-port', String(await freePort())]
    await start({ args: [...cluster, '--cluster-announce-ip', '127.0.0.1'] }, 2)
    const ids: string[] = []
    for (const organizationId of ['a', 'b', 'c', 'd', 'e']) {
      const costs = [
        { limit: bucket({ capacity: 9 }), amount: 2 },
        { limit: period({ capacity: 9, key: `tokens:consumer:${organizationId}:service:s:2026-11` }), amount: 2 },
      ]
      const call = admission(costs, { organizationId })
      expect(await limits.admit(call)).toMatchObject({ admitted: true, limits: [{ remaining: 7 }, { remaining: 7 }] })
      await limits.settle({ ...open(call), actual: [1, 1] })
      ids.push(call.ifAbandoned.id)
    }
    const { counters = [], events } = await readRedisLimits(redis)
    expect(counters.map(({ consumerId, tokens }) => [consumerId, tokens]).sort()).toEqual(
      ['a', 'b', 'c', 'd', 'e'].map((id) => [id, 1]),
    )
    expect(events.map(({ event }) => event.id).sort()).toEqual(ids.sort())
    expect((await drain(limits.usageLog)).map((entry) => entry.event.id).sort()).toEqual(ids.sort())
    expect(await limits.usageLog.sweep()).toBe(0)
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
    await drain(other.usageLog)
    expect(await redis.call('xlen', stream)).toBe(0)
  })

  it('sets aside what is not a usage event and goes on', async () => {
    await redis.call('xadd', stream, '*', 'event', '{"id":1}')
    const [id] = await settleSome(1)
    expect((await drain(limits.usageLog)).map((entry) => entry.event.id)).toEqual([id])
    expect(await limits.usageLog.backlog()).toBe(0)
    expect(await redis.call('xlen', keys.rejected(shardOf('org')))).toBe(1)
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

it('gives every key of a settled call an end', async () => {
  await start()
  const call = await admitted([
    { limit: bucket({ capacity: 10, refillPerSecond: 2 }), amount: 10 },
    { limit: period({ capacity: 10 }), amount: 1 },
  ])
  await limits.settle({ ...open(call), actual: [10, 1] })
  await drain(limits.usageLog)
  const found = await redis.call('keys', 'tg:*')
  const kept = Array.isArray(found) ? found.map(String).filter((key) => !key.endsWith(':usage')) : []
  expect(kept).toHaveLength(3)
  for (const key of kept) expect(await redis.call('pttl', key)).toBeGreaterThan(60_000)
}, 60_000)

it('names the server without its credentials when it cannot connect', async () => {
  const connecting = connectRedis({ url: 'redis://user:hunter2@127.0.0.1:1/0', log, connectTimeoutMs: 500 })
  await expect(connecting).rejects.toThrow(/Redis at redis:\/\/127\.0\.0\.1:1\/0 cannot be reached/)
  await expect(connecting).rejects.not.toThrow(/hunter2/)
})
