import { Cluster } from 'ioredis'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type RedisCluster, startRedisCluster } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { admission, bucket, claim, concurrency, FakeLedger, period, settlement, uuid } from './conformance-support.ts'
import type { Limit, Limits } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { RedisKeys } from './redis-keys.ts'
import { createRedisLimits } from './redis-limits.ts'
import { admitted, drainedIds, remaining } from './redis-scene.ts'

const log = pino({ level: 'silent' })
const keys = new RedisKeys()
const ledger = new FakeLedger()
let cluster: RedisCluster
let redis: RedisClient
let limits: Limits

beforeAll(async () => {
  cluster = await startRedisCluster()
  redis = await connectRedis({ url: cluster.url, log })
  limits = await createRedisLimits({ redis, instanceId: 'one', seed: ledger.seed, log, graceMs: 200 })
}, 200_000)

afterAll(async () => {
  await limits.close()
  redis.disconnect()
  await cluster.stop()
}, 60_000)

describe('on a cluster of three masters', () => {
  const scopes = (['key', 'consumer', 'organization', 'service'] as const).map((kind) => ({
    kind,
    id: uuid(),
    serviceId: undefined,
  }))
  const months = scopes.map((scope) => period({ capacity: 1_000, scope }))
  const all: Limit[] = [...months, bucket({ capacity: 100 }), concurrency(10)]
  const costs = all.map((limit) => ({ limit, amount: limit.kind === 'concurrency' ? 1 : 20 }))

  it('a call takes limits of every scope at once, and a loss of all data is made good', async () => {
    const call = await admitted(limits, costs, { claim: claim() })
    const settled = await admitted(limits, costs)
    await limits.settle(settlement(settled, [5, 5, 5, 5, 5, 1]))
    if (!(redis instanceof Cluster)) throw new Error('not a cluster')
    const sizes = await Promise.all(redis.nodes('master').map((node) => node.call('dbsize')))
    expect(sizes.map((size) => Number(size) > 0).sort()).toEqual([false, false, true])
    await Promise.all(redis.nodes('master').map((node) => node.call('flushall')))
    expect(await remaining(limits, ...months)).toEqual([975, 975, 975, 975])
    await limits.settle(settlement(call, [7, 7, 7, 7, 7, 1]))
    expect(await limits.admit(admission([{ limit: months[2] ?? bucket({ capacity: 1 }), amount: 989 }]))).toMatchObject(
      {
        outcome: 'refused',
      },
    )
    expect(await remaining(limits, ...all)).toEqual([988, 988, 988, 988, expect.any(Number), 10])
  })

  it('the books read it as a whole', async () => {
    const { counters = [], reservations, events, unreadable } = await readRedisLimits(redis, keys)
    expect(new Set(counters)).toEqual(new Set(months.map(({ key }) => ({ key, used: 12, held: 0 }))))
    expect([reservations, events.length, unreadable]).toEqual([[], 2, 0])
    expect(await drainedIds(limits, ledger)).toHaveLength(2)
    expect((await readRedisLimits(redis, keys)).events).toEqual([])
  })
})
