import type { Sql } from '../storage/postgres.ts'
import type { CallFacts } from './facts.ts'

/** Statements on recorded decisions. */

/** What was decided about a call, and what was known of it. */
export interface RecordedDecision {
  /** UUIDv7. */
  readonly id: string
  readonly requestId: string
  readonly allowed: boolean
  readonly facts: CallFacts
  /** Ids of the policies that denied it. */
  readonly deniedBy: readonly string[]
}

/** At least one; those that are there already stay. */
export async function insertDecisions(sql: Sql, decisions: readonly RecordedDecision[]): Promise<void> {
  const rows = decisions.map(({ id, requestId, allowed, facts, deniedBy }) => ({
    id,
    created_at: new Date(facts.timeMs),
    request_id: requestId,
    allowed,
    facts: JSON.stringify(facts),
    denied_by: [...deniedBy],
  }))
  await sql`insert into policy_decisions ${sql(rows)} on conflict (id) do nothing`
}

interface DecisionRow {
  readonly id: string
  readonly request_id: string
  readonly allowed: boolean
  readonly facts: CallFacts
  readonly denied_by: readonly string[]
}

/** Newest first. */
export async function selectDecisions(
  sql: Sql,
  beforeMs: number | undefined,
  limit: number,
): Promise<RecordedDecision[]> {
  const before = beforeMs === undefined ? sql`` : sql`where created_at < to_timestamp(${beforeMs}::int8 / 1000.0)`
  const rows = await sql<DecisionRow[]>`select * from policy_decisions ${before} order by id desc limit ${limit}`
  return rows.map(({ id, request_id, allowed, facts, denied_by }) => ({
    id,
    requestId: request_id,
    allowed,
    facts,
    deniedBy: denied_by,
  }))
}

const deletedAtOnce = 5_000

/** Deletes some rows that are older; returns how many. Ids rise with time, so the oldest are found by them. */
export async function deleteBefore(
  sql: Sql,
  table: 'policy_decisions' | 'policy_violations',
  ms: number,
): Promise<number> {
  const deleted = await sql`
    delete from ${sql(table)} where id in (
      select id from (select id, created_at from ${sql(table)} order by id limit ${deletedAtOnce}) as oldest
      where created_at < to_timestamp(${ms}::int8 / 1000.0)
    )`
  return deleted.count
}
