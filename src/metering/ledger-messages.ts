import type { PostgresTarget, StorageLog } from '../storage/postgres.ts'
import type { BatchResult } from './ledger.ts'

/** What the thread that writes the ledger is begun with. */
export interface LedgerThreadData {
  readonly target: PostgresTarget
  readonly applicationName: string
  /** Ceiling of its connections. */
  readonly maxConnections: number
}

export type ToLedgerThread =
  | {
      readonly kind: 'write'
      readonly id: number
      /** JSON of a list of `EventFields`: a third of what it takes to copy the events as they are. */
      readonly events: string
    }
  /** Close connections, and end. */
  | { readonly kind: 'close' }

export type FromLedgerThread =
  /** It takes batches from now on. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'written'; readonly id: number; readonly result: BatchResult }
  /** `problem` says why the batch could not be written. */
  | { readonly kind: 'failed'; readonly id: number; readonly problem: string }
  /** A line for the log of the process, which one thread alone writes. */
  | { readonly kind: 'log'; readonly level: keyof StorageLog; readonly fields: object; readonly text: string }
