import { TollgateError } from '../errors.ts'
import { asStorageError } from '../storage/postgres.ts'
import { within } from '../within.ts'
import type { KeyRecord } from './key-verifier.ts'

export interface KeyLoaderOptions {
  /** Reads many records at once; ids without a record are missing from the answer. */
  readonly loadKeys: (keyIds: readonly string[]) => Promise<readonly KeyRecord[]>
  /** Ids in one query. Default 500. */
  readonly maxBatch?: number
  /** Ids that may wait for the query in flight to end. Default 20,000; the next one gets CREDENTIAL_CHECK_BUSY. */
  readonly maxWaiting?: number
  /** Longest wait for an answer, in milliseconds. Default 2,000; then STORAGE_UNAVAILABLE. */
  readonly timeoutMs?: number
}

/**
 * Reads single key records in batches: one query is in flight, and whoever asks meanwhile shares the next one. A change
 * of the control plane makes every gateway re-read all keys in use; this turns thousands of queries into a few.
 * A failed read is STORAGE_UNAVAILABLE, or INTERNAL where a repetition cannot help.
 */
export function createKeyLoader(options: KeyLoaderOptions): (keyId: string) => Promise<KeyRecord | undefined> {
  const { loadKeys, maxBatch = 500, maxWaiting = 20_000, timeoutMs = 2_000 } = options
  let waiting = new Map<string, Waiter>()
  let draining = false

  async function drain(): Promise<void> {
    draining = true
    // Whoever asks in this turn of the event loop belongs to the first batch.
    await new Promise(setImmediate)
    while (waiting.size > 0) {
      const batch = takeBatch()
      try {
        const records = new Map((await within(timeoutMs, loadKeys([...batch.keys()]), away)).map((r) => [r.id, r]))
        for (const [keyId, waiter] of batch) waiter.resolve(records.get(keyId))
      } catch (error) {
        const reason = asStorageError(error)
        for (const waiter of batch.values()) waiter.reject(reason)
      }
    }
    draining = false
  }

  function takeBatch(): Map<string, Waiter> {
    const entries = [...waiting]
    waiting = new Map(entries.slice(maxBatch))
    return new Map(entries.slice(0, maxBatch))
  }

  return (keyId) => {
    const known = waiting.get(keyId)
    if (known !== undefined) return known.promise
    if (waiting.size >= maxWaiting) return Promise.reject(busy())
    const waiter = Promise.withResolvers<KeyRecord | undefined>()
    waiting.set(keyId, waiter)
    if (!draining) void drain()
    return waiter.promise
  }
}

type Waiter = PromiseWithResolvers<KeyRecord | undefined>

function busy(): TollgateError {
  return new TollgateError('CREDENTIAL_CHECK_BUSY', 'Too many credentials are being checked. Try again shortly.', {
    retryAfterMs: 1_000,
    metadata: { retryAfterMs: '1000' },
  })
}

function away(): TollgateError {
  return new TollgateError('STORAGE_UNAVAILABLE', 'Credentials cannot be read at the moment. Try again shortly.')
}
