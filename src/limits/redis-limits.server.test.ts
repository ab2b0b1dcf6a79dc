import pino from 'pino'
import { afterAll, beforeAll, describe } from 'vitest'
import { startRedisCluster, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis } from '../storage/redis.ts'
import { limitsConformance } from './conformance.ts'
import { createRedisLimits } from './redis-limits.ts'

interface RedisUnderTest {
  readonly url: string
  stop(): Promise<void>
}

const log = pino({ level: 'silent' })

/** The whole suite on this Redis; each test has keys of its own. */
function redisConformance(name: string, startRedis: () => Promise<RedisUnderTest>, slicePercent = 12): void {
  describe(name, () => {
    let server: RedisUnderTest
    let prefixes = 0

    beforeAll(async () => {
      server = await startRedis()
    }, 200_000)
    afterAll(() => server.stop())

    limitsConformance(name, async (seed) => {
      const redis = await connectRedis({ url: server.url, log })
      const keyPrefix = `t${++prefixes}`
      const make = (instanceId: string) =>
        createRedisLimits({ redis, instanceId, seed, log, keyPrefix, slicePercent, reclaimIdleMs: 1_000, graceMs: 0 })
      const [limits, other] = await Promise.all([make('one'), make('two')])
      return {
        limits,
        other,
        async close() {
          await limits.close()
          await other.close()
          redis.disconnect()
        },
      }
    })
  })
}

redisConformance('redis', startRedisServer)
redisConformance('redis without slices', startRedisServer, 0)
redisConformance('a cluster of three masters', startRedisCluster)
