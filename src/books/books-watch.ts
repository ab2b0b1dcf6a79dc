import { pause } from '../pause.ts'
import { watchAlone } from '../storage/lone-watch.ts'
import type { Sql, StorageLog } from '../storage/postgres.ts'
import { type Audit, auditBooks } from './audit.ts'
import type { Books, Finding } from './books.ts'

export interface BooksWatchOptions {
  readonly sql: Sql
  /** Reads the books of one UTC month, "YYYY-MM". */
  readonly read: (month: string) => Promise<Books>
  /** Makes these period counters follow the ledger again. */
  readonly repair: (counters: readonly string[]) => Promise<void>
  readonly log: StorageLog
  /** Unix milliseconds. */
  readonly now: () => number
  /** Shortest time between two audits. Default five minutes. */
  readonly everyMs?: number
  /** Pause between two readings of one audit. Default 500. */
  readonly pauseMs?: number
  /** Longest that `stop` waits for the audit that runs. Default 5 000. */
  readonly stopTimeoutMs?: number
}

export interface BooksWatch {
  /** Of the last audit; undefined before the first, and while another replica is the one that audits. */
  state(): BooksState | undefined
  /** Begins no other audit, and waits for the one that runs, for a limited time. */
  stop(): Promise<void>
}

export interface BooksState {
  /** Unix milliseconds of the end of the last audit. */
  readonly checkedAtMs: number
  /** Σ of |found − expected| over all differences; 0 when the books balance. */
  readonly difference: number
  /** How many differences there are. */
  readonly differences: number
  /** Places that changed with every reading, so that nothing can be said of them. */
  readonly moving: number
}

/** Any number that nothing else in this database locks. */
const lockId = 7_215_042_001

/** An audit takes at most this share of the time, however large the ledger is. */
const share = 0.05

/**
 * Audits the books of the current month again and again while the process runs. One replica at a time does it: the one
 * that holds the advisory lock; when it is gone, another takes over at its next look. What it finds shows in a metric and,
 * when the books do not balance, in the log. A counter that differs is read anew from the ledger, which is the truth; the
 * difference stays in the metric until the next audit.
 */
export function watchBooks(options: BooksWatchOptions): BooksWatch {
  const { sql, read, repair, log, now, everyMs = 300_000, pauseMs = 500, stopTimeoutMs = 5_000 } = options
  let state: BooksState | undefined

  async function look(signal: AbortSignal): Promise<number> {
    const startedMs = now()
    const month = new Date(startedMs).toISOString().slice(0, 7)
    const audit = await auditBooks({
      read: () => read(month),
      pause: () => pause(pauseMs, signal, { ref: false }),
      mostReadings: 10,
    })
    state = stateOf(audit, now())
    if (audit.differences.length > 0) {
      log.error({ month, differences: audit.differences.slice(0, 5) }, 'the books do not balance')
      const counters = audit.differences.flatMap(({ kind, id }) => (kind === 'counter' ? [id] : []))
      if (counters.length > 0) await repair(counters)
    }
    return Math.max(everyMs, (now() - startedMs) / share)
  }

  const watching = watchAlone({
    sql,
    log,
    lockId,
    everyMs,
    look,
    onTurn() {
      state = undefined
    },
    texts: {
      failed: 'the books could not be audited',
      late: 'stopped before the audit of the books was over',
    },
    stopTimeoutMs,
  })
  return { state: () => state, stop: watching.stop }
}

function stateOf({ differences, moving }: Audit, checkedAtMs: number): BooksState {
  const difference = differences.reduce((sum, { expected, found }: Finding) => sum + Math.abs(found - expected), 0)
  return { checkedAtMs, difference, differences: differences.length, moving: moving.length }
}
