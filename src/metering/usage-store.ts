import { isUuid } from '../ids.ts'
import { pageOf, parsePageToken } from '../page-token.ts'
import { asStorageError, type Sql, type Transaction } from '../storage/postgres.ts'
import type { TokenParts, UsageEvent } from './usage-event.ts'

export interface UsageQuery {
  readonly consumerId: string
  /** Only the attempts of this call; undefined for all. */
  readonly requestId?: string | undefined
  /** 1 to 1000. */
  readonly pageSize: number
  /** nextPageToken of the page before; empty for the first. */
  readonly pageToken: string
}

export interface UsagePage {
  /** Newest first. */
  readonly records: readonly UsageRecord[]
  /** Empty on the last page. */
  readonly nextPageToken: string
}

/** An entry of the ledger. */
export interface UsageRecord {
  /** Its traceparent is not kept and empty. */
  readonly event: UsageEvent
  /** Unix milliseconds at which the ledger took it. */
  readonly recordedMs: number
}

/**
 * A page of a consumer's records, newest first. Pages do not shift when records arrive: the token names the last record
 * seen, not a count. Throws INVALID_ARGUMENT for a token that is none of ours, STORAGE_UNAVAILABLE.
 */
export async function listUsageRecords(sql: Sql, query: UsageQuery): Promise<UsagePage> {
  const [startMs, id] = parsePageToken(query.pageToken, 2, isTokenPart) ?? []
  const requestId = (query.requestId ?? '').toLowerCase()
  // An id that is no UUID names no call.
  if (requestId !== '' && !isUuid(requestId)) return { records: [], nextPageToken: '' }
  // Index usage_records_consumer read backwards, or usage_records_request.
  const rows = await sql<(UsageRow & Pick<UsageRecord, 'recordedMs'>)[]>`
    select ${recordColumns(sql)}, (extract(epoch from recorded_at) * 1000)::int8 as "recordedMs" from usage_records
    where consumer_id = ${query.consumerId}
      ${requestId === '' ? sql`` : sql`and request_id = ${requestId}`}
      ${startMs === undefined || id === undefined ? sql`` : sql`and (start_time, id) < (to_timestamp(${startMs}::int8 / 1000.0), ${id}::uuid)`}
    order by start_time desc, id desc
    limit ${query.pageSize + 1}`.catch((error: unknown) => {
    throw asStorageError(error)
  })
  const page = pageOf(rows, query.pageSize, (row) => [String(row.startMs), row.id])
  const records = page.rows.map(({ recordedMs, ...row }) => ({ event: toEvent(row), recordedMs }))
  return { records, nextPageToken: page.nextPageToken }
}

/** Of a record's start in Unix milliseconds and its id. */
function isTokenPart(part: string, index: number): boolean {
  return index === 0 ? /^\d{1,13}$/.test(part) : isUuid(part)
}

/** What a select of {@link UsageRow} lists. */
export function recordColumns(sql: Sql | Transaction) {
  return sql`id, request_id as "requestId", organization_id as "organizationId", consumer_id as "consumerId",
    service_id as "serviceId", endpoint_id as "endpointId", key_id as "keyId",
    (extract(epoch from start_time) * 1000)::int8 as "startMs", requests, coalesce(corrects::text, '') as corrects,
    duration_ms as "durationMs", coalesce(first_token_ms, 0)::int8 as "firstTokenMs", status, error_reason as "errorReason", input_tokens as "input",
    cached_input_tokens as "cachedInput", cache_write_input_tokens as "cacheWriteInput", output_tokens as "output",
    reasoning_output_tokens as "reasoningOutput", usage_source as "usageSource", cost_nanos as "costNanos", currency,
    price_version as "priceVersion", model, attempt, metadata`
}

/** A row of usage_records, flat. */
export type UsageRow = Omit<UsageEvent, 'tokens' | 'traceparent'> & TokenParts

/** The event that became a row; its traceparent is not kept and empty. */
export function toEvent(row: UsageRow): UsageEvent {
  const { input, cachedInput, cacheWriteInput, output, reasoningOutput, ...rest } = row
  return { ...rest, tokens: { input, cachedInput, cacheWriteInput, output, reasoningOutput }, traceparent: '' }
}
