import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { latencyBucket, latencyCounts } from './latency.ts'
import { writeBatch } from './ledger.ts'
import { ensurePartitions, lockPartitions, partitionName } from './month-partitions.ts'
import { startPartitions } from './partitions.ts'
import { releaseQuarantine } from './release.ts'
import { dropOldRecords } from './retention.ts'
import { usageStatistics } from './usage-stats.ts'

const timeout = 120_000
const now = Date.UTC(2031, 10, 21, 12)
const months = Array.from({ length: 12 }, (_, n) => Date.UTC(2030, 11 + n, 15, 6, 30))
const events = months.map((startMs) => usageEvent({ startMs }))
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
}, timeout)

afterAll(() => server?.stop(), timeout)

beforeEach(async () => {
  await server.sql`update usage_retention set dropped_before = 'epoch'`
  await ensurePartitions(server.sql, now, months)
  await server.sql`truncate usage_records, usage_seen, usage_hourly, usage_quarantine`
  await writeBatch(server.sql, events)
  // As if each had been written when it happened.
  await server.sql`
    update usage_seen set seen_at = r.start_time from usage_records r where r.id = usage_seen.event_id`
})

async function records(): Promise<string[]> {
  const rows = await server.sql<{ id: string }[]>`select id from usage_records order by start_time`
  return rows.map(({ id }) => id)
}

async function requests(fromMs: number, toMs: number): Promise<bigint> {
  const query = { consumerId: 'consumer-a', serviceId: 'service-a', period: { fromMs, toMs } }
  return (await usageStatistics(server.sql, query)).requests.succeeded
}

test('the current month and the stated months before it stay, older ones go, and sums stay', { timeout }, async () => {
  const { partitions } = await dropOldRecords(server.sql, 2, now)
  expect(partitions).toEqual(months.slice(0, 9).map(partitionName))
  expect(await records()).toEqual(events.slice(9).map(({ id }) => id))
  const [left] = await server.sql`select to_regclass(${partitionName(months[8] ?? 0)}) is null as gone`
  expect(left).toEqual({ gone: true })
  expect(await requests(Date.UTC(2030, 11, 1), now)).toBe(12n)
  const [sums] = await server.sql<[{ latencies: string }]>`select sum(latencies)::text as latencies from usage_hourly`
  expect(latencyCounts(sums.latencies)).toEqual([{ bucket: latencyBucket(12), requests: 12 }])
})

test('replicas that drop at the same time drop once, and again finds nothing', { timeout }, async () => {
  const all = await Promise.all([1, 2, 3].map(() => dropOldRecords(server.sql, 6, now)))
  expect(all.flatMap(({ partitions }) => partitions)).toEqual(months.slice(0, 5).map(partitionName))
  expect(await dropOldRecords(server.sql, 6, now)).toEqual({ partitions: [], seenIds: 0 })
})

test('no record of dropped time enters the ledger again, even after retention was made longer', {
  timeout,
}, async () => {
  const { seenIds } = await dropOldRecords(server.sql, 2, now)
  // Four months more than the records: until nothing from then could be accepted any more.
  expect(seenIds).toBe(5)
  const again = await writeBatch(server.sql, events)
  expect(again).toMatchObject({ written: 0, duplicates: 3, quarantined: 9 })
  await dropOldRecords(server.sql, 24, now)
  expect(await releaseQuarantine(server.sql, now)).toBe(0)
  await ensurePartitions(server.sql, now, months)
  expect(await writeBatch(server.sql, events)).toMatchObject({ written: 0, duplicates: 12, quarantined: 0 })
  expect(await requests(Date.UTC(2030, 11, 1), now)).toBe(12n)
})

test('a late record of kept time is still accepted, once', { timeout }, async () => {
  await dropOldRecords(server.sql, 2, now)
  const late = usageEvent({ startMs: Date.UTC(2031, 8, 1) })
  expect(await writeBatch(server.sql, [late])).toMatchObject({ written: 1 })
  expect(await writeBatch(server.sql, [late])).toMatchObject({ written: 0, duplicates: 1 })
})

test('part hours of dropped time are left out of a period, and its answer says so', { timeout }, async () => {
  const [first = 0] = months
  const period = { fromMs: first - 60_000, toMs: first + 3_600_000 }
  const query = { consumerId: 'consumer-a', serviceId: 'service-a', period }
  expect(await usageStatistics(server.sql, query)).toMatchObject({ period, requests: { succeeded: 1n } })
  await dropOldRecords(server.sql, 2, now)
  const whole = { fromMs: Date.UTC(2030, 11, 15, 7), toMs: Date.UTC(2030, 11, 15, 7) }
  expect(await usageStatistics(server.sql, query)).toMatchObject({ period: whole, requests: { succeeded: 0n } })
})

test('months are dropped beside running writers, who lose nothing', { timeout }, async () => {
  const writers = Array.from({ length: 4 }, async () => {
    for (let batch = 0; batch < 15; batch++) {
      const some = Array.from({ length: 20 }, (_, n) => usageEvent({ startMs: now - n, consumerId: 'writer' }))
      expect(await writeBatch(server.sql, some)).toMatchObject({ written: 20, quarantined: 0 })
    }
  })
  await Promise.all([...writers, dropOldRecords(server.sql, 6, now), dropOldRecords(server.sql, 2, now)])
  expect(await records()).toHaveLength(3 + 1_200)
})

test('a busy ledger puts dropping off, and off only', { timeout }, async () => {
  const warnings: string[] = []
  const log = { ...silentLog, warn: (_: object, text: string) => void warnings.push(text) }
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  const { promise: locked, resolve: onLocked } = Promise.withResolvers<void>()
  const reader = server.sql.begin(async (tx) => {
    await tx`select count(*) from usage_records`
    onLocked()
    await held
  })
  await locked
  const partitions = await startPartitions({ sql: server.sql, log, retentionMonths: 2, now: () => now, everyMs: 50 })
  expect(warnings).toContain('could not drop partitions of the ledger past retention')
  expect(await records()).toHaveLength(12)
  release()
  await reader
  await expect.poll(records, { timeout: 30_000 }).toEqual(events.slice(9).map(({ id }) => id))
  await partitions.stop()
})

test('without a setting everything stays', { timeout }, async () => {
  const partitions = await startPartitions({ sql: server.sql, log: silentLog, now: () => now })
  await partitions.stop()
  expect(await records()).toHaveLength(12)
})

test('stopping does not wait for a look that does not end', { timeout }, async () => {
  const warnings: string[] = []
  const log = { ...silentLog, warn: (_: object, text: string) => void warnings.push(text) }
  const { sql } = server
  const partitions = await startPartitions({ sql, log, now: () => now, everyMs: 50, stopTimeoutMs: 20 })
  await sql.begin(async (tx) => {
    await lockPartitions(tx)
    const waiting = () => sql`select from pg_locks where locktype = 'advisory' and not granted`
    await expect.poll(async () => (await waiting()).length, { timeout: 10_000 }).toBe(1)
    await partitions.stop()
  })
  expect(warnings).toEqual(['stopped before the look at the partitions of the ledger was over'])
})
