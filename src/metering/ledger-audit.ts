/**
 * Reads everything that the books need from Postgres, in one read-only snapshot: sums of the ledger beside those of the
 * rollup, repeated ids, quarantine, and which events of the usage log the ledger has.
 */
import { decodeEvent } from '../limits/event-codec.ts'
import type { UsageDimensions } from '../limits/limit-keys.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { TokenParts, UsageEvent, UsageSource } from './usage-event.ts'

export interface LedgerReading {
  readonly sums: readonly LedgerSums[]
  /** Ids of events that have more than one record; at most {@link mostRepeated} of them. */
  readonly repeatedIds: readonly string[]
  /** Events in quarantine that have no record. */
  readonly quarantined: readonly UsageEvent[]
  /** Entries in quarantine that do not even have the form of an event. */
  readonly quarantinedUnreadable: number
  /** Of the ids that were asked for, those that have a record in the ledger, whatever its month. */
  readonly recorded: ReadonlySet<string>
  /**
   * By attempt, when {@link LedgerQuestion.wantsAttempts} asked for it. Without those that were corrected: a person decided
   * that they are to differ from what the backend says.
   */
  readonly attempts: ReadonlyMap<string, RecordedAttempt>
}

export interface LedgerQuestion {
  /** UTC month "YYYY-MM"; undefined for all that the ledger has. */
  readonly month: string | undefined
  /** Ids of events and attempts; those that are no UUIDs are not in any ledger. */
  readonly ids: ReadonlySet<string>
  /** True reads every record, to compare it with what backends say. */
  readonly wantsAttempts: boolean
}

/** Both sides for one organization, consumer, key, service, UTC month and currency. */
export interface LedgerSums extends UsageDimensions {
  readonly ledgerRecords: number
  readonly ledgerTokens: number
  readonly ledgerCostNanos: number
  readonly rollupRecords: number
  readonly rollupTokens: number
  readonly rollupCostNanos: number
  /** Rows of the rollup (an hour and its dimensions) that are not the sum of their records in every column. */
  readonly wrongRows: number
}

/** What the ledger says of one attempt. */
export interface RecordedAttempt {
  readonly id: string
  readonly consumerId: string
  readonly serviceId: string
  /** UTC, "YYYY-MM". */
  readonly month: string
  /** From 1; 0 when no backend was called. */
  readonly attempt: number
  readonly succeeded: boolean
  readonly usageSource: UsageSource
  readonly tokens: TokenParts
}

const mostRepeated = 1_000

/** Throws what the database throws. */
export function readLedger(sql: Sql, question: LedgerQuestion): Promise<LedgerReading> {
  return sql.begin(async (snapshot): Promise<LedgerReading> => {
    const repeated = await snapshot<{ id: string }[]>`
      select id from usage_records where ${inMonth(snapshot, 'start_time', question.month)}
      group by id having count(*) > 1 order by id limit ${mostRepeated}`
    const quarantined = await snapshot<{ event: string }[]>`select event from usage_quarantine`
    const attempts = question.wantsAttempts ? await readAttempts(snapshot, question.month) : new Map<string, never>()
    const events = quarantined.flatMap(({ event }) => decodeEvent(event) ?? [])
    const recorded = await readRecorded(snapshot, new Set([...question.ids, ...events.map(({ id }) => id)]))
    return {
      sums: await readSums(snapshot, question.month),
      repeatedIds: repeated.map(({ id }) => id),
      // A release that died half-way leaves a record and its quarantine.
      quarantined: events.filter(({ id }) => !recorded.has(id)),
      quarantinedUnreadable: quarantined.length - events.length,
      recorded,
      attempts,
    }
  }, 'isolation level repeatable read read only')
}

async function readSums(sql: Transaction, month: string | undefined): Promise<LedgerSums[]> {
  return await sql<LedgerSums[]>`
    with ledger as (
      select date_trunc('hour', start_time, 'UTC') as hour, organization_id, consumer_id, service_id, key_id, model,
        status, currency, sum(requests) as requests, sum(input_tokens) as input_tokens,
        sum(cached_input_tokens) as cached_input_tokens, sum(cache_write_input_tokens) as cache_write_input_tokens,
        sum(output_tokens) as output_tokens, sum(reasoning_output_tokens) as reasoning_output_tokens,
        sum(cost_nanos) as cost_nanos, sum(requests * duration_ms) as duration_ms,
        sum(requests * latency_histogram(duration_ms)) as latencies
      from usage_records where ${inMonth(sql, 'start_time', month)}
      group by 1, 2, 3, 4, 5, 6, 7, 8
    ),
    -- Where retention dropped the records, there is nothing to compare the sums with.
    rollup as (
      select * from usage_hourly
      where ${inMonth(sql, 'hour', month)} and hour >= (select dropped_before from usage_retention)
    ),
    both_sides as (
      select organization_id, consumer_id, key_id, service_id, to_char(hour at time zone 'UTC', 'YYYY-MM') as month, currency,
        coalesce(l.requests, 0) as l_requests, coalesce(r.requests, 0) as r_requests,
        coalesce(l.input_tokens + l.cached_input_tokens + l.cache_write_input_tokens + l.output_tokens
          + l.reasoning_output_tokens, 0) as l_tokens,
        coalesce(r.input_tokens + r.cached_input_tokens + r.cache_write_input_tokens + r.output_tokens
          + r.reasoning_output_tokens, 0) as r_tokens,
        coalesce(l.cost_nanos, 0) as l_cost, coalesce(r.cost_nanos, 0) as r_cost,
        (l.requests, l.input_tokens, l.cached_input_tokens, l.cache_write_input_tokens, l.output_tokens,
          l.reasoning_output_tokens, l.cost_nanos, l.duration_ms, l.latencies)
        is distinct from
        (r.requests, r.input_tokens, r.cached_input_tokens, r.cache_write_input_tokens, r.output_tokens,
          r.reasoning_output_tokens, r.cost_nanos, r.duration_ms, r.latencies) as is_wrong
      from ledger l
      full join rollup r using (hour, organization_id, consumer_id, service_id, key_id, model, status, currency)
    )
    select organization_id as "organizationId", consumer_id as "consumerId", key_id as "keyId",
      service_id as "serviceId", month, currency,
      sum(l_requests)::int8 as "ledgerRecords", sum(l_tokens)::int8 as "ledgerTokens",
      sum(l_cost)::int8 as "ledgerCostNanos", sum(r_requests)::int8 as "rollupRecords",
      sum(r_tokens)::int8 as "rollupTokens", sum(r_cost)::int8 as "rollupCostNanos",
      count(*) filter (where is_wrong) as "wrongRows"
    from both_sides
    group by organization_id, consumer_id, key_id, service_id, month, currency
    order by month, consumer_id, service_id, currency, organization_id, key_id`
}

async function readRecorded(sql: Transaction, ids: ReadonlySet<string>): Promise<Set<string>> {
  const asked = [...ids].filter((id) => uuid.test(id))
  const recorded = new Set<string>()
  for (let from = 0; from < asked.length; from += page) {
    const part = `{${asked.slice(from, from + page).join(',')}}`
    // Primary key of usage_records, in each partition.
    const rows = await sql<{ id: string }[]>`select id from usage_records where id = any(${part}::uuid[])`
    for (const { id } of rows) recorded.add(id)
  }
  return recorded
}

async function readAttempts(sql: Transaction, month: string | undefined): Promise<Map<string, RecordedAttempt>> {
  const attempts = new Map<string, RecordedAttempt>()
  await sql`
    declare attempts no scroll cursor for
    select id, consumer_id as "consumerId", service_id as "serviceId",
      to_char(start_time at time zone 'UTC', 'YYYY-MM') as month, attempt, status = 'succeeded' as succeeded,
      usage_source as "usageSource", input_tokens as "input", cached_input_tokens as "cachedInput",
      cache_write_input_tokens as "cacheWriteInput", output_tokens as "output",
      reasoning_output_tokens as "reasoningOutput"
    from usage_records where ${inMonth(sql, 'start_time', month)} and corrects is null
      and not exists (select from usage_records correction where correction.corrects = usage_records.id)`
  for (;;) {
    const rows = await sql<AttemptRow[]>`fetch 5000 from attempts`
    if (rows.length === 0) return attempts
    for (const { input, cachedInput, cacheWriteInput, output, reasoningOutput, ...rest } of rows) {
      attempts.set(rest.id, { ...rest, tokens: { input, cachedInput, cacheWriteInput, output, reasoningOutput } })
    }
  }
}

type AttemptRow = Omit<RecordedAttempt, 'tokens'> & TokenParts

const page = 5_000

/** As Postgres prints it. */
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

function inMonth(sql: Transaction, column: 'start_time' | 'hour', month: string | undefined) {
  if (month === undefined) return sql`true`
  const start = new Date(`${month}-01T00:00:00Z`)
  const end = new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1, 1))
  return sql`${sql(column)} >= ${start} and ${sql(column)} < ${end}`
}
