import type { Sql } from '../storage/postgres.ts'
import type { EventBatch } from './event-batch.ts'
import { type BatchResult, writeBatchIsolating } from './ledger.ts'

/** Who writes batches for the drain. */
export interface LedgerWriter {
  /** As {@link writeBatchIsolating}: what it was asked to write may be in the ledger although it rejects. */
  write(batch: EventBatch): Promise<BatchResult>
  /** Why nothing can be written whatever is asked; undefined while all is well. */
  failing(): string | undefined
}

/** Writes in this thread. */
export function ledgerOf(sql: Sql): LedgerWriter {
  return {
    write: (batch) => writeBatchIsolating(sql, batch.events()),
    failing: () => undefined,
  }
}
