import type { Sql, StorageLog } from '../storage/postgres.ts'

export interface PartitionsOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** How often to look; default once a day. */
  readonly everyMs?: number
}

/**
 * Makes the partitions that the ledger needs now, then looks again every day until stopped. Rejects when the first look
 * fails; later ones are logged and repeated after ten minutes, which three months ahead leave ample room for.
 */
export async function startPartitions(options: PartitionsOptions): Promise<{ stop(): Promise<void> }> {
  const { sql, log, now = Date.now, everyMs = 86_400_000 } = options
  let timer: NodeJS.Timeout | undefined
  let looking: Promise<void> = Promise.resolve()
  let isStopped = false

  const look = async (): Promise<void> => {
    const made = await ensurePartitions(sql, now())
    if (made.length > 0) log.info({ partitions: made }, 'made partitions of the ledger')
  }
  const schedule = (afterMs: number): void => {
    if (isStopped) return
    timer = setTimeout(() => {
      looking = look().then(
        () => schedule(everyMs),
        (error: unknown) => {
          log.warn({ err: error }, 'could not make partitions of the ledger')
          schedule(Math.min(everyMs, 600_000))
        },
      )
    }, afterMs)
    timer.unref()
  }
  await look()
  schedule(everyMs)
  return {
    stop: async () => {
      isStopped = true
      clearTimeout(timer)
      await looking
    },
  }
}

/**
 * Makes the missing partitions of `usage_records` from the month before `nowMs` to three months after it, and returns
 * their names. Safe to call from every replica at once, and beside running inserts and queries: a table is made first
 * and attached then, which (other than `create table … partition of`) locks nobody out.
 */
export async function ensurePartitions(sql: Sql, nowMs: number): Promise<string[]> {
  return sql.begin(async (tx) => {
    await tx`set local lock_timeout = '10s'`
    await tx`select pg_advisory_xact_lock(${lockKey})`
    const existing = await tx<{ name: string }[]>`
      select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'usage_records'::regclass`
    const attached = new Set(existing.map((row) => row.name))
    const made: string[] = []
    for (let ahead = -1; ahead <= 3; ahead++) {
      const { name, from, to } = partitionOf(nowMs, ahead)
      if (attached.has(name)) continue
      await tx`create table ${tx(name)} (like usage_records including all)`
      await tx.unsafe(`alter table usage_records attach partition ${name} for values from ('${from}') to ('${to}')`)
      made.push(name)
    }
    return made
  })
}

/** Any constant will do, as long as every release uses the same. */
const lockKey = 7_161_002

function partitionOf(nowMs: number, ahead: number): { name: string; from: string; to: string } {
  const now = new Date(nowMs)
  const from = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + ahead, 1)).toISOString()
  const to = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + ahead + 1, 1)).toISOString()
  return { name: `usage_records_${from.slice(0, 4)}_${from.slice(5, 7)}`, from, to }
}
