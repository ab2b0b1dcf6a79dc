import type { ResourceKind } from '../control/change-types.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'

/** Statements on event_sinks and event_deliveries for people: how far each sink is, what never arrived, and anew. */

export interface SinkStatus {
  readonly name: string
  /** Every change up to here was delivered, waits for another attempt, or is a dead letter. */
  readonly position: number
  /** Changes that were not attempted yet. */
  readonly behind: number
  /** Changes that wait for another attempt, or behind one that does. */
  readonly waiting: number
  readonly deadLetters: number
  /** Age of the oldest change that is still to be delivered; 0 when there is none. */
  readonly lagSeconds: number
  /** Process that delivers at the moment; empty when none does. */
  readonly holder: string
}

/** Of these sinks, those that any process ever delivered to; by name. */
export async function selectSinkStatus(sql: Sql, names: readonly string[]): Promise<SinkStatus[]> {
  const rows = await sql<SinkRow[]>`
    select s.name, s.position, coalesce(s.holder, '') as holder,
      (select count(*) from changes c where c.position > s.position) as behind,
      (select count(*) from event_deliveries d where d.sink = s.name and d.dead_at is null) as waiting,
      (select count(*) from event_deliveries d where d.sink = s.name and d.dead_at is not null) as dead_letters,
      greatest(0, extract(epoch from now() - least(
        (select c.created_at from changes c where c.position > s.position order by c.position limit 1),
        (select min(c.created_at) from event_deliveries d join changes c using (position)
          where d.sink = s.name and d.dead_at is null))))::float8 as lag_seconds
    from event_sinks s where s.name = any(${names}::text[]) order by s.name`
  return rows.map(({ dead_letters, lag_seconds, ...row }) => ({
    ...row,
    deadLetters: dead_letters,
    lagSeconds: lag_seconds,
  }))
}

interface SinkRow extends Omit<SinkStatus, 'deadLetters' | 'lagSeconds'> {
  readonly dead_letters: number
  readonly lag_seconds: number
}

/** A change that a sink was never told of. */
export interface DeadLetterRow {
  readonly position: number
  readonly id: string
  readonly type: string
  readonly resource_kind: ResourceKind
  readonly resource_id: string
  readonly created_at: Date
  readonly attempts: number
  readonly last_error: string
  readonly dead_at: Date
}

/** Dead letters of a sink after a position, ascending. */
export async function selectDeadLetters(
  sql: Sql,
  sink: string,
  after: number,
  limit: number,
): Promise<readonly DeadLetterRow[]> {
  return sql<DeadLetterRow[]>`
    select c.position, c.id, c.type, c.resource_kind, c.resource_id, c.created_at, d.attempts, d.last_error, d.dead_at
    from event_deliveries d join changes c using (position)
    where d.sink = ${sink} and d.dead_at is not null and d.position > ${after} order by d.position limit ${limit}`
}

/** Lets dead letters wait for delivery again; all of the sink without positions. Returns how many. */
export async function reviveDeadLetters(tx: Transaction, sink: string, positions: readonly number[]): Promise<number> {
  const revived = await tx`
    update event_deliveries set dead_at = null, attempts = 0, first_failed_at = null, next_attempt_at = now()
    where sink = ${sink} and dead_at is not null
      ${positions.length === 0 ? tx`` : tx`and position = any(${positions}::int8[])`}`
  return revived.count
}

/** Takes a sink's row until the transaction ends; returns its position, undefined when nothing was ever delivered to it. */
export async function lockSink(tx: Transaction, sink: string): Promise<number | undefined> {
  const [row] = await tx<{ position: number }[]>`select position from event_sinks where name = ${sink} for update`
  return row?.position
}

/** How far back changes are kept; they are not trimmed further until the transaction ends. */
export async function lockHorizon(tx: Transaction): Promise<number> {
  const [row] = await tx<{ position: number }[]>`select position from change_horizon for share`
  if (row === undefined) throw new Error('change_horizon has lost its row')
  return row.position
}

/** Lets a sink begin again after a position; returns how many changes it will be told of again. */
export async function rewindSink(tx: Transaction, sink: string, after: number): Promise<number> {
  // They all come again by themselves.
  await tx`delete from event_deliveries where sink = ${sink} and position > ${after}`
  await tx`update event_sinks set position = ${after} where name = ${sink}`
  const [row] = await tx<{ count: number }[]>`select count(*) as count from changes where position > ${after}`
  return row?.count ?? 0
}
