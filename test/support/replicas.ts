import { type DeafProxy, startDeafProxy } from './deaf-proxy.ts'
import { type PostgresServer, startPostgresServer } from './postgres-server.ts'
import { type RedisServer, startRedisServer } from './redis-server.ts'
import { startTollgate, type Tollgate } from './tollgate.ts'

/** Two gateways, as processes, that share a Redis and a Postgres; between the second one and Postgres stands a proxy. */
export interface Replicas {
  readonly one: Tollgate
  readonly other: Tollgate
  readonly adminKey: string
  readonly postgres: PostgresServer
  /** Can keep the second one from hearing what changes. */
  readonly notifications: DeafProxy
  stop(): Promise<void>
}

/** Starts all of it; with nothing left running when that fails. */
export async function startReplicas(env: Readonly<Record<string, string>> = {}): Promise<Replicas> {
  const closers: (() => Promise<unknown>)[] = []
  const stop = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer()
  }
  try {
    const redis: RedisServer = await startRedisServer()
    closers.push(() => redis.stop())
    const postgres = await startPostgresServer({ owned: true, migrated: false })
    closers.push(() => postgres.stop())
    const { target } = postgres
    if (!('socketPath' in target)) throw new Error('the database must be one of our own')
    const notifications = await startDeafProxy(target.socketPath)
    closers.push(() => notifications.close())
    const adminKey = 'an-administrator-key-for-tests-only-0017'
    const start = async (url: string): Promise<Tollgate> => {
      const settings = { DATABASE_URL: url, REDIS_URL: redis.url, TOLLGATE_ADMIN_KEY: adminKey, ...env }
      const tollgate = await startTollgate({ command: 'serve', env: settings })
      closers.push(() => tollgate.stop())
      return tollgate
    }
    const one = await start(postgres.url)
    const other = await start(`postgres://${target.user}@127.0.0.1:${notifications.port}/${target.database}`)
    return { one, other, adminKey, postgres, notifications, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
