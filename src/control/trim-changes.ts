import type { Sql } from '../storage/postgres.ts'

const batchSize = 10_000
/** Beyond every position. */
const endOfLog = Number.MAX_SAFE_INTEGER

/**
 * Deletes changes that were made before an instant, the oldest first, and moves the horizon of the log in the transactions
 * that do so. Returns how many it deleted. Safe to call from every replica at once: one of them does it, the others return 0.
 *
 * What a sink of domain events was not told of yet stays, and so does what waits for another attempt, or is a dead letter. But
 * a dead letter from before the instant is given up, and a sink that no process delivered to since then holds nothing back
 * any more: it is forgotten.
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
    const before = new Date(beforeMs)
    // Whoever else trims has the row; a replay that looks at it is waited for at the next look.
    const [horizon] = await tx`select position from change_horizon for update skip locked`
    if (horizon === undefined) return 0
    await tx`delete from event_sinks where seen_at < ${before}`
    await tx`delete from event_deliveries where dead_at < ${before}`
    // The log is in the order of commits, and times are those of beginnings: nothing after the first young change goes.
    const [bound] = await tx<{ position: number | null }[]>`
      select max(position) as position from (
        select position from changes
        where position < coalesce((select min(position) from changes where created_at >= ${before}), ${endOfLog}::int8)
          and position <= coalesce((select min(position) from event_sinks), ${endOfLog}::int8)
          and not exists (select from event_deliveries d where d.position = changes.position)
        order by position limit ${batchSize}
      ) as old`
    const position = bound?.position ?? null
    if (position === null) return 0
    await tx`update change_horizon set position = greatest(position, ${position})`
    const gone = await tx`
      delete from changes where position <= ${position}
        and not exists (select from event_deliveries d where d.position = changes.position)`
    return gone.count
  })
}
