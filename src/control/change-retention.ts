import { repeat } from '../repeat.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import { trimChanges } from './trim-changes.ts'

export interface ChangeRetentionOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Changes older than this many days are deleted; 0 keeps all. */
  readonly days: number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** How often to look; default once an hour. */
  readonly everyMs?: number
  /** Longest that `stop` waits for a look that runs; default 5 000. */
  readonly stopTimeoutMs?: number
}

const dayMs = 86_400_000

/** Keeps the log of changes from growing for ever: looks at once, and then every hour until stopped. */
export function startChangeRetention(options: ChangeRetentionOptions): { stop(): Promise<void> } {
  const { sql, log, days, now = Date.now, everyMs = 3_600_000, stopTimeoutMs = 5_000 } = options
  if (days === 0) return { stop: async () => {} }
  async function look(): Promise<void> {
    try {
      const changes = await trimChanges(sql, now() - days * dayMs)
      if (changes > 0) log.info({ changes }, 'trimmed the log of changes')
    } catch (error) {
      log.warn({ reason: describeError(error) }, 'the log of changes could not be trimmed')
    }
  }

  const looking = repeat(everyMs, look)
  return {
    async stop() {
      await within(stopTimeoutMs, looking.stop()).catch((error: unknown) => {
        log.warn({ reason: describeError(error) }, 'stopped before the log of changes was trimmed')
      })
    },
  }
}
