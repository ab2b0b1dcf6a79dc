import { asStorageError, type Sql, type Transaction } from '../storage/postgres.ts'
import { type LatencyCount, latencyCounts, latencyPercentiles } from './latency.ts'
import { droppedBeforeMs } from './month-partitions.ts'
import { keptPeriod, type Period, splitPeriod } from './stats-period.ts'
import type { CallStatus } from './usage-event.ts'

export interface StatsQuery {
  readonly consumerId: string
  readonly serviceId: string
  readonly period: Period
}

/** Sums over the usage records of a consumer and service in a period. Counts of tokens and nano-units are exact. */
export interface UsageStatistics {
  /** The period of the query, without the part hours whose records retention dropped. */
  readonly period: Period
  readonly requests: Readonly<Record<CallStatus, bigint>>
  readonly tokens: {
    readonly input: bigint
    readonly cachedInput: bigint
    readonly cacheWriteInput: bigint
    readonly output: bigint
    readonly reasoningOutput: bigint
  }
  /** Nano-units by ISO 4217 code, ordered by code. */
  readonly costNanos: ReadonlyMap<string, bigint>
  /** Records without a price. */
  readonly unpriced: bigint
  /** Of all durations, in milliseconds. */
  readonly durationMs: bigint
  /** Milliseconds, estimated as `latency.ts` says. */
  readonly latencyMs: { readonly p50: number; readonly p95: number; readonly p99: number }
}

/**
 * Statistics of a period that may begin and end anywhere: whole hours come from the rollups, the parts of hours at both
 * ends from the records themselves, all of one snapshot of the database, so that sums and percentiles are of the same
 * records. Costs the rows of two hours of one consumer at most, however long the period. Throws STORAGE_UNAVAILABLE.
 */
export async function usageStatistics(sql: Sql, query: StatsQuery): Promise<UsageStatistics> {
  try {
    return await sql.begin(async (tx) => {
      const period = keptPeriod(query.period, await droppedBeforeMs(tx))
      return merge(period, await selectSums(tx, { ...query, period }), await selectLatency(tx, { ...query, period }))
    }, 'isolation level repeatable read read only')
  } catch (error) {
    throw asStorageError(error)
  }
}

/** `numeric` sums as texts: they may be beyond the safe integers. */
interface SumRow {
  readonly status: CallStatus
  readonly currency: string
  readonly requests: string
  readonly input: string
  readonly cachedInput: string
  readonly cacheWriteInput: string
  readonly output: string
  readonly reasoningOutput: string
  readonly costNanos: string
  readonly durationMs: string
}

async function selectSums(tx: Transaction, query: StatsQuery): Promise<SumRow[]> {
  const { wholeHours } = splitPeriod(query.period)
  // Primary key of usage_hourly: consumer, service, hour.
  return tx<SumRow[]>`
    select status, currency, sum(requests)::text as requests, sum(input_tokens)::text as input,
      sum(cached_input_tokens)::text as "cachedInput", sum(cache_write_input_tokens)::text as "cacheWriteInput",
      sum(output_tokens)::text as output, sum(reasoning_output_tokens)::text as "reasoningOutput",
      sum(cost_nanos)::text as "costNanos", sum(duration_ms)::text as "durationMs"
    from (
      select status, currency, requests, input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens,
        reasoning_output_tokens, cost_nanos, duration_ms
      from usage_hourly
      where consumer_id = ${query.consumerId} and service_id = ${query.serviceId}
        and hour >= ${instant(tx, wholeHours.fromMs)} and hour < ${instant(tx, wholeHours.toMs)}
      union all
      select status, currency, requests, input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens,
        reasoning_output_tokens, cost_nanos, requests * duration_ms
      from usage_records
      where ${inPartHours(tx, query)}
    ) as part
    group by status, currency order by currency, status`
}

async function selectLatency(tx: Transaction, query: StatsQuery): Promise<LatencyCount[]> {
  const { wholeHours } = splitPeriod(query.period)
  const [row] = await tx<[{ latencies: string }]>`
    select coalesce(sum(latencies), 0)::text as latencies
    from (
      select latencies from usage_hourly
      where consumer_id = ${query.consumerId} and service_id = ${query.serviceId}
        and hour >= ${instant(tx, wholeHours.fromMs)} and hour < ${instant(tx, wholeHours.toMs)}
      union all
      select requests * latency_histogram(duration_ms) from usage_records where ${inPartHours(tx, query)}
    ) as part`
  return latencyCounts(row.latencies)
}

/** Index usage_records_consumer: consumer, start; partitions outside the two hours are not touched. */
function inPartHours(tx: Transaction, query: StatsQuery) {
  const { head, tail } = splitPeriod(query.period)
  return tx`consumer_id = ${query.consumerId} and service_id = ${query.serviceId} and (
    (start_time >= ${instant(tx, head.fromMs)} and start_time < ${instant(tx, head.toMs)})
    or (start_time >= ${instant(tx, tail.fromMs)} and start_time < ${instant(tx, tail.toMs)}))`
}

function instant(tx: Transaction, ms: number) {
  return tx`to_timestamp(${ms}::int8 / 1000.0)`
}

function merge(period: Period, rows: readonly SumRow[], latency: readonly LatencyCount[]): UsageStatistics {
  const requests = { succeeded: 0n, failed: 0n, deadline_exceeded: 0n, cancelled: 0n, abandoned: 0n }
  const tokens = { input: 0n, cachedInput: 0n, cacheWriteInput: 0n, output: 0n, reasoningOutput: 0n }
  const costNanos = new Map<string, bigint>()
  let unpriced = 0n
  let durationMs = 0n
  for (const row of rows) {
    // A status that only a newer release knows is no success.
    requests[Object.hasOwn(requests, row.status) ? row.status : 'failed'] += BigInt(row.requests)
    for (const part of parts) tokens[part] += BigInt(row[part])
    durationMs += BigInt(row.durationMs)
    if (row.currency === '') unpriced += BigInt(row.requests)
    else costNanos.set(row.currency, (costNanos.get(row.currency) ?? 0n) + BigInt(row.costNanos))
  }
  const [p50 = 0, p95 = 0, p99 = 0] = latencyPercentiles(latency, [0.5, 0.95, 0.99])
  return { period, requests, tokens, costNanos, unpriced, durationMs, latencyMs: { p50, p95, p99 } }
}

const parts = ['input', 'cachedInput', 'cacheWriteInput', 'output', 'reasoningOutput'] as const
