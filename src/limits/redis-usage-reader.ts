import type { StorageLog } from '../storage/postgres.ts'
import type { RedisClient } from '../storage/redis.ts'
import { RedisKept } from './redis-kept.ts'
import { RedisKeys } from './redis-keys.ts'
import { RedisScripts } from './redis-scripts.ts'
import { RedisUsageLog } from './redis-usage-log.ts'

export interface RedisUsageReaderOptions {
  /** Stays the caller's. */
  readonly redis: RedisClient
  /** Name among the readers of the usage log: no living one may share it. */
  readonly instanceId: string
  readonly log: StorageLog
}

/**
 * A reader of the usage log of `createRedisLimits`, for a thread that reads and acknowledges. Sweeping stays with the
 * limits, which know what this process would have to give back.
 */
export async function openRedisUsageReader({
  redis,
  instanceId,
  log,
}: RedisUsageReaderOptions): Promise<RedisUsageLog> {
  const usageLog = new RedisUsageLog({
    redis,
    scripts: await RedisScripts.load(redis),
    keys: new RedisKeys(),
    kept: new RedisKept(abandonedTtlMs),
    log,
    instanceId,
    reclaimIdleMs: 5_000,
    abandonedTtlMs,
  })
  await usageLog.open()
  return usageLog
}

const abandonedTtlMs = 86_400_000
