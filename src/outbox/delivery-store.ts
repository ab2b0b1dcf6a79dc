import { type ChangeRow, type LoggedChange, loggedChange } from '../control/change-log.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { DeliveryFailure } from './outbox-sink.ts'

/** Statements on event_sinks and event_deliveries that the relay of a sink makes. Times are those of the database. */

export interface Claim {
  readonly sink: string
  /** Name of the process. */
  readonly holder: string
  readonly leaseMs: number
  /** Where a sink begins that is new. */
  readonly beginsAt: 'next' | 'oldest'
}

/**
 * Makes this process the one that delivers to a sink for `leaseMs`, or for that much longer; returns the sink's position,
 * or undefined while another process is the one.
 */
export async function claimSink(sql: Sql, { sink, holder, leaseMs, beginsAt }: Claim): Promise<number | undefined> {
  const [claimed] = await sql<{ position: number }[]>`
    insert into event_sinks as s (name, position, holder, held_until, seen_at)
    select ${sink}, case when ${beginsAt} = 'oldest' then h.position else v.version end, ${holder},
      now() + ${leaseMs}::int8 * interval '1 ms', now()
    from control_version v, change_horizon h
    on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until, seen_at = now()
      where s.holder is null or s.holder = excluded.holder or s.held_until < now()
    returning position`
  return claimed?.position
}

/** Lets another process take over at once. */
export async function releaseSink(sql: Sql, { sink, holder }: Pick<Claim, 'sink' | 'holder'>): Promise<void> {
  await sql`update event_sinks set holder = null, held_until = null where name = ${sink} and holder = ${holder}`
}

/** A change on its way to a sink. */
export interface Outgoing {
  readonly change: LoggedChange
  /** True when an earlier change of its resource waits: it has to wait behind that. */
  readonly isBlocked: boolean
}

/** The next changes after a sink's position, in their order. */
export async function selectFresh(sql: Sql, sink: string, position: number, limit: number): Promise<Outgoing[]> {
  const rows = await sql<(ChangeRow & { blocked: boolean })[]>`
    select c.*, exists (
      select from event_deliveries d where d.sink = ${sink} and d.dead_at is null
        and d.resource_kind = c.resource_kind and d.resource_id = c.resource_id) as blocked
    from changes c where c.position > ${position} order by c.position limit ${limit}`
  return rows.map((row) => ({ change: loggedChange(row), isBlocked: row.blocked }))
}

/**
 * What waits of each resource whose first change is due, in the order of that resource: those first whose time came first.
 */
export async function selectDue(sql: Sql, sink: string, limit: number): Promise<LoggedChange[]> {
  const rows = await sql<ChangeRow[]>`
    with heads as (
      select distinct on (resource_kind, resource_id) resource_kind, resource_id, next_attempt_at from event_deliveries
      where sink = ${sink} and dead_at is null order by resource_kind, resource_id, position
    )
    select c.* from heads h
    join event_deliveries d using (resource_kind, resource_id) join changes c using (position)
    where h.next_attempt_at <= now() and d.sink = ${sink} and d.dead_at is null
    order by h.next_attempt_at, h.resource_kind, h.resource_id, position limit ${limit}`
  return rows.map(loggedChange)
}

/** Milliseconds until a change that waits is due, at most `ms`. */
export async function untilDue(sql: Sql, sink: string, ms: number): Promise<number> {
  const [row] = await sql<{ ms: number | null }[]>`
    select (extract(epoch from min(next_attempt_at) - now()) * 1000)::float8 as ms from (
      select distinct on (resource_kind, resource_id) next_attempt_at from event_deliveries
      where sink = ${sink} and dead_at is null order by resource_kind, resource_id, position
    ) as heads`
  return Math.max(0, Math.min(ms, Math.ceil(row?.ms ?? ms)))
}

/**
 * Moves a sink's position, in the transaction that notes what did not arrive. False, and then nothing may be committed, when
 * somebody else moved it meanwhile, or delivers now.
 */
export async function advanceSink(
  tx: Transaction,
  { sink, holder, leaseMs }: Claim,
  from: number,
  to: number,
): Promise<boolean> {
  const moved = await tx`
    update event_sinks set position = ${to}, held_until = now() + ${leaseMs}::int8 * interval '1 ms', seen_at = now()
    where name = ${sink} and holder = ${holder} and position = ${from}`
  return moved.count === 1
}

export async function deleteDelivered(tx: Transaction, sink: string, positions: readonly number[]): Promise<void> {
  await tx`delete from event_deliveries where sink = ${sink} and position = any(${positions}::int8[])`
}

/** Lets a change wait behind an earlier one of its resource. */
export async function insertHeldBack(tx: Transaction, sink: string, change: LoggedChange): Promise<void> {
  await tx`
    insert into event_deliveries (sink, position, resource_kind, resource_id, attempts, next_attempt_at, last_error)
    values (${sink}, ${change.position}, ${change.resourceKind}, ${change.resourceId}, 0, now(), '')
    on conflict (sink, position) do nothing`
}

export interface FailedAttempt {
  readonly sink: string
  readonly change: LoggedChange
  readonly failure: DeliveryFailure
  /** Pause before the attempt after this one, when it was the nth. */
  readonly pauseMs: (attempts: number) => number
  /** From the first failure on, attempts are made for this long. */
  readonly giveUpMs: number
}

/** Notes a failed attempt; returns whether it was the last one. */
export async function noteFailure(tx: Transaction, failed: FailedAttempt): Promise<boolean> {
  const { sink, change, failure, pauseMs, giveUpMs } = failed
  const [row] = await tx<{ attempts: number; is_over: boolean }[]>`
    insert into event_deliveries as d (sink, position, resource_kind, resource_id, attempts, first_failed_at,
      next_attempt_at, last_error)
    values (${sink}, ${change.position}, ${change.resourceKind}, ${change.resourceId}, 1, now(), now(), ${failure.reason})
    on conflict (sink, position) do update set attempts = d.attempts + 1, last_error = excluded.last_error,
      first_failed_at = coalesce(d.first_failed_at, now())
    returning attempts, now() - first_failed_at >= ${giveUpMs}::int8 * interval '1 ms' as is_over`
  const isDead = failure.isFinal || row?.is_over === true
  const afterMs = Math.ceil(Math.max(pauseMs(row?.attempts ?? 1), failure.retryAfterMs ?? 0))
  await tx`
    update event_deliveries set next_attempt_at = now() + ${afterMs}::int8 * interval '1 ms',
      dead_at = case when ${isDead}::bool then now() end
    where sink = ${sink} and position = ${change.position}`
  return isDead
}

/** Makes everything that waits due: what kept it back is over. */
export async function hasten(tx: Transaction, sink: string): Promise<void> {
  await tx`update event_deliveries set next_attempt_at = now() where sink = ${sink} and dead_at is null`
}
