import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { correctionOf } from './correction.ts'
import { latencyBucket, latencyCounts } from './latency.ts'
import { writeBatch, writeBatchIsolating } from './ledger.ts'
import { ensurePartitions } from './month-partitions.ts'
import { startPartitions } from './partitions.ts'
import { releaseQuarantine } from './release.ts'
import type { UsageEvent } from './usage-event.ts'
import { noTokens, totalTokens } from './usage-event.ts'
import { usedUnits } from './used-units.ts'

const timeout = 120_000
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
  await ensurePartitions(server.sql, Date.now())
}, timeout)

afterAll(() => server?.stop(), timeout)

beforeEach(() => server.sql`truncate usage_records, usage_seen, usage_hourly, usage_quarantine`.then(() => {}))

/** What the ledger holds and what the rollup says, as comparable sums. */
async function sums(): Promise<{ ledger: unknown; rollup: unknown }> {
  const [ledger] = await server.sql`
    select coalesce(sum(requests), 0)::int8 as requests, coalesce(sum(input_tokens), 0)::int8 as input,
      coalesce(sum(cached_input_tokens), 0)::int8 as cached, coalesce(sum(cache_write_input_tokens), 0)::int8 as cache_write,
      coalesce(sum(output_tokens), 0)::int8 as output, coalesce(sum(reasoning_output_tokens), 0)::int8 as reasoning,
      coalesce(sum(cost_nanos), 0)::int8 as cost, coalesce(sum(requests * duration_ms), 0)::int8 as duration,
      coalesce(sum(requests * latency_histogram(duration_ms)), 0)::text as latencies
    from usage_records`
  const [rollup] = await server.sql`
    select coalesce(sum(requests), 0)::int8 as requests, coalesce(sum(input_tokens), 0)::int8 as input,
      coalesce(sum(cached_input_tokens), 0)::int8 as cached, coalesce(sum(cache_write_input_tokens), 0)::int8 as cache_write,
      coalesce(sum(output_tokens), 0)::int8 as output, coalesce(sum(reasoning_output_tokens), 0)::int8 as reasoning,
      coalesce(sum(cost_nanos), 0)::int8 as cost, coalesce(sum(duration_ms), 0)::int8 as duration,
      coalesce(sum(latencies), 0)::text as latencies
    from usage_hourly`
  return { ledger, rollup }
}

test('holds an event once, repeated in its batch and in later batches', { timeout }, async () => {
  const [a, b, c] = [usageEvent(), usageEvent(), usageEvent()]
  expect(await writeBatch(server.sql, [a, b, a])).toEqual({ written: 2, duplicates: 1, quarantined: 0, traced: [] })
  expect(await writeBatch(server.sql, [b, c])).toEqual({ written: 1, duplicates: 1, quarantined: 0, traced: [] })
  const { ledger, rollup } = await sums()
  expect(ledger).toMatchObject({ requests: 3, cost: 3 * 1_234_567 })
  expect(rollup).toEqual(ledger)
})

test('has its statement parsed once on a connection, and sees partitions that are made after that', {
  timeout,
}, async () => {
  const nowMs = Date.UTC(2031, 4, 15)
  const late = usageEvent({ startMs: nowMs })
  await server.sql.begin(async (tx) => {
    // So often that the plan does not follow the batch any more.
    for (let batch = 1; batch <= 8; batch++) {
      expect(await writeBatch(tx, [usageEvent(), usageEvent()])).toMatchObject({ written: 2 })
    }
    const prepared = await tx`select generic_plans + custom_plans >= 8 as is_shared, generic_plans > 0 as is_kept
      from pg_prepared_statements where name = 'usage_batch'`
    expect(prepared).toEqual([{ is_shared: true, is_kept: true }])
    expect(await writeBatch(tx, [late])).toMatchObject({ written: 0, quarantined: 1 })
    await tx`create table usage_records_2031_05 partition of usage_records
      for values from ('2031-05-01T00:00:00Z') to ('2031-06-01T00:00:00Z')`
    expect(await writeBatch(tx, [late, usageEvent()])).toMatchObject({ written: 2 })
    await tx`drop table usage_records_2031_05`
  })
})

test('keeps the attempts before the last one, and counts none of them', { timeout }, async () => {
  const last = usageEvent({ attempt: 3 })
  const superseded = [1, 2].map((attempt) => ({
    ...usageEvent({ requestId: last.requestId, attempt, status: 'failed', requests: 0, costNanos: 0, currency: '' }),
    tokens: noTokens,
  }))
  const counted = superseded.map((event) => ({ ...event, id: randomUUID(), costNanos: 1 }))
  expect(await writeBatch(server.sql, [...superseded, last, ...counted])).toMatchObject({ written: 3, quarantined: 2 })
  const { ledger, rollup } = await sums()
  expect(ledger).toMatchObject({ requests: 1, cost: 1_234_567 })
  expect(rollup).toEqual(ledger)
  // Whoever writes past the checks of the ledger meets those of the table.
  await expect(server.sql`update usage_records set requests = 0 where attempt = 3`).rejects.toThrow()
  await expect(
    server.sql`insert into usage_records (select (jsonb_populate_record(kept, jsonb_build_object('id', ${randomUUID()}::text,
      'requests', 0))).* from usage_records kept where attempt = 3)`,
  ).rejects.toThrow(/usage_records_superseded_check/)
})

test('sums follow corrections, whatever order they arrive in', { timeout }, async () => {
  const records = Array.from({ length: 6 }, (_, n) =>
    usageEvent({ startMs: Date.now() - n * 1_800_000, durationMs: n * 100 }),
  )
  const corrections = records.slice(0, 4).map((record, n) => {
    const right = { ...record, status: n % 2 === 0 ? ('failed' as const) : record.status, costNanos: n, durationMs: n }
    return correctionOf(record, right, randomUUID)
  })
  const again = corrections.slice(0, 2).map(([, rebooking]) => correctionOf(rebooking, rebooking, randomUUID))
  const entries = [...again.flat(), ...records, ...corrections.flat()]
  await Promise.all(
    [0, 1, 2].map((third) =>
      writeBatch(
        server.sql,
        entries.filter((_, n) => n % 3 === third),
      ),
    ),
  )
  await writeBatch(server.sql, entries)
  const { ledger, rollup } = await sums()
  expect(ledger).toMatchObject({
    requests: 6,
    cost: 0 + 1 + 2 + 3 + 2 * 1_234_567,
    duration: 0 + 1 + 2 + 3 + 400 + 500,
  })
  expect(rollup).toEqual(ledger)
  const [histogram] = await server.sql<[{ text: string }]>`select sum(latencies)::text as text from usage_hourly`
  const expected = [0, 1, 2, 3, 400, 500].map((durationMs) => ({ bucket: latencyBucket(durationMs), requests: 1 }))
  expect(latencyCounts(histogram.text)).toEqual(expected)
})

test('the histogram is that of the records after every batch, also while a reversal waits for its record', {
  timeout,
}, async () => {
  const records = [0, 1, 7, 8, 9, 1_000, 1_001, 7_200_000].map((durationMs) => usageEvent({ durationMs }))
  const corrections = records.map((record, n) =>
    correctionOf(record, { ...record, durationMs: n % 2 === 0 ? record.durationMs : n * 300 }, randomUUID),
  )
  const superseded = usageEvent({ requests: 0, tokens: noTokens, costNanos: 0 })
  const entries = [...records, ...corrections.flat(), superseded]
  const order = fc.shuffledSubarray(entries, { minLength: entries.length })
  await fc.assert(
    fc.asyncProperty(order, fc.integer({ min: 1, max: entries.length }), async (some, size) => {
      await server.sql`truncate usage_records, usage_seen, usage_hourly, usage_quarantine`
      const counts = new Map<number, number>()
      for (let from = 0; from < some.length; from += size) {
        const batch = some.slice(from, from + size)
        await writeBatch(server.sql, batch)
        for (const { durationMs, requests } of batch) {
          const bucket = latencyBucket(durationMs)
          counts.set(bucket, (counts.get(bucket) ?? 0) + requests)
        }
        const { ledger, rollup } = await sums()
        expect(rollup).toEqual(ledger)
        const [{ text }] = await server.sql<[{ text: string }]>`select sum(latencies)::text as text from usage_hourly`
        const expected = [...counts].filter(([, count]) => count !== 0).sort(([a], [b]) => a - b)
        expect(latencyCounts(text).map(({ bucket, requests }) => [bucket, requests])).toEqual(expected)
      }
    }),
    { numRuns: 15 },
  )
})

test('refuses to change a record, in every partition', { timeout }, async () => {
  await writeBatch(server.sql, [usageEvent(), usageEvent({ startMs: Date.now() + 31 * 86_400_000 })])
  const tables = await server.sql<
    { name: string }[]
  >`select distinct tableoid::regclass::text as name from usage_records`
  expect(tables).toHaveLength(2)
  for (const name of ['usage_records', ...tables.map(({ name }) => name)]) {
    const change = server.sql`update ${server.sql(name)} set cost_nanos = 0`
    await expect(change).rejects.toThrow('a usage record is never changed: add a correction')
  }
})

test('holds an event once even when its repetition has another start', { timeout }, async () => {
  const event = usageEvent()
  await writeBatch(server.sql, [event])
  const repeated = { ...event, startMs: event.startMs - 40 * 86_400_000 }
  expect(await writeBatch(server.sql, [repeated])).toMatchObject({ written: 0 })
})

test('rollup equals ledger, whatever batches arrive in whatever order from several writers', { timeout }, async () => {
  const now = Date.now()
  const events = Array.from({ length: 60 }, (_, n): UsageEvent => {
    const count = (salt: number): number => (n * 7_919 + salt * 104_729) % 1_000
    return usageEvent({
      consumerId: `consumer-${n % 3}`,
      serviceId: `service-${n % 2}`,
      model: `model-${n % 4}`,
      status: n % 5 === 0 ? 'failed' : 'succeeded',
      startMs: now - (n % 7) * 1_800_000,
      durationMs: count(1),
      costNanos: count(2) * 1e9,
      tokens: {
        input: count(3),
        cachedInput: count(4),
        cacheWriteInput: count(5),
        output: count(6),
        reasoningOutput: count(7),
      },
    })
  })
  const batch = fc.array(fc.nat({ max: events.length - 1 }), { maxLength: 40 })
  await fc.assert(
    fc.asyncProperty(fc.array(batch, { maxLength: 6 }), async (batches) => {
      const picked = batches.map((indexes) => indexes.flatMap((index) => events[index] ?? []))
      const results = await Promise.all(picked.map((some) => writeBatch(server.sql, some)))
      for (const [n, result] of results.entries()) {
        expect(result.written + result.duplicates + result.quarantined).toBe(picked[n]?.length)
      }
      const { ledger, rollup } = await sums()
      expect(rollup).toEqual(ledger)
    }),
    { numRuns: 25 },
  )
  await writeBatch(server.sql, events)
  const { ledger } = await sums()
  expect(ledger).toMatchObject({
    requests: events.length,
    cost: events.reduce((sum, event) => sum + event.costNanos, 0),
  })
  const mine = events.filter((event) => event.consumerId === 'consumer-1' && event.serviceId === 'service-0')
  const used = await usedUnits(server.sql, {
    scope: { kind: 'consumer', id: 'consumer-1', serviceId: 'service-0' },
    unit: 'tokens',
    waiting: [],
    monthStartMs: now - 86_400_000 - (now % 3_600_000),
    monthEndMs: now - (now % 3_600_000) + 3_600_000,
  })
  expect(used).toBe(mine.reduce((sum, event) => sum + totalTokens(event.tokens), 0))
})

test('a field of an event arrives unchanged, to the millisecond', { timeout }, async () => {
  const startMs = Date.UTC(new Date().getUTCFullYear(), new Date().getUTCMonth(), 3, 4, 5, 6, 789)
  const event = usageEvent({ startMs, metadata: { 'a"b': 'c{},\\"ü' }, model: 'x"{},\\', errorReason: '' })
  await writeBatch(server.sql, [event])
  const rows = await server.sql`
    select id, metadata, model, error_reason, to_char(start_time, 'DD HH24:MI:SS.US') as start from usage_records`
  expect(rows).toEqual([
    { id: event.id, metadata: event.metadata, model: event.model, error_reason: '', start: '03 04:05:06.789000' },
  ])
})

test('keeps what it cannot take in quarantine, whole and once, and takes the rest', { timeout }, async () => {
  const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`
  const malformed = usageEvent({ id: 'none', traceparent, metadata: { a: '\0\ud800' } })
  const homeless = usageEvent({ startMs: Date.UTC(2001, 1, 1) })
  const sound = usageEvent()
  const first = await writeBatch(server.sql, [malformed, homeless, sound])
  expect(first).toMatchObject({ written: 1, duplicates: 0, quarantined: 2 })
  expect(await writeBatch(server.sql, [malformed, homeless])).toMatchObject({
    written: 0,
    duplicates: 2,
    quarantined: 0,
  })
  const rows = await server.sql<
    { reason: string; event: string }[]
  >`select reason, event from usage_quarantine order by reason`
  expect(rows.map((row) => row.reason)).toEqual(['id is not a UUID', 'no partition holds its start'])
  expect(rows.map((row) => JSON.parse(row.event))).toEqual([malformed, homeless])
})

test('isolates the one event that the database refuses', { timeout }, async () => {
  await server.sql`alter table usage_records add constraint no_poison check (model <> 'poison')`
  try {
    const events = Array.from({ length: 21 }, (_, n) => usageEvent(n === 13 ? { model: 'poison' } : {}))
    expect(await writeBatchIsolating(server.sql, events)).toMatchObject({ written: 20, duplicates: 0, quarantined: 1 })
    expect(await server.sql`select reason from usage_quarantine`).toEqual([
      { reason: 'refused by the database: 23514' },
    ])
  } finally {
    await server.sql`alter table usage_records drop constraint no_poison`
  }
})

test('writers of the same thousand events in opposite order neither deadlock nor count twice', {
  timeout,
}, async () => {
  const events = Array.from({ length: 1_000 }, (_, n) => usageEvent({ consumerId: `consumer-${n % 20}` }))
  const results = await Promise.all(
    [events, events.toReversed(), events, events.toReversed()].map((some) => writeBatch(server.sql, some)),
  )
  expect(results.reduce((sum, result) => sum + result.written, 0)).toBe(1_000)
  const { ledger, rollup } = await sums()
  expect(rollup).toEqual(ledger)
})

test('says which written events carry a traceparent', { timeout }, async () => {
  const traced = usageEvent({ traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` })
  expect((await writeBatch(server.sql, [traced, usageEvent()])).traced).toEqual([traced.traceparent])
  expect((await writeBatch(server.sql, [traced])).traced).toEqual([])
})

test('partitions reach from last month to three ahead, and several replicas make them together', {
  timeout,
}, async () => {
  const nowMs = Date.UTC(2031, 10, 30, 23, 59)
  const made = await Promise.all([1, 2, 3].map(() => ensurePartitions(server.sql, nowMs)))
  const names = ['2031_10', '2031_11', '2031_12', '2032_01', '2032_02'].map((month) => `usage_records_${month}`)
  expect(made.flat().toSorted()).toEqual(names)
  const edge = [usageEvent({ startMs: Date.UTC(2031, 9, 1) }), usageEvent({ startMs: Date.UTC(2032, 2, 1) - 1 })]
  expect(await writeBatch(server.sql, edge)).toMatchObject({ written: 2, quarantined: 0 })
  expect(await writeBatch(server.sql, [usageEvent({ startMs: Date.UTC(2032, 2, 1) })])).toMatchObject({
    quarantined: 1,
  })
})

test('makes the next partition when the clock reaches it', { timeout }, async () => {
  let nowMs = Date.UTC(2035, 0, 31)
  const partitions = await startPartitions({ sql: server.sql, log: silentLog, now: () => nowMs, everyMs: 20 })
  nowMs = Date.UTC(2035, 1, 1)
  const found = () => server.sql`select to_regclass('usage_records_2035_05') is not null as found`
  await expect.poll(found, { timeout: 30_000 }).toEqual([{ found: true }])
  await partitions.stop()
})

test('events of a gateway that was off for months leave quarantine for the ledger, once', { timeout }, async () => {
  const nowMs = Date.UTC(2041, 6, 15)
  const late = Array.from({ length: 1_100 }, (_, n) => usageEvent({ startMs: Date.UTC(2040, n % 12, 2) }))
  const absurd = usageEvent({ startMs: Date.UTC(1999, 1, 1) })
  expect(await writeBatch(server.sql, [...late, absurd])).toMatchObject({ written: 0, quarantined: 1_101 })
  expect(await releaseQuarantine(server.sql, nowMs)).toBe(1_100)
  expect(await releaseQuarantine(server.sql, nowMs)).toBe(0)
  expect(await writeBatch(server.sql, late)).toMatchObject({ written: 0, duplicates: 1_100 })
  const { ledger, rollup } = await sums()
  expect(ledger).toMatchObject({ requests: 1_100 })
  expect(rollup).toEqual(ledger)
  const left = await server.sql<{ event: string }[]>`select event from usage_quarantine`
  expect(left.map(({ event }) => JSON.parse(event))).toEqual([absurd])
})
