import { pause } from '../pause.ts'
import { type Repeating, repeat } from '../repeat.ts'
import { within } from '../within.ts'
import { describeError, type Sql, type StorageLog } from './postgres.ts'

export interface LoneWatchOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Of the advisory lock: any number that nothing else in the database locks, the same in every release. */
  readonly lockId: number
  /** How often a replica that does not look asks whether it may, in milliseconds. */
  readonly everyMs: number
  /** Looks once, and resolves to the pause before the next look, in milliseconds. */
  readonly look: (signal: AbortSignal) => Promise<number>
  /** Told when this replica becomes the one that looks, and each time that it is not. */
  readonly onTurn: (isOurs: boolean) => void
  /** What the log says when the lock cannot be asked for or a look fails, and when `stop` leaves a look behind. */
  readonly texts: { readonly failed: string; readonly late: string }
  /** Longest that `stop` waits for the look that runs, in milliseconds. */
  readonly stopTimeoutMs: number
}

/**
 * Looks again and again while the process runs, on one replica at a time: the one that holds the advisory lock. When it is
 * gone, the lock is gone with its connection, and another one takes over the next time that it asks.
 */
export function watchAlone(options: LoneWatchOptions): Repeating {
  const { sql, log, lockId, everyMs, look, onTurn, texts, stopTimeoutMs } = options

  const watching = repeat(everyMs, async (signal) => {
    await turn(signal).catch((error: unknown) => log.warn({ reason: describeError(error) }, texts.failed))
    onTurn(false)
  })

  /** Looks for as long as the lock's connection lives. */
  async function turn(signal: AbortSignal): Promise<void> {
    await sql.onConnection(async (connection) => {
      const [row] = await connection<{ held: boolean }[]>`select pg_try_advisory_lock(${lockId}) as held`
      if (row?.held !== true) return
      onTurn(true)
      try {
        while (!signal.aborted) {
          await pause(await look(signal), signal, { ref: false })
          await connection`select 1`
        }
      } finally {
        // Where that fails, the connection is gone, and the lock with it.
        await connection`select pg_advisory_unlock(${lockId})`.catch(() => {})
      }
    })
  }

  return {
    async stop() {
      await within(stopTimeoutMs, watching.stop()).catch((error: unknown) => {
        log.warn({ reason: describeError(error) }, texts.late)
      })
    },
  }
}
