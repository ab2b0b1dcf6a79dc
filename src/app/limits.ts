import { join } from 'node:path'
import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import { newId } from '../ids.ts'
import { createFailoverLimits, type FailoverLimits } from '../limits/failover-limits.ts'
import { monthOf } from '../limits/limit-keys.ts'
import type { Limits, PeriodSeed } from '../limits/limits.ts'
import { createLocalLimits } from '../limits/local-limits.ts'
import { createRedisLimits } from '../limits/redis-limits.ts'
import { startReplicas } from '../limits/replicas.ts'
import { usedUnits } from '../metering/used-units.ts'
import type { Sql } from '../storage/postgres.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import type { SlicesSample } from '../telemetry/metric-sources.ts'
import type { WorkerLink } from '../workers/worker-link.ts'
import { awayFolder, takeFolder } from './away-folders.ts'
import type { Closers } from './closers.ts'

/** Folder of the usage log of embedded limits. */
export function usageFolder(config: Config): string {
  return join(config.dataDir, 'usage')
}

export interface LimitsParts {
  readonly log: Logger
  /** Name of this process among the replicas. */
  readonly instanceId: string
  readonly sql: Sql
  /** Told when this process appended to the usage log in Redis. */
  readonly onAppend: () => void
  /** Undefined: no other process has part in the data folder. */
  readonly worker: Pick<WorkerLink, 'slot' | 'view'> | undefined
}

export interface OpenLimits {
  readonly limits: Limits
  /** Undefined: limits are embedded. */
  readonly redis: RedisClient | undefined
  readonly failover: FailoverLimits | undefined
  /** Opens what another process used while Redis was away; undefined where nobody keeps such a thing. */
  readonly openAway: ((folder: string) => Promise<FailoverLimits>) | undefined
  /** What this process holds of limits in Redis in advance. */
  readonly slices: (() => SlicesSample) | undefined
}

/** Limits in Redis, with what stands in for it while it is away, or in this process. */
export async function openLimits(
  config: Config,
  { log, instanceId: instance, sql, onAppend, worker }: LimitsParts,
  closers: Closers,
): Promise<OpenLimits> {
  const { url, commandTimeoutMs, whenAway, slicePercent } = config.redis
  const seed = ledgerSeed(sql)
  if (url === undefined) {
    const limits = await createLocalLimits({ folder: usageFolder(config), seed, log })
    closers.push(() => limits.close())
    return { limits, redis: undefined, failover: undefined, openAway: undefined, slices: undefined }
  }
  const redis = await connectRedis({ url, log, commandTimeoutMs })
  closers.push(async () => redis.disconnect())
  // Processes in containers often share host name and number: the id makes each start a reader of its own.
  const instanceId = `${instance}-${newId()}`
  const limits = await createRedisLimits({ redis, instanceId, seed, log, onAppend, slicePercent })
  closers.push(() => limits.close())
  const slices = () => limits.sliceSample()
  if (whenAway === 'closed') return { limits, redis, failover: undefined, openAway: undefined, slices }
  // A silent replica must have had the time for two announcements, whatever the timeout.
  const replicas = await startReplicas({ redis, instanceId, leaseMs: Math.max(5_000, 3 * commandTimeoutMs) })
  closers.push(() => replicas.stop())
  const openAway = (folder: string): Promise<FailoverLimits> =>
    createFailoverLimits({
      primary: limits,
      openLocal: (ownSeed) => createLocalLimits({ folder: join(folder, 'usage'), seed: ownSeed, log }),
      folder,
      mode: whenAway,
      replicas: replicas.count,
      seed,
      log,
    })
  const folder = awayFolder(config, worker?.slot)
  closers.push(await takeFolder(folder))
  const failover = await openAway(folder)
  closers.push(() => failover.close())
  return { limits: failover, redis, failover, openAway, slices }
}

/** What the ledger knows of a period: the truth that every counter starts from. */
function ledgerSeed(sql: Sql): PeriodSeed {
  return ({ scope, unit, currency, endsAtMs }, waiting) =>
    usedUnits(sql, {
      scope,
      unit: unit === 'nanos' ? { currency } : 'tokens',
      monthStartMs: Date.parse(`${monthOf(endsAtMs - 1)}-01T00:00:00Z`),
      monthEndMs: endsAtMs,
      waiting,
    })
}
