import type { PostgresTarget, StorageLog } from '../storage/postgres.ts'
import type { BatchResult } from './ledger.ts'

/** What the thread that writes the ledger is begun with. */
export interface LedgerThreadData {
  readonly target: PostgresTarget
  readonly applicationName: string
  /** Ceiling of its connections. */
  readonly maxConnections: number
  /** The Redis whose usage log it drains; undefined: it writes what it is asked to write, and nothing else. */
  readonly stream: StreamSource | undefined
}

export interface StreamSource {
  readonly url: string
  readonly commandTimeoutMs: number
  /** Each thread adds an id of its own: what one held that ended, the next one takes over as from a stranger. */
  readonly instanceId: string
}

/** What came of a batch, for who adds it up. */
export type Drained = Omit<BatchResult, 'traced'> & { readonly atMs: number }

export type ToLedgerThread =
  | {
      readonly kind: 'write'
      readonly id: number
      /** JSON of a list of `EventFields`; the thread decodes it. */
      readonly events: Uint8Array<ArrayBuffer>
    }
  /** This process appended to the usage log in Redis. */
  | { readonly kind: 'nudge' }
  /** Drain what is left of it, within the bound of the drain, and no more. */
  | { readonly kind: 'stop' }
  /** Close connections, and end. */
  | { readonly kind: 'close' }

export type FromLedgerThread =
  /** It takes batches from now on. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'written'; readonly id: number; readonly result: BatchResult }
  /** `problem` says why the batch could not be written. */
  | { readonly kind: 'failed'; readonly id: number; readonly problem: string }
  | { readonly kind: 'drained'; readonly drained: Drained }
  /** What keeps the drain from going on, and whether its Redis answers; told when it changes. */
  | { readonly kind: 'state'; readonly failing: string | undefined; readonly isConnected: boolean }
  /** Arguments of `traceInserts`: the spans of a process are one thread's. */
  | {
      readonly kind: 'traced'
      readonly traceparents: readonly string[]
      readonly startMs: number
      readonly endMs: number
      readonly batchSize: number
    }
  | { readonly kind: 'stopped' }
  /** A line for the log of the process, which one thread alone writes. */
  | { readonly kind: 'log'; readonly level: keyof StorageLog; readonly fields: object; readonly text: string }
