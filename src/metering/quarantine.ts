import { createHash } from 'node:crypto'
import type { Sql } from '../storage/postgres.ts'
import type { RejectedEvent } from './usage-rows.ts'

/** Reason of an event whose month has no partition: the one that cures itself, see `release.ts`. */
export const homelessReason = 'no partition holds its start'

/**
 * Keeps events that the ledger cannot take, whole, with the reason. Returns how many are new there: the same event
 * brought again changes nothing.
 */
export async function quarantine(sql: Sql, rejected: readonly RejectedEvent[]): Promise<number> {
  if (rejected.length === 0) return 0
  // JSON escapes what Postgres cannot store as text (NUL, lone surrogates).
  const texts = rejected.map(({ event }) => JSON.stringify(event) ?? 'null')
  const digests = texts.map((text) => createHash('sha256').update(text).digest('hex'))
  const reasons = rejected.map(({ reason }) => reason)
  const result = await sql`
    insert into usage_quarantine (digest, reason, event)
    select * from unnest(${digests}::text[], ${reasons}::text[], ${texts}::text[])
    on conflict do nothing`
  return result.count
}
