/**
 * Everything that a run is about, as real processes: two gateways that share one Redis (append-only file, fsync for each
 * write) and one Postgres, and the practice backend with its log. A proxy stands before each of them.
 *
 *     callers ──proxy── gateway-a ─┬─proxy── redis
 *             └─proxy── gateway-b ─┼─proxy── postgres
 *                                  └─proxy── backend
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sql } from '../../src/storage/postgres.ts'
import { type CutProxy, startCutProxy, type Upstream } from '../support/cut-proxy.ts'
import { startPostgresServer } from '../support/postgres-server.ts'
import { startRedisServer } from '../support/redis-server.ts'
import type { Stage } from './disturbed-load.ts'
import { type FaultyGateway, faultyPostgres, faultyRedis, startBackend, startGateway } from './servers.ts'
import { type Budget, makeTenants } from './tenants.ts'

export interface WorldOptions {
  /** Everything is kept below it: logs, stores. */
  readonly folder: string
  /** Added to the gateways' environment. */
  readonly env: Readonly<Record<string, string>>
  /** Calls that will be made, about; budgets are such that they run into them. */
  readonly calls: number
  /** Gives up restarts. */
  readonly signal: AbortSignal
}

export interface World extends Stage {
  readonly gateways: readonly FaultyGateway[]
  readonly budgets: readonly Budget[]
  readonly sql: Sql
  readonly backendLog: string
  /** Environment of commands that read the stores, not through a proxy. */
  readonly storeEnv: Readonly<Record<string, string>>
  /** Writes what the gateways said into the folder. */
  keepOutputs(): Promise<void>
  /** Ends every process. Safe to call again. */
  close(): Promise<void>
}

const adminKey = 'an-administrator-key-for-tests-only-0003'

/** Starts all of it; with nothing left running when that fails. */
export async function startWorld({ folder, env, calls, signal }: WorldOptions): Promise<World> {
  const closers: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer()
  }
  const proxied = async (upstream: () => Upstream): Promise<CutProxy> => {
    const proxy = await startCutProxy({ upstream })
    closers.push(() => proxy.close())
    return proxy
  }
  try {
    const redis = await startRedisServer({ dataDir: join(folder, 'redis') })
    closers.push(() => redis.stop())
    const postgres = await startPostgresServer({ owned: true, migrated: false, dataDir: join(folder, 'postgres') })
    closers.push(() => postgres.stop())
    const { target } = postgres
    if (!('socketPath' in target)) throw new Error('the database must be one that can be killed')
    const backendLog = join(folder, 'backend.jsonl')
    const backend = await startBackend(backendLog)
    closers.push(() => backend.terminate())

    const redisProxy = await proxied(() => ({ host: '127.0.0.1', port: redis.port }))
    const postgresProxy = await proxied(() => ({ path: target.socketPath }))
    const backendProxy = await proxied(() => ({ host: '127.0.0.1', port: backend.port }))
    const gatewayEnv = {
      DATABASE_URL: `postgres://${target.user}@127.0.0.1:${postgresProxy.port}/${target.database}`,
      REDIS_URL: `redis://127.0.0.1:${redisProxy.port}`,
      TOLLGATE_ADMIN_KEY: adminKey,
      // Open now and then, and not for most of the run.
      BREAKER_FAILURES: '50',
      BREAKER_WINDOW_MS: '1000',
      BREAKER_RESET_MS: '200',
      ...env,
    }
    const startOne = async (name: string): Promise<{ gateway: FaultyGateway; proxy: CutProxy }> => {
      const gateway = await startGateway({ command: 'serve', env: gatewayEnv, dataDir: join(folder, name) }, signal)
      closers.push(() => gateway.terminate())
      const proxy = await proxied(() => ({ host: '127.0.0.1', port: Number(new URL(gateway.current().address).port) }))
      return { gateway, proxy }
    }
    const a = await startOne('gateway-a')
    const b = await startOne('gateway-b')
    const gateways = [a.gateway, b.gateway]

    const url = `http://127.0.0.1:${backendProxy.port}/v1/chat/completions`
    const { tenants, budgets } = await makeTenants([a.gateway.current(), b.gateway.current()], adminKey, url, calls)

    return {
      targets: {
        'gateway-a': { server: a.gateway, proxy: a.proxy },
        'gateway-b': { server: b.gateway, proxy: b.proxy },
        redis: { server: faultyRedis(redis), proxy: redisProxy },
        postgres: { server: faultyPostgres(postgres), proxy: postgresProxy },
        backend: { server: backend, proxy: backendProxy },
      },
      gateways,
      addresses: [a, b].map(({ proxy }) => `http://127.0.0.1:${proxy.port}`),
      tenants,
      budgets,
      sql: postgres.sql,
      backendLog,
      storeEnv: { DATABASE_URL: postgres.url, REDIS_URL: redis.url },
      async keepOutputs() {
        for (const [index, gateway] of gateways.entries()) {
          const text = gateway.outputs().join('\n--- started again ---\n')
          await writeFile(join(folder, `gateway-${index === 0 ? 'a' : 'b'}.log`), text)
        }
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
