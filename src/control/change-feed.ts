/**
 * The end of the log of changes in memory, for all who follow it in this process.
 *
 * One reader follows the log from the moment at which the process began, told by whoever looks at control_version that
 * there is more. It keeps the last changes, `capacity` at most. Whoever follows has a **cursor** of its own, a position, and
 * takes what is after it at its own pace: nobody waits for anybody, and a follower costs no memory. One whose cursor is
 * before what is kept has to read the log itself.
 */
import { pause } from '../pause.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import { type LoggedChange, type LogPage, selectChanges } from './change-log.ts'
import type { ResourceKind } from './change-types.ts'

export interface ChangeFeedOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** What is followed. */
  readonly kind: ResourceKind
  /** Changes that are kept; default 1 024. */
  readonly capacity?: number
  /** Pause after a read that failed, in milliseconds; default 1 000. */
  readonly retryMs?: number
  /** Longest wait for one read, in milliseconds; default 5 000. */
  readonly timeoutMs?: number
}

export interface ChangeFeed {
  /** Says that the control plane moved to `version`; the first time, the feed begins there. Never throws or waits. */
  advance(version: number): void
  /** Every change up to here was read. 0 before the feed began. */
  position(): number
  /** Changes after a cursor, oldest first; undefined when not all of them are kept. */
  after(cursor: number): readonly LoggedChange[] | undefined
  /** Resolves when the position is beyond `cursor`, or after `ms`; rejects with the signal's reason when it is aborted. */
  beyond(cursor: number, ms: number, signal: AbortSignal): Promise<void>
  /** Ends the reading. */
  close(): Promise<void>
}

const pageSize = 500

export function createChangeFeed(options: ChangeFeedOptions): ChangeFeed {
  const { sql, log, kind, capacity = 1_024, retryMs = 1_000, timeoutMs = 5_000 } = options
  const closing = new AbortController()
  const waiting = new Set<() => void>()
  let kept: LoggedChange[] = []
  /** Changes after this one are all in `kept`, up to `position`. */
  let floor = 0
  let position = 0
  let target = 0
  let reading: Promise<void> | undefined

  function follow(): void {
    if (reading !== undefined || position >= target || closing.signal.aborted) return
    reading = read().finally(() => {
      reading = undefined
      follow()
    })
  }

  async function read(): Promise<void> {
    let isFailing = false
    while (position < target && !closing.signal.aborted) {
      try {
        keep(await within(timeoutMs, selectChanges(sql, { after: position, kind, limit: pageSize })))
        isFailing = false
      } catch (error) {
        if (!isFailing) log.warn({ reason: describeError(error) }, 'the log of changes cannot be read')
        isFailing = true
        await pause(retryMs, closing.signal, { ref: false })
      }
    }
  }

  function keep(page: LogPage): void {
    // Of changes that were trimmed before they were read nobody can be told from memory.
    if (page.horizon > position) floor = page.horizon
    if (page.position <= position) throw new Error(`the log ends at ${page.position}, before ${target}`)
    position = page.position
    kept = [...kept, ...page.changes]
    const excess = kept.length - capacity
    if (excess > 0) {
      floor = kept[excess - 1]?.position ?? floor
      kept = kept.slice(excess)
    }
    for (const wake of waiting) wake()
  }

  return {
    advance(version) {
      if (target === 0) {
        floor = version
        position = version
      }
      target = Math.max(target, version)
      follow()
    },
    position: () => position,
    after(cursor) {
      if (cursor < floor) return undefined
      return kept.slice(kept.findLastIndex((change) => change.position <= cursor) + 1)
    },
    async beyond(cursor, ms, signal) {
      signal.throwIfAborted()
      if (position > cursor) return
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const onAbort = (): void => reject(signal.reason)
      const timer = setTimeout(resolve, ms)
      waiting.add(resolve)
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        await promise
      } finally {
        clearTimeout(timer)
        waiting.delete(resolve)
        signal.removeEventListener('abort', onAbort)
      }
    },
    async close() {
      closing.abort()
      // What it reads is for watches, which end too.
      await within(timeoutMs, reading ?? Promise.resolve()).catch(() => {})
    },
  }
}
