import type { Sql, Transaction } from '../storage/postgres.ts'

/**
 * Makes the missing partitions of `usage_records` from the month before `nowMs` to three months after it, and those of
 * the months of `alsoMs`, but none that retention dropped; returns their names. Safe to call from every replica at once, and beside running inserts and
 * queries: a table is made first and attached then, which (other than `create table … partition of`) locks nobody out.
 */
export async function ensurePartitions(sql: Sql, nowMs: number, alsoMs: readonly number[] = []): Promise<string[]> {
  const wanted = new Map<string, Month>()
  for (let ahead = -1; ahead <= 3; ahead++) add(wanted, spanOfMonths(nowMs, ahead, ahead))
  for (const ms of alsoMs) add(wanted, spanOfMonths(ms, 0, 0))
  return sql.begin(async (tx) => {
    await lockPartitions(tx)
    const droppedBefore = await droppedBeforeMs(tx)
    for (const [name, { toMs }] of wanted) if (toMs <= droppedBefore) wanted.delete(name)
    const existing = await tx<{ name: string }[]>`
      select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'usage_records'::regclass`
    for (const { name } of existing) wanted.delete(name)
    for (const [name, { fromMs, toMs }] of wanted) {
      const bounds = `from ('${new Date(fromMs).toISOString()}') to ('${new Date(toMs).toISOString()}')`
      await tx`create table ${tx(name)} (like usage_records including all)`
      await tx.unsafe(`alter table usage_records attach partition ${name} for values ${bounds}`)
    }
    return [...wanted.keys()]
  })
}

/** Lets one transaction at a time change which partitions there are; waits ten seconds at most for another one. */
export async function lockPartitions(tx: Transaction): Promise<void> {
  await tx`set local lock_timeout = '10s'`
  await tx`select pg_advisory_xact_lock(${lockKey})`
}

/** Unix milliseconds: records that started before were dropped, and none is accepted. 0 before anything was dropped. */
export async function droppedBeforeMs(sql: Sql | Transaction): Promise<number> {
  const [row] = await sql<[{ ms: number }]>`
    select (extract(epoch from dropped_before) * 1000)::int8 as ms from usage_retention`
  return row.ms
}

/** Name of the partition that holds records of this instant (Unix milliseconds). */
export function partitionName(ms: number): string {
  return `usage_records_${new Date(ms).toISOString().slice(0, 7).replace('-', '_')}`
}

/** The UTC months from `first` to `last`, counted from the one that holds `ms`; `toMs` is exclusive. */
export function spanOfMonths(ms: number, first: number, last: number): Month {
  const at = new Date(ms)
  const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()]
  return { fromMs: Date.UTC(year, month + first, 1), toMs: Date.UTC(year, month + last + 1, 1) }
}

interface Month {
  readonly fromMs: number
  readonly toMs: number
}

/** Any constant will do, as long as every release uses the same. */
const lockKey = 7_161_002

function add(months: Map<string, Month>, month: Month): void {
  months.set(partitionName(month.fromMs), month)
}
