import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import { ensurePartitions } from './month-partitions.ts'
import { releaseQuarantine } from './release.ts'
import { dropOldRecords } from './retention.ts'

export interface PartitionsOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Records of this many whole months before the current one are kept, older ones dropped; default 0: all are kept. */
  readonly retentionMonths?: number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** How often to look; default once a day. */
  readonly everyMs?: number
  /** Longest that `stop` waits for a look that runs; default 5 000. */
  readonly stopTimeoutMs?: number
}

/**
 * Makes the partitions that the ledger needs now, takes events that lacked one out of quarantine, and drops partitions
 * that are past retention; looks again every day until stopped. Rejects when the first look fails, except at dropping;
 * what fails later is logged and repeated after ten minutes, which three months ahead leave ample room for.
 */
export async function startPartitions(options: PartitionsOptions): Promise<{ stop(): Promise<void> }> {
  const { sql, log, retentionMonths = 0, now = Date.now, everyMs = 86_400_000, stopTimeoutMs = 5_000 } = options
  const retryMs = Math.min(everyMs, 600_000)
  let timer: NodeJS.Timeout | undefined
  let looking: Promise<void> = Promise.resolve()
  let isStopped = false

  /** Resolves to the pause before the next look. */
  const look = async (): Promise<number> => {
    const made = await ensurePartitions(sql, now())
    if (made.length > 0) log.info({ partitions: made }, 'made partitions of the ledger')
    const released = await releaseQuarantine(sql, now())
    if (released > 0) log.info({ events: released }, 'took usage events out of quarantine into the ledger')
    return (await retain()) ? everyMs : retryMs
  }
  /** False when it failed: old records that stay a while longer are no reason not to start. */
  const retain = async (): Promise<boolean> => {
    if (retentionMonths === 0) return true
    try {
      const { partitions, seenIds } = await dropOldRecords(sql, retentionMonths, now())
      if (partitions.length > 0) log.info({ partitions, seenIds }, 'dropped partitions of the ledger past retention')
      return true
    } catch (error) {
      log.warn({ err: error }, 'could not drop partitions of the ledger past retention')
      return false
    }
  }
  const schedule = (afterMs: number): void => {
    if (isStopped) return
    timer = setTimeout(() => {
      looking = look().then(schedule, (error: unknown) => {
        log.warn({ err: error }, 'could not make partitions of the ledger')
        schedule(retryMs)
      })
    }, afterMs)
    timer.unref()
  }
  schedule(await look())
  return {
    stop: async () => {
      isStopped = true
      clearTimeout(timer)
      await within(stopTimeoutMs, looking).catch((error: unknown) => {
        log.warn({ reason: describeError(error) }, 'stopped before the look at the partitions of the ledger was over')
      })
    },
  }
}
