import { repeat } from '../repeat.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import type { ChainHead } from './check-chain.ts'
import { readHeads } from './read-chains.ts'

export interface HeadsOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** How often to look; default once an hour. */
  readonly everyMs?: number
  /** Longest that `stop` waits for a look that runs; default 2 000. */
  readonly stopTimeoutMs?: number
}

/**
 * Writes the heads of the audit log to the process's own log, at once and then every hour, if there are others than the last
 * time: where logs are collected, they are anchors that nobody can change who can only change Postgres. A line of them is a
 * file for `tollgate audit verify --heads`.
 */
export function startTellingHeads(options: HeadsOptions): { stop(): Promise<void> } {
  const { sql, log, everyMs = 3_600_000, stopTimeoutMs = 2_000 } = options
  let told = ''

  async function tell(): Promise<void> {
    try {
      const heads = await sql.begin(readHeads)
      const text = JSON.stringify(heads)
      if (text === told || heads.every(isEmpty)) return
      told = text
      log.info({ at: new Date().toISOString(), heads }, 'heads of the audit log')
    } catch (error) {
      log.warn({ reason: describeError(error) }, 'the heads of the audit log could not be read')
    }
  }

  const telling = repeat(everyMs, tell)
  return {
    async stop() {
      await within(stopTimeoutMs, telling.stop()).catch((error: unknown) => {
        log.warn({ reason: describeError(error) }, 'stopped before the heads of the audit log were told')
      })
    },
  }
}

function isEmpty({ length }: ChainHead): boolean {
  return length === 0
}
