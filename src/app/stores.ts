import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { type BooksWatch, watchBooks } from '../books/books-watch.ts'
import { readBooks } from '../books/read-books.ts'
import type { Config } from '../config.ts'
import { startChangeRetention } from '../control/change-retention.ts'
import type { FailoverLimits } from '../limits/failover-limits.ts'
import type { Limits } from '../limits/limits.ts'
import { readLocalLimits } from '../limits/local-audit.ts'
import { readRedisLimits } from '../limits/redis-audit.ts'
import { createDrain, type RunningDrain } from '../metering/drain.ts'
import { readLedger } from '../metering/ledger-audit.ts'
import { LedgerThread } from '../metering/ledger-thread.ts'
import { startPartitions } from '../metering/partitions.ts'
import { createThreadDrain } from '../metering/thread-drain.ts'
import { startEmbeddedPostgres } from '../storage/embedded-postgres.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { migrate } from '../storage/migrate.ts'
import { connectPostgres, describeError, type PostgresTarget, type Sql, type StorageLog } from '../storage/postgres.ts'
import type { RedisClient } from '../storage/redis.ts'
import type { WorkerLink } from '../workers/worker-link.ts'
import { awayFolder } from './away-folders.ts'
import type { Closers } from './closers.ts'
import { startLeftovers } from './leftovers.ts'
import { type OpenLimits, openLimits, usageFolder } from './limits.ts'

/** Where everything is kept, and what moves between the stores. */
export interface Stores {
  readonly sql: Sql
  readonly limits: Limits
  /** Undefined: limits are embedded. */
  readonly redis: RedisClient | undefined
  readonly failover: FailoverLimits | undefined
  /** What this process holds of limits in Redis in advance. */
  readonly slices: OpenLimits['slices']
  readonly drain: RunningDrain
  readonly books: BooksWatch
  /** Connections to Redis that are established; undefined: none is configured. */
  readonly redisConnections: (() => number) | undefined
  /** Events that wait for the ledger, in all usage logs. */
  usageBacklog(): Promise<number>
  /** What all drains wrote. */
  drained(): { readonly lastWriteAtMs: number | undefined; readonly written: number; readonly duplicates: number }
}

export interface StoresParts {
  readonly log: Logger
  /** Name of this process among the replicas. */
  readonly instanceId: string
  /** Undefined: no other process has part in the data folder. */
  readonly worker: Pick<WorkerLink, 'slot' | 'database' | 'view'> | undefined
  /** Unix milliseconds. */
  readonly now: () => number
}

/** Opens Postgres, with its schema up to date, the limits, and the way of usage into the ledger. */
export async function openStores(
  config: Config,
  { log, instanceId, now, worker }: StoresParts,
  closers: Closers,
): Promise<Stores> {
  const embedded = worker === undefined ? await openHost(config, log, closers) : worker.database
  const target = embedded ?? { url: config.database.url ?? '' }
  const maxConnections = config.database.maxConnections - ledgerConnections(config)
  const sql = connectPostgres({ ...target, log, maxConnections, applicationName: instanceId })
  closers.push(() => sql.end(2_000))
  await migrate(sql, { log })
  const partitions = await startPartitions({ sql, log, retentionMonths: config.usageRetentionMonths })
  closers.push(() => partitions.stop())
  const changeRetention = startChangeRetention({ sql, log, days: config.changesRetentionDays })
  closers.push(() => changeRetention.stop())

  let nudge = (): void => undefined
  const parts = { log, instanceId, sql, worker, onAppend: () => nudge() }
  const { limits, redis, failover, openAway, slices } = await openLimits(config, parts, closers)
  const ledger = await openLedger(config, target, { log, instanceId })
  nudge = () => ledger.nudge()
  closers.push(() => ledger.close())
  if (openAway !== undefined) {
    const leftovers = await startLeftovers({ dataDir: config.dataDir, worker, open: openAway, ledger, log })
    closers.push(() => leftovers.stop())
  }
  const { usageLog } = limits
  const drain =
    redis === undefined ? createDrain({ usageLog, ledger, log }) : createThreadDrain({ usageLog, thread: ledger, log })
  drain.start()
  closers.push(() => drain.stop())
  const localDrain = failover && createDrain({ usageLog: failover.localUsageLog, ledger, log })
  localDrain?.start()
  closers.push(async () => localDrain?.stop())
  // What an earlier process used while Redis was away must be in the counters before they admit anything.
  if (localDrain !== undefined && !(await localDrain.drained(replayTimeoutMs))) {
    throw new Error(
      `The usage in ${awayFolder(config, worker?.slot)} could not be written to the ledger: ${localDrain.state().failing}`,
    )
  }
  const books = watchBooks({
    sql,
    read: (month) =>
      readBooks(
        {
          limits: () => (redis === undefined ? readLocalLimits(usageFolder(config)) : readRedisLimits(redis)),
          ledger: (question) => readLedger(sql, question),
        },
        { month, backends: undefined },
      ),
    repair: (counters) => limits.correct({ events: [], counters }),
    log,
    now,
  })
  closers.push(() => books.stop())
  return {
    sql,
    limits,
    redis,
    failover,
    slices,
    drain,
    books,
    redisConnections: redis && (() => Number(redis.status === 'ready') + Number(ledger.drained().isConnected)),
    usageBacklog: async () => (await limits.usageLog.backlog()) + ((await failover?.localUsageLog.backlog()) ?? 0),
    drained() {
      const { lastWriteMs, written, duplicates } = drain.state()
      const local = localDrain?.state()
      return {
        lastWriteAtMs: latest(lastWriteMs, local?.lastWriteMs),
        written: written + (local?.written ?? 0),
        duplicates: duplicates + (local?.duplicates ?? 0),
      }
    },
  }
}

/** A log that takes longer than this to replay is a fault that somebody must look at. */
const replayTimeoutMs = 600_000

/**
 * What one process holds for all that share a port: the data folder, where something is kept in it, and the embedded
 * Postgres, which is returned; undefined where there is another one.
 */
export async function openHost(config: Config, log: StorageLog, closers: Closers): Promise<PostgresTarget | undefined> {
  const { database, redis, workers } = config
  if (database.url === undefined || redis.url === undefined || redis.whenAway !== 'closed') {
    closers.push(await takeDataDir(config))
  }
  if (database.url !== undefined) return undefined
  const embedded = await startEmbeddedPostgres({
    dataDir: join(config.dataDir, 'postgres'),
    log,
    // For one worker more than there are, while one is replaced.
    maxConnections: (workers + 1) * (database.maxConnections + listeners),
  })
  closers.push(() => embedded.stop())
  const { socketPath, user, database: name } = embedded
  return { socketPath, user, database: name }
}

/** Connections of a process beside its pool. */
const listeners = 10

/** Makes this process the only user of the data folder; returns what gives it back. */
async function takeDataDir({ dataDir, redis }: Config): Promise<() => Promise<void>> {
  try {
    await mkdir(dataDir, { recursive: true })
    return await lockFolder(dataDir)
  } catch (error) {
    const user = redis.whenAway === 'closed' ? 'embedded stores' : `LIMITS_WHEN_REDIS_IS_AWAY=${redis.whenAway}`
    throw new Error(`TOLLGATE_DATA_DIR is needed for ${user} and cannot be used: ${describeError(error)}`)
  }
}

/** The thread that writes the ledger, and drains the usage log where that is in Redis. */
function openLedger(
  config: Config,
  target: PostgresTarget,
  { log, instanceId }: Pick<StoresParts, 'log' | 'instanceId'>,
): Promise<LedgerThread> {
  const { url, commandTimeoutMs } = config.redis
  const maxConnections = ledgerConnections(config)
  const stream = url === undefined ? undefined : { url, commandTimeoutMs, instanceId }
  return LedgerThread.start({ target, applicationName: instanceId, maxConnections, stream, log })
}

/** Of all connections those that write the ledger: one for each lane of the drain, where there are enough. */
function ledgerConnections({ database }: Config): number {
  return database.maxConnections > 3 ? 2 : 1
}

function latest(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? (one ?? other) : Math.max(one, other)
}
