import { startPostgresServer } from '../test/support/postgres-server.ts'
import { startRedisServer } from '../test/support/redis-server.ts'
import { pin } from './children.ts'

/** A Redis and a Postgres of the benchmark's own. */
export interface Stores {
  /** What makes a gate use them. */
  readonly env: Readonly<Record<string, string>>
  stop(): Promise<void>
}

/** Starts both, pinned to one core: Redis with an append-only file and an fsync for every write, as in production. */
export async function startStores(cpu: number): Promise<Stores> {
  const redis = await startRedisServer()
  const postgres = await startPostgresServer({ owned: true })
  pin(redis.pid, cpu)
  pin(postgres.pid, cpu)
  return {
    env: { REDIS_URL: redis.url, DATABASE_URL: postgres.url },
    stop: async () => {
      await redis.stop()
      await postgres.stop()
    },
  }
}
