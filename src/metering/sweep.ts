import type { UsageLog } from '../limits/limits.ts'
import { pause } from '../pause.ts'
import { describeError, type StorageLog } from '../storage/postgres.ts'

export interface SweepOptions {
  readonly usageLog: Pick<UsageLog, 'sweep' | 'backlog'>
  readonly log: StorageLog
  /** Pause between two looks; default 1 000. */
  readonly everyMs?: number | undefined
  /** Told how many events are not in the ledger, after each look. */
  readonly onBacklog: (events: number) => void
}

/** Records the reservations that nobody settled in time, again and again until the signal aborts. Never rejects. */
export async function sweepUntil(signal: AbortSignal, options: SweepOptions): Promise<void> {
  const { usageLog, log, everyMs = 1_000 } = options
  let isFailing = false
  while (!signal.aborted) {
    try {
      const abandoned = await usageLog.sweep()
      if (abandoned > 0) log.warn({ abandoned }, 'recorded calls whose gateway went away')
      options.onBacklog(await usageLog.backlog())
      isFailing = false
    } catch (error) {
      if (!isFailing) log.warn({ failing: describeError(error) }, 'the sweep of abandoned reservations fails')
      isFailing = true
    }
    await pause(everyMs, signal)
  }
}
