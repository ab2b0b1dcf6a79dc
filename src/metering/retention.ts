import type { Sql, Transaction } from '../storage/postgres.ts'
import { droppedBeforeMs, lockPartitions, partitionName, spanOfMonths } from './month-partitions.ts'

/** What a call of {@link dropOldRecords} took away. */
export interface Dropped {
  /** Names of the partitions, oldest first. */
  readonly partitions: readonly string[]
  /** Rows of `usage_seen`. */
  readonly seenIds: number
}

/**
 * Drops the partitions of `usage_records` whose month ended more than `months` months before `nowMs`: the records of
 * the current month and of the `months` months before it stay. Rollups stay for ever, so no sum of whole hours changes.
 * Safe to call from every replica at once; throws, and has then dropped nothing of that step, when running queries keep
 * the ledger busy for longer than two seconds, because new ones wait meanwhile.
 *
 * From then on no record of that time is accepted (`usage_retention.dropped_before`): what arrives later stays in
 * quarantine. That is why `usage_seen` can shrink too: an id is needed only as long as its event could enter the ledger
 * again. Events are accepted three months ahead at most, so an id that was seen four months before that instant belongs
 * to an event from before it, however wrong its gateway's clock was.
 */
export async function dropOldRecords(sql: Sql, months: number, nowMs: number): Promise<Dropped> {
  const horizonMs = spanOfMonths(nowMs, -months, -months).fromMs
  const partitions = await sql.begin(async (tx) => {
    await lockPartitions(tx)
    await tx`set local lock_timeout = '2s'`
    await tx`
      update usage_retention set dropped_before = greatest(dropped_before, to_timestamp(${horizonMs}::int8 / 1000.0))`
    const droppedBefore = await droppedBeforeMs(tx)
    const old = await partitionsBefore(tx, droppedBefore)
    for (const name of old) {
      await tx`alter table usage_records detach partition ${tx(name)}`
      await tx`drop table ${tx(name)}`
    }
    return old
  })
  return { partitions, seenIds: partitions.length === 0 ? 0 : await forgetSeenIds(sql) }
}

/** For reading a whole partition of `usage_seen`. */
const readTimeoutMs = 900_000

async function partitionsBefore(tx: Transaction, ms: number): Promise<string[]> {
  const rows = await tx<{ name: string }[]>`
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'usage_records'::regclass order by c.relname`
  // "usage_records_2026_01": names sort as their months do.
  const firstKept = partitionName(ms)
  return rows.map(({ name }) => name).filter((name) => name < firstKept)
}

/** One partition after the other, since each is read as a whole: `usage_seen` has no index on the time, for its speed. */
async function forgetSeenIds(sql: Sql): Promise<number> {
  const seenBeforeMs = spanOfMonths(await droppedBeforeMs(sql), -4, -4).fromMs
  const parts = await sql<{ name: string }[]>`
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'usage_seen'::regclass order by c.relname`
  let forgotten = 0
  for (const { name } of parts) {
    forgotten += await sql.begin(
      async (tx) => {
        const gone = await tx`delete from ${tx(name)} where seen_at < to_timestamp(${seenBeforeMs}::int8 / 1000.0)`
        return gone.count
      },
      '',
      readTimeoutMs,
    )
  }
  return forgotten
}
