import { createHash } from 'node:crypto'
import { asEvent } from '../limits/event-codec.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { isCountable } from './usage-defects.ts'
import { totalTokens } from './usage-event.ts'
import type { RejectedEvent } from './usage-rows.ts'

/** Reason of an event whose month has no partition: the one that cures itself, see `release.ts`. */
export const homelessReason = 'no partition holds its start'

/**
 * Keeps events that the ledger cannot take, whole, with the reason and with what they add to quotas. Returns how many
 * are new there: the same event brought again changes nothing.
 */
export async function quarantine(sql: Sql | Transaction, rejected: readonly RejectedEvent[]): Promise<number> {
  if (rejected.length === 0) return 0
  // JSON escapes what Postgres cannot store as text (NUL, lone surrogates).
  const texts = rejected.map(({ event }) => JSON.stringify(event) ?? 'null')
  const digests = texts.map((text) => createHash('sha256').update(text).digest('hex'))
  const reasons = rejected.map(({ reason }) => reason)
  const counted = rejected.map(({ event }) => {
    const whole = asEvent(event)
    return whole !== undefined && isCountable(whole) ? whole : undefined
  })
  const result = await sql`
    insert into usage_quarantine (digest, reason, event, event_id, organization_id, consumer_id, service_id, key_id,
      start_time, currency, tokens, cost_nanos)
    select digest, reason, event, event_id, organization_id, consumer_id, service_id, key_id,
      to_timestamp(start_ms / 1000.0), currency, tokens, cost_nanos
    from unnest(
      ${digests}::text[], ${reasons}::text[], ${texts}::text[],
      ${counted.map((event) => event?.id ?? null)}::uuid[],
      ${counted.map((event) => event?.organizationId ?? null)}::text[],
      ${counted.map((event) => event?.consumerId ?? null)}::text[],
      ${counted.map((event) => event?.serviceId ?? null)}::text[],
      ${counted.map((event) => event?.keyId ?? null)}::text[],
      ${counted.map((event) => event?.startMs ?? null)}::int8[],
      ${counted.map((event) => event?.currency ?? null)}::text[],
      ${counted.map((event) => (event === undefined ? null : totalTokens(event.tokens)))}::int8[],
      ${counted.map((event) => event?.costNanos ?? null)}::int8[]
    ) as rejected (digest, reason, event, event_id, organization_id, consumer_id, service_id, key_id, start_ms,
      currency, tokens, cost_nanos)
    on conflict do nothing`
  return result.count
}
