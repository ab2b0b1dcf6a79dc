import type { Sql } from '../storage/postgres.ts'
import { type BatchResult, writeBatchIsolating } from './ledger.ts'
import type { UsageEvent } from './usage-event.ts'

/** Who writes batches for the drain. */
export interface LedgerWriter {
  /** As {@link writeBatchIsolating}: what it was asked to write may be in the ledger although it rejects. */
  write(events: readonly UsageEvent[]): Promise<BatchResult>
  /** Why nothing can be written whatever is asked; undefined while all is well. */
  failing(): string | undefined
}

/** Writes in this thread. */
export function ledgerOf(sql: Sql): LedgerWriter {
  return {
    write: (events) => writeBatchIsolating(sql, events),
    failing: () => undefined,
  }
}
