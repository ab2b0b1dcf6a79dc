import type { Sql, StorageLog } from '../storage/postgres.ts'
import { ensurePartitions } from './month-partitions.ts'
import { releaseQuarantine } from './release.ts'

export interface PartitionsOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** How often to look; default once a day. */
  readonly everyMs?: number
}

/**
 * Makes the partitions that the ledger needs now, and takes events that lacked one out of quarantine; looks again every
 * day until stopped. Rejects when the first look fails; later ones are logged and repeated after ten minutes, which three months ahead leave ample room for.
 */
export async function startPartitions(options: PartitionsOptions): Promise<{ stop(): Promise<void> }> {
  const { sql, log, now = Date.now, everyMs = 86_400_000 } = options
  let timer: NodeJS.Timeout | undefined
  let looking: Promise<void> = Promise.resolve()
  let isStopped = false

  const look = async (): Promise<void> => {
    const made = await ensurePartitions(sql, now())
    if (made.length > 0) log.info({ partitions: made }, 'made partitions of the ledger')
    const released = await releaseQuarantine(sql, now())
    if (released > 0) log.info({ events: released }, 'took usage events out of quarantine into the ledger')
  }
  const schedule = (afterMs: number): void => {
    if (isStopped) return
    timer = setTimeout(() => {
      looking = look().then(
        () => schedule(everyMs),
        (error: unknown) => {
          log.warn({ err: error }, 'could not make partitions of the ledger')
          schedule(Math.min(everyMs, 600_000))
        },
      )
    }, afterMs)
    timer.unref()
  }
  await look()
  schedule(everyMs)
  return {
    stop: async () => {
      isStopped = true
      clearTimeout(timer)
      await looking
    },
  }
}
