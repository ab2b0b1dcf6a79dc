import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type GetUsageStatsRequestSchema, UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import type { Principal } from '../identity/principal.ts'
import { emptySnapshot } from '../registry/snapshot.ts'
import { latencyBucket, latencyCounts, latencyError, latencyPercentiles } from './latency.ts'
import { writeBatch } from './ledger.ts'
import { ensurePartitions } from './month-partitions.ts'
import type { CallStatus, UsageEvent } from './usage-event.ts'
import { totalInput, totalOutput, totalTokens } from './usage-event.ts'
import { createUsageService } from './usage-service.ts'
import { type UsageStatistics, usageStatistics } from './usage-stats.ts'

const timeout = 120_000
const hourMs = 3_600_000
const now = Date.UTC(2026, 10, 18, 12, 34, 56, 789)
const consumer = keyOf({ id: 'consumer-a', organizationId: 'o' })
const statuses = ['succeeded', 'failed', 'deadline_exceeded', 'cancelled', 'abandoned'] as const
const currencies = ['USD', 'EUR', ''] as const

/** Six hours of records, some on the edge of an hour, in several statuses, currencies, keys and models. */
const events = Array.from({ length: 400 }, (_, n): UsageEvent => {
  const age = n % 10 === 0 ? (n % 7) * hourMs + (now % hourMs) : (n * 7_919 * 7_907) % (6 * hourMs)
  const currency = currencies[n % 3] ?? ''
  return usageEvent({
    consumerId: n % 8 === 0 ? 'consumer-b' : 'consumer-a',
    serviceId: n % 5 === 0 ? 'service-b' : 'service-a',
    keyId: `key-${n % 4}`,
    model: `model-${n % 2}`,
    status: statuses[(n * 3) % 5] ?? 'failed',
    startMs: now - age,
    durationMs: Math.round(1.03 ** n) % 700_000,
    currency,
    costNanos: currency === '' ? 0 : n * 1_000_003,
    tokens: { input: n, cachedInput: n % 11, cacheWriteInput: n % 13, output: n % 17, reasoningOutput: n % 19 },
  })
})
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
  await ensurePartitions(server.sql, now)
  await writeBatch(server.sql, events.slice(0, 250))
  await writeBatch(server.sql, events.slice(200))
}, timeout)

afterAll(() => server?.stop(), timeout)

/** The same statistics, from the events. */
function expected(some: readonly UsageEvent[], period: UsageStatistics['period']): Omit<UsageStatistics, 'latencyMs'> {
  const sum = (pick: (event: UsageEvent) => number) => BigInt(some.reduce((total, event) => total + pick(event), 0))
  const count = (status: CallStatus) => sum((event) => Number(event.status === status))
  const paid = [...new Set(some.map(({ currency }) => currency))].filter((currency) => currency !== '').toSorted()
  return {
    period,
    requests: {
      succeeded: count('succeeded'),
      failed: count('failed'),
      deadline_exceeded: count('deadline_exceeded'),
      cancelled: count('cancelled'),
      abandoned: count('abandoned'),
    },
    tokens: {
      input: sum(({ tokens }) => tokens.input),
      cachedInput: sum(({ tokens }) => tokens.cachedInput),
      cacheWriteInput: sum(({ tokens }) => tokens.cacheWriteInput),
      output: sum(({ tokens }) => tokens.output),
      reasoningOutput: sum(({ tokens }) => tokens.reasoningOutput),
    },
    costNanos: new Map(paid.map((code) => [code, sum((event) => (event.currency === code ? event.costNanos : 0))])),
    unpriced: sum(({ currency }) => Number(currency === '')),
    durationMs: sum(({ durationMs }) => durationMs),
  }
}

test('sums of any period are exact to the millisecond, and percentiles within the stated error', {
  timeout,
}, async () => {
  const edge = fc.oneof(
    fc.integer({ min: now - 8 * hourMs, max: now + hourMs }),
    fc.constantFrom(...events.flatMap(({ startMs }) => [startMs, startMs + 1])),
  )
  await fc.assert(
    fc.asyncProperty(edge, edge, async (a, b) => {
      const period = { fromMs: Math.min(a, b), toMs: Math.max(a, b) }
      const { latencyMs, ...sums } = await usageStatistics(server.sql, {
        consumerId: 'consumer-a',
        serviceId: 'service-a',
        period,
      })
      const within = events.filter(
        ({ consumerId, serviceId, startMs }) =>
          consumerId === 'consumer-a' && serviceId === 'service-a' && startMs >= period.fromMs && startMs < period.toMs,
      )
      expect(sums).toEqual(expected(within, period))
      const durations = within.map(({ durationMs }) => durationMs).toSorted((x, y) => x - y)
      for (const [share, estimate] of [
        [0.5, latencyMs.p50],
        [0.95, latencyMs.p95],
        [0.99, latencyMs.p99],
      ] as const) {
        const exact = durations[Math.ceil(share * durations.length) - 1] ?? 0
        expect(Math.abs(estimate - exact)).toBeLessThanOrEqual(exact * latencyError * 1.000_001)
      }
    }),
    { numRuns: 150 },
  )
})

test('histograms hold every record of the ledger once', { timeout }, async () => {
  const rows = await server.sql<{ requests: number; latencies: string }[]>`
    select requests, latencies::text as latencies from usage_hourly`
  expect(rows.length).toBeGreaterThan(10)
  for (const { requests, latencies } of rows) {
    expect(latencyCounts(latencies).reduce((sum, count) => sum + count.requests, 0)).toBe(requests)
  }
})

test('the database sorts durations into the buckets that the estimates are made for', { timeout }, async () => {
  const durations = [...Array(2_000).keys(), ...Array.from({ length: 2_000 }, (_, n) => Math.round(1.014 ** n))]
  const sorted = durations.filter((ms) => Number.isSafeInteger(ms))
  const rows = await server.sql<{ bucket: number; histogram: string }[]>`
    select latency_bucket(duration) as bucket, latency_histogram(duration)::text as histogram
    from unnest(${sorted}::int8[]) with ordinality as d (duration, n) order by n`
  for (const [index, { bucket, histogram }] of rows.entries()) {
    const durationMs = sorted[index] ?? 0
    expect(bucket).toBe(latencyBucket(durationMs))
    expect(latencyCounts(histogram)).toEqual([{ bucket, requests: 1 }])
    const [estimate = Number.NaN] = latencyPercentiles([{ bucket, requests: 1 }], [0.5])
    expect(Math.abs(estimate - durationMs)).toBeLessThanOrEqual(durationMs * latencyError * 1.000_001)
  }
})

test('sums go beyond what a double holds', { timeout }, async () => {
  const huge = { consumerId: 'whale', startMs: now - 1, costNanos: Number.MAX_SAFE_INTEGER }
  await writeBatch(server.sql, [usageEvent(huge), usageEvent(huge), usageEvent({ ...huge, startMs: now - 2 * hourMs })])
  const stats = await ask(keyOf({ id: 'whale', organizationId: 'o' }))
  expect(stats.costs).toMatchObject([{ currency: 'USD', amountNanos: 3n * BigInt(Number.MAX_SAFE_INTEGER) }])
})

function ask(principal: Principal, fields: MessageInitShape<typeof GetUsageStatsRequestSchema> = {}) {
  const { getUsageStats } = createUsageService({
    sql: server.sql,
    now: () => now,
    snapshots: { current: () => emptySnapshot },
  })
  return invoke(UsageService.method.getUsageStats, getUsageStats, { serviceId: 'service-a', ...fields }, principal)
}

test('answers a consumer about itself, the last 30 days unless told otherwise', { timeout }, async () => {
  const mine = events.filter(({ consumerId, serviceId }) => consumerId === 'consumer-a' && serviceId === 'service-a')
  const before = mine.filter(({ startMs }) => startMs < now)
  const sum = (pick: (event: UsageEvent) => number) => before.reduce((total, event) => total + pick(event), 0)
  const count = (...some: CallStatus[]) => sum(({ status }) => Number(some.includes(status)))
  const failed = count('failed', 'deadline_exceeded', 'abandoned')
  const stats = await ask(consumer)
  expect(stats).toMatchObject({
    serviceId: 'service-a',
    consumerId: 'consumer-a',
    periodStart: timestampFromMs(now - 30 * 24 * hourMs),
    periodEnd: timestampFromMs(now),
    totalRequests: BigInt(before.length),
    succeededRequests: BigInt(count('succeeded')),
    failedRequests: BigInt(failed),
    cancelledRequests: BigInt(count('cancelled')),
    totalTokens: BigInt(sum(({ tokens }) => totalTokens(tokens))),
    inputTokens: BigInt(sum(({ tokens }) => totalInput(tokens))),
    outputTokens: BigInt(sum(({ tokens }) => totalOutput(tokens))),
    avgLatencyMs: sum(({ durationMs }) => durationMs) / before.length,
    errorRate: failed / before.length,
    unpricedRequests: BigInt(sum(({ currency }) => Number(currency === ''))),
  })
  // Several currencies: a sum of them would be no amount of anything.
  expect(stats.totalCost).toBeUndefined()
  expect(stats.costs?.map(({ currency }) => currency)).toEqual(['EUR', 'USD'])
})

test('what nobody used sums up to nothing', { timeout }, async () => {
  const stats = await ask(consumer, { serviceId: 'service-z', days: 366 })
  expect(stats).toMatchObject({
    totalRequests: 0n,
    totalCost: 0,
    costs: [],
    avgLatencyMs: 0,
    latencyMsP99: 0,
    errorRate: 0,
  })
})

test('a day is the last 24 hours, and a stated period is that period', { timeout }, async () => {
  const day = await ask(consumer, { days: 1 })
  expect(day).toMatchObject({ periodStart: timestampFromMs(now - 24 * hourMs), periodEnd: timestampFromMs(now) })
  const none = await ask(consumer, { startTime: timestampFromMs(now + 1), endTime: timestampFromMs(now + 2) })
  expect(none).toMatchObject({
    totalRequests: 0n,
    periodStart: timestampFromMs(now + 1),
    periodEnd: timestampFromMs(now + 2),
  })
})

test('refuses a consumer that is not there, or none at all, and a period that is none', { timeout }, async () => {
  await expect(ask(administrator)).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT' })
  await expect(ask(administrator, { consumerId: 'consumer-z' })).rejects.toMatchObject({
    reason: 'CONSUMER_NOT_FOUND',
    fields: [{ field: 'consumer_id' }],
  })
  await expect(ask(consumer, { startTime: timestampFromMs(now), endTime: timestampFromMs(now) })).rejects.toMatchObject(
    { reason: 'INVALID_ARGUMENT' },
  )
})
