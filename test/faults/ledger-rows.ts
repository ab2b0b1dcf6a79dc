import type { Sql } from '../../src/storage/postgres.ts'

/** What the ledger says of one attempt, corrections applied. */
export interface LedgerRow {
  /** What the backend was told follows from it and from `attempt`: see `attempt-id.ts`. */
  readonly id: string
  readonly requestId: string
  readonly consumerId: string
  /** Key of the call, by its metadata; empty for calls without one. */
  readonly key: string
  readonly status: string
  readonly attempt: number
  readonly source: string
  readonly tokens: number
  readonly costNanos: number
}

/** Events that the ledger refused, each with the reason. */
export async function readQuarantine(sql: Sql): Promise<readonly string[]> {
  const rows = await sql<{ text: string }[]>`select concat_ws(' ', event_id, reason) as text from usage_quarantine`
  return rows.map(({ text }) => text)
}

/** Every record of the ledger that stands: what was taken back is left out, and what was booked in its place has its id. */
export async function readLedgerRows(sql: Sql): Promise<readonly LedgerRow[]> {
  return sql<LedgerRow[]>`
    select coalesce(corrects, id) as id, request_id as "requestId", consumer_id as "consumerId",
      coalesce(metadata ->> 'call', '') as key, status, attempt, usage_source as source, cost_nanos as "costNanos",
      input_tokens + cached_input_tokens + cache_write_input_tokens + output_tokens + reasoning_output_tokens as tokens
    from usage_records record
    where requests = 1 and not exists (
      select from usage_records reversal where reversal.corrects = record.id and reversal.requests = -1)`
}
