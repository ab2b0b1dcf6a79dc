/**
 * The ledger: `usage_records`, one row an attempt, and what is derived from it in the same statement.
 *
 * - **seen**: the ids of all events that the ledger has; what makes a repeated delivery a no-op.
 * - **rollup**: `usage_hourly`, additive counters by hour and dimension. Σ rollup = Σ ledger at every commit.
 * - **latency**: `usage_hourly_latency`, histograms by hour: counts of records by duration, additive like the rollup.
 * - **quarantine**: events that the ledger cannot take, kept whole with the reason. They are not "seen": they may be
 *   delivered again once the reason is gone.
 */
import { errorCode, type Sql, type Transaction } from '../storage/postgres.ts'
import { plainArray, textArray } from './array-literal.ts'
import { homelessReason, quarantine } from './quarantine.ts'
import type { UsageEvent } from './usage-event.ts'
import { type RejectedEvent, type UsageColumns, usageColumns } from './usage-rows.ts'

export interface BatchResult {
  /** Events that are in the ledger because of this batch. */
  readonly written: number
  /** Repeats within the batch, and events that the ledger or the quarantine had before. */
  readonly duplicates: number
  /** Events that went to quarantine; the three add up to the batch. */
  readonly quarantined: number
  /** Ids of the written events that carry a traceparent. */
  readonly traced: readonly string[]
}

export const emptyResult: BatchResult = { written: 0, duplicates: 0, quarantined: 0, traced: [] }

/**
 * Writes a batch: seen, ledger, rollup and latency in one statement, so that all of it happened or none. May be repeated any
 * number of times, from several processes at once. Throws what the database throws, and has then written nothing.
 */
export async function writeBatch(sql: Sql | Transaction, events: readonly UsageEvent[]): Promise<BatchResult> {
  const { columns, rejected } = usageColumns(events)
  const outcome = columns.ids.length === 0 ? nothing : await insertNew(sql, columns, tracedIds(events))
  const homeless = new Set(outcome.homeless)
  const late = events.filter((event) => homeless.has(event.id))
  const misfits = [...rejected, ...late.map((event): RejectedEvent => ({ event, reason: homelessReason }))]
  const quarantined = await quarantine(sql, misfits)
  return {
    written: outcome.written,
    duplicates: events.length - outcome.written - quarantined,
    quarantined,
    traced: outcome.traced,
  }
}

/**
 * Like {@link writeBatch}, but an event that makes its batch fail by its data is found by halving and goes to
 * quarantine. Throws only what a later repetition may cure.
 */
export async function writeBatchIsolating(sql: Sql, events: readonly UsageEvent[]): Promise<BatchResult> {
  try {
    return await writeBatch(sql, events)
  } catch (error) {
    if (!isDataError(error)) throw error
    const [only, ...others] = events
    if (only === undefined) return emptyResult
    if (others.length === 0) {
      const reason = `refused by the database: ${errorCode(error) ?? 'unknown'}`
      return { ...emptyResult, quarantined: await quarantine(sql, [{ event: only, reason }]) }
    }
    const middle = Math.ceil(events.length / 2)
    const first = await writeBatchIsolating(sql, events.slice(0, middle))
    const second = await writeBatchIsolating(sql, events.slice(middle))
    return {
      written: first.written + second.written,
      duplicates: first.duplicates + second.duplicates,
      quarantined: first.quarantined + second.quarantined,
      traced: [...first.traced, ...second.traced],
    }
  }
}

interface Outcome {
  readonly written: number
  /** Ids of events that no partition holds. */
  readonly homeless: readonly string[]
  readonly traced: readonly string[]
}

const nothing: Outcome = { written: 0, homeless: [], traced: [] }

/**
 * Rows of `usage_seen` and of the two rollups are taken in the order of their keys, each table's after all of another's
 * and in every process alike: two writers of overlapping batches wait for each other, but never in a circle.
 *
 * "(x in (select …)) is true" is a hashed lookup to the planner. As a join it became a nested loop, because the planner
 * cannot know how many rows a CTE has, which took 106 of 130 ms for a batch of 1,000.
 */
async function insertNew(sql: Sql | Transaction, c: UsageColumns, traced: string[]): Promise<Outcome> {
  const [outcome] = await sql<[Outcome]>`
    with partition as materialized (
      select c.relname::text as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'usage_records'::regclass
    ),
    batch as materialized (
      select distinct on (id) *, to_timestamp(start_ms / 1000.0) as start_time
      from unnest(
        ${plainArray(c.ids)}::uuid[], ${plainArray(c.requestIds)}::uuid[], ${textArray(c.organizationIds)}::text[], ${textArray(c.consumerIds)}::text[],
        ${textArray(c.serviceIds)}::text[], ${textArray(c.endpointIds)}::text[], ${textArray(c.keyIds)}::text[], ${plainArray(c.startsMs)}::int8[],
        ${plainArray(c.requests)}::int2[], ${textArray(c.corrected)}::text[], ${plainArray(c.durationsMs)}::int8[], ${textArray(c.statuses)}::text[], ${textArray(c.errorReasons)}::text[], ${plainArray(c.inputs)}::int8[],
        ${plainArray(c.cachedInputs)}::int8[], ${plainArray(c.cacheWriteInputs)}::int8[], ${plainArray(c.outputs)}::int8[], ${plainArray(c.reasoningOutputs)}::int8[],
        ${textArray(c.sources)}::text[], ${plainArray(c.costs)}::int8[], ${textArray(c.currencies)}::text[], ${textArray(c.priceVersions)}::text[],
        ${textArray(c.models)}::text[], ${plainArray(c.attempts)}::int4[], ${textArray(c.metadata)}::text[]
      ) as event (
        id, request_id, organization_id, consumer_id, service_id, endpoint_id, key_id, start_ms, requests, corrects,
        duration_ms, status, error_reason, input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens,
        reasoning_output_tokens, usage_source, cost_nanos, currency, price_version, model, attempt, metadata
      )
      order by id
    ),
    placed as materialized (
      select * from batch
      where ('usage_records_' || to_char(start_time at time zone 'UTC', 'YYYY_MM') in (select name from partition)) is true
    ),
    seen as (
      insert into usage_seen (event_id) select id from placed order by id
      on conflict do nothing
      returning event_id
    ),
    fresh as materialized (
      select * from placed where (id in (select event_id from seen)) is true
    ),
    ledger as (
      insert into usage_records (
        id, request_id, organization_id, consumer_id, service_id, endpoint_id, key_id, start_time, requests, corrects,
        duration_ms, status, error_reason, input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens,
        reasoning_output_tokens, usage_source, cost_nanos, currency, price_version, model, attempt, metadata
      )
      select id, request_id, organization_id, consumer_id, service_id, endpoint_id, key_id, start_time, requests,
        nullif(corrects, '')::uuid, duration_ms, status, error_reason, input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens,
        reasoning_output_tokens, usage_source, cost_nanos, currency, price_version, model, attempt, metadata::jsonb
      from fresh
    ),
    rollup as (
      insert into usage_hourly as hourly (
        hour, organization_id, consumer_id, service_id, key_id, model, status, currency, requests, input_tokens,
        cached_input_tokens, cache_write_input_tokens, output_tokens, reasoning_output_tokens, cost_nanos, duration_ms
      )
      select date_trunc('hour', start_time, 'UTC') as hour, organization_id, consumer_id, service_id, key_id, model,
        status, currency, sum(requests), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_input_tokens),
        sum(output_tokens), sum(reasoning_output_tokens), sum(cost_nanos), sum(requests * duration_ms)
      from fresh
      group by consumer_id, service_id, hour, organization_id, key_id, model, status, currency
      order by consumer_id, service_id, hour, organization_id, key_id, model, status, currency
      on conflict (consumer_id, service_id, hour, organization_id, key_id, model, status, currency) do update set
        requests = hourly.requests + excluded.requests,
        input_tokens = hourly.input_tokens + excluded.input_tokens,
        cached_input_tokens = hourly.cached_input_tokens + excluded.cached_input_tokens,
        cache_write_input_tokens = hourly.cache_write_input_tokens + excluded.cache_write_input_tokens,
        output_tokens = hourly.output_tokens + excluded.output_tokens,
        reasoning_output_tokens = hourly.reasoning_output_tokens + excluded.reasoning_output_tokens,
        cost_nanos = hourly.cost_nanos + excluded.cost_nanos,
        duration_ms = hourly.duration_ms + excluded.duration_ms
    ),
    latency as (
      insert into usage_hourly_latency as hourly (hour, consumer_id, service_id, status, bucket, requests)
      select date_trunc('hour', start_time, 'UTC') as hour, consumer_id, service_id, status,
        latency_bucket(duration_ms) as bucket, sum(requests)
      from fresh
      group by consumer_id, service_id, hour, status, bucket
      order by consumer_id, service_id, hour, status, bucket
      on conflict (consumer_id, service_id, hour, status, bucket) do update set
        requests = hourly.requests + excluded.requests
    )
    select
      (select count(*) from seen) as written,
      array(select id from batch where id not in (select id from placed)) as homeless,
      array(select event_id from seen where event_id = any(${plainArray(traced)}::uuid[])) as traced`
  return outcome
}

function tracedIds(events: readonly UsageEvent[]): string[] {
  const ids: string[] = []
  for (const event of events) if (event.traceparent !== '' && typeof event.id === 'string') ids.push(event.id)
  return ids
}

/** Classes 22 (data exception), 23 (integrity violation), 54 (limit exceeded); the driver's own have other codes. */
function isDataError(error: unknown): boolean {
  const code = errorCode(error)
  return code !== undefined && /^(22|23|54)[0-9A-Z]{3}$/.test(code)
}
