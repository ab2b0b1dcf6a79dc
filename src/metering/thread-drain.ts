import type { UsageLog } from '../limits/limits.ts'
import { pause } from '../pause.ts'
import type { StorageLog } from '../storage/postgres.ts'
import type { RunningDrain } from './drain.ts'
import type { LedgerThread } from './ledger-thread.ts'
import { sweepUntil } from './sweep.ts'

export interface ThreadDrainOptions {
  /** Whose events the thread reads; it is swept here. */
  readonly usageLog: Pick<UsageLog, 'sweep' | 'backlog'>
  readonly thread: Pick<LedgerThread, 'drained' | 'stopDrain'>
  readonly log: StorageLog
  /** Pause between two looks for abandoned reservations; default 1 000. */
  readonly sweepEveryMs?: number
}

/** The drain of a usage log that a ledger thread reads by itself, seen from the thread that serves. */
export function createThreadDrain({ usageLog, thread, log, sweepEveryMs }: ThreadDrainOptions): RunningDrain {
  const stopping = new AbortController()
  let backlog = 0
  let sweeping = Promise.resolve()
  return {
    start: () => {
      const onBacklog = (events: number): void => {
        backlog = events
      }
      sweeping = sweepUntil(stopping.signal, { usageLog, log, everyMs: sweepEveryMs, onBacklog })
    },
    stop: async () => {
      stopping.abort()
      await thread.stopDrain()
      await sweeping
    },
    drained: async (timeoutMs = 30_000) => {
      const untilMs = performance.now() + timeoutMs
      while (!stopping.signal.aborted && performance.now() < untilMs) {
        // A log that cannot be asked is not empty.
        if ((await usageLog.backlog().catch(() => undefined)) === 0) return true
        await pause(20, stopping.signal)
      }
      return false
    },
    state: () => {
      const { isConnected: _, ...drained } = thread.drained()
      return { ...drained, backlog }
    },
  }
}
