import type { Sql } from '../storage/postgres.ts'

/** Any number that nothing else in this database locks. */
const lockId = 7_215_042_002
const batchSize = 10_000

/**
 * Deletes changes that were made before an instant, the oldest first, and moves the horizon of the log in the transactions
 * that do so. Returns how many it deleted. Safe to call from every replica at once: one of them does it, the others return 0.
 */
export async function trimChanges(sql: Sql, beforeMs: number): Promise<number> {
  let deleted = 0
  for (;;) {
    const batch = await trimBatch(sql, beforeMs)
    deleted += batch
    if (batch < batchSize) return deleted
  }
}

function trimBatch(sql: Sql, beforeMs: number): Promise<number> {
  return sql.begin(async (tx) => {
    const [lock] = await tx<{ held: boolean }[]>`select pg_try_advisory_xact_lock(${lockId}) as held`
    if (lock?.held !== true) return 0
    // The log is in the order of commits, and times are those of beginnings: nothing after the first young change goes.
    const [bound] = await tx<{ position: number | null }[]>`
      select max(position) as position from (
        select position from changes
        where position < coalesce(
          (select min(position) from changes where created_at >= to_timestamp(${beforeMs}::int8 / 1000.0)),
          9223372036854775807)
        order by position limit ${batchSize}
      ) as old`
    const position = bound?.position ?? null
    if (position === null) return 0
    await tx`update change_horizon set position = greatest(position, ${position})`
    const gone = await tx`delete from changes where position <= ${position}`
    return gone.count
  })
}
