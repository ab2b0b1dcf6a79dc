/** How a gate starts in the modes in which it can go on without Redis; what it does then is proved in test/faults. */
import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from './support/eventually.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { scratchDir, spawnTollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0007'
let postgres: PostgresServer
let redis: RedisServer

beforeAll(async () => {
  postgres = await startPostgresServer({ migrated: false })
  redis = await startRedisServer()
})

afterAll(async () => {
  await redis?.stop()
  await postgres?.stop()
})

function environment(mode: string): Record<string, string> {
  return {
    DATABASE_URL: postgres.url,
    REDIS_URL: redis.url,
    TOLLGATE_ADMIN_KEY: adminKey,
    LIMITS_WHEN_REDIS_IS_AWAY: mode,
    BREAKER_FAILURES: '10000',
  }
}

describe.each(['closed', 'open', 'local'])('LIMITS_WHEN_REDIS_IS_AWAY=%s', (mode) => {
  test('a gate does not start while Redis is unreachable, and says so', async () => {
    const dataDir = await scratchDir()
    const env = { ...environment(mode), REDIS_URL: 'redis://127.0.0.1:1', TOLLGATE_DATA_DIR: dataDir, PORT: '0' }
    const { child, output } = spawnTollgate(['serve'], env)
    await eventually(() => child.exitCode !== null)
    expect(child.exitCode).not.toBe(0)
    expect(output()).toContain('Redis at redis://127.0.0.1:1 cannot be reached')
    await rm(dataDir, { recursive: true, force: true })
  })
})

test('a gate that keeps usage while Redis is away refuses a data folder that it cannot use, and names it', async () => {
  const env = { ...environment('local'), TOLLGATE_DATA_DIR: '/dev/null/tollgate', HOST: '127.0.0.1', PORT: '0' }
  const { child, output } = spawnTollgate(['serve'], env)
  await eventually(() => child.exitCode !== null)
  expect(child.exitCode).not.toBe(0)
  expect(output()).toMatch(
    /TOLLGATE_DATA_DIR is needed for LIMITS_WHEN_REDIS_IS_AWAY=local and cannot be used: .*\/dev\/null/,
  )
})
