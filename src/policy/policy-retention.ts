import { type Repeating, repeat } from '../repeat.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { deleteBefore } from './decision-store.ts'

export interface PolicyRetentionOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Days that violations are kept; 0 keeps them for ever. */
  readonly violationDays: number
  /** Days that decisions are kept. */
  readonly decisionDays: number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** Default an hour. */
  readonly intervalMs?: number
}

const dayMs = 86_400_000

/** Deletes what is too old, now and every hour, some rows at a time. Safe on every replica at once. */
export function startPolicyRetention(options: PolicyRetentionOptions): Repeating {
  const { sql, log, violationDays, decisionDays, now = Date.now, intervalMs = 3_600_000 } = options

  async function sweep(
    table: 'policy_decisions' | 'policy_violations',
    days: number,
    signal: AbortSignal,
  ): Promise<void> {
    if (days === 0) return
    const beforeMs = now() - days * dayMs
    while (!signal.aborted && (await deleteBefore(sql, table, beforeMs)) > 0);
  }

  return repeat(intervalMs, async (signal) => {
    try {
      await sweep('policy_violations', violationDays, signal)
      await sweep('policy_decisions', decisionDays, signal)
    } catch (error) {
      log.warn({ reason: describeError(error) }, 'old policy records could not be deleted: trying again later')
    }
  })
}
