import type { Sql } from '../src/storage/postgres.ts'
import { startPostgresServer } from '../test/support/postgres-server.ts'
import { startRedisServer } from '../test/support/redis-server.ts'
import { pin } from './children.ts'

/** A Redis and a Postgres of the benchmark's own. */
export interface Stores {
  /** What makes a gate use them. */
  readonly env: Readonly<Record<string, string>>
  readonly sql: Sql
  stop(): Promise<void>
}

/**
 * Starts both, or Postgres alone, pinned to one core: Redis with an append-only file and an fsync for every write, as in
 * production.
 */
export async function startStores(cpu: number, options: { readonly redis?: boolean } = {}): Promise<Stores> {
  const redis = options.redis === false ? undefined : await startRedisServer()
  const postgres = await startPostgresServer({ owned: true })
  for (const server of [redis, postgres]) if (server !== undefined) pin(server.pid, cpu)
  return {
    env: { DATABASE_URL: postgres.url, ...(redis === undefined ? {} : { REDIS_URL: redis.url }) },
    sql: postgres.sql,
    stop: async () => {
      await redis?.stop()
      await postgres.stop()
    },
  }
}
