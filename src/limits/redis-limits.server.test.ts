import pino from 'pino'
import { afterAll, beforeAll } from 'vitest'
import { type RedisServer, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis } from '../storage/redis.ts'
import { limitsConformance } from './conformance.ts'
import { createRedisLimits } from './redis-limits.ts'

const log = pino({ level: 'silent' })
let server: RedisServer
let prefixes = 0

beforeAll(async () => {
  server = await startRedisServer()
}, 200_000)
afterAll(() => server.stop())

limitsConformance('redis', async (seed) => {
  const redis = await connectRedis({ url: server.url, log })
  const keyPrefix = `t${++prefixes}`
  const make = (instanceId: string) =>
    createRedisLimits({ redis, instanceId, seed, log, keyPrefix, reclaimIdleMs: 1_000, graceMs: 0 })
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
