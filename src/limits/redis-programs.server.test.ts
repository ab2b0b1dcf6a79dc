import pino from 'pino'
import { afterAll, beforeAll } from 'vitest'
import { type RedisServer, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { ClockedRedis } from './clocked-redis.ts'
import { programConformance } from './conformance-programs.ts'
import { FakeLedger } from './conformance-support.ts'
import { createRedisLimits } from './redis-limits.ts'

const log = pino({ level: 'silent' })
let server: RedisServer
let redis: RedisClient

beforeAll(async () => {
  server = await startRedisServer({ appendonly: false })
  redis = await connectRedis({ url: server.url, log })
}, 60_000)
afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

programConformance('redis', async () => {
  const clocked = new ClockedRedis(redis)
  await clocked.setClock(Date.now())
  await clocked.loseData()
  const ledger = new FakeLedger()
  const { seed } = ledger
  const make = (instanceId: string) =>
    createRedisLimits({ redis: clocked.client, instanceId, seed, log, reclaimIdleMs: 60_000, graceMs: 0 })
  const processes = [await make('one'), await make('two')]
  return {
    processes,
    ledger,
    loses: 'store',
    setClock: (nowMs) => clocked.setClock(nowMs),
    loseAnswer: (callId) => clocked.loseAnswer(callId),
    async loseData() {
      await clocked.loseData()
      // Both have given back what they know before anything is admitted again.
      for (const limits of processes) await limits.correct({ events: [], counters: [] })
    },
    async close() {
      for (const limits of processes) await limits.close()
    },
  }
})
