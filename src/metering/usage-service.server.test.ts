import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ListUsageRecordsRequestSchema, UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { consumerRecord } from '../../test/support/registry-records.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { TollgateError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { writeBatch } from './ledger.ts'
import { ensurePartitions } from './month-partitions.ts'
import { createUsageService } from './usage-service.ts'

const timeout = 60_000
const consumer = keyOf({ id: 'consumer-a', organizationId: 'o' })
/** Three share a millisecond, so that a page may end among them. */
const ages = [0, 1_000, 2_000, 2_000, 2_000, 3_000, 40 * 86_400_000]
const base = Date.UTC(new Date().getUTCFullYear(), new Date().getUTCMonth(), 28)
const events = ages.map((age) =>
  usageEvent({ startMs: base - age, consumerId: 'consumer-a', metadata: { age: `${age}` } }),
)
/** Its key is known before this process knows the consumer itself. */
const snapshot = buildSnapshot({
  version: 1,
  services: [],
  consumers: [consumerRecord({ id: 'consumer-b' })],
  nowMs: base,
})
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
  await ensurePartitions(server.sql, base)
  await ensurePartitions(server.sql, base - 40 * 86_400_000)
  await writeBatch(server.sql, [...events, usageEvent({ consumerId: 'consumer-b', startMs: base, firstTokenMs: 7 })])
}, timeout)

afterAll(() => server?.stop(), timeout)

function list(principal: Principal, fields: MessageInitShape<typeof ListUsageRecordsRequestSchema> = {}) {
  const { listUsageRecords } = createUsageService({
    sql: server.sql,
    now: Date.now,
    snapshots: { current: () => snapshot },
  })
  return invoke(UsageService.method.listUsageRecords, listUsageRecords, fields, principal)
}

test('pages hold each record of the consumer once, newest first', { timeout }, async () => {
  for (const pageSize of [1, 2, 3, 7, 100]) {
    const ids: (string | undefined)[] = []
    let pageToken = ''
    do {
      const page = await list(consumer, { pageSize, pageToken })
      const records = page.usageRecords ?? []
      expect(records.length).toBeLessThanOrEqual(pageSize)
      ids.push(...records.map((record) => record.metadata?.age))
      pageToken = page.nextPageToken ?? ''
    } while (pageToken !== '')
    expect(ids).toEqual(ages.map(String))
  }
})

test('finds the attempts of a call, and nothing for an id that is none', { timeout }, async () => {
  const wanted = events[2]
  const found = await list(consumer, { requestId: wanted?.requestId ?? '' })
  expect(found.usageRecords).toMatchObject([{ id: wanted?.id, metadata: { age: '2000' } }])
  expect(await list(consumer, { requestId: 'not-a-uuid' })).toMatchObject({ usageRecords: [], nextPageToken: '' })
})

test('a record says when the ledger took it, whenever its call was', { timeout }, async () => {
  const page = await list(consumer)
  const [{ at } = { at: 0 }] = await server.sql<{ at: number }[]>`
    select (extract(epoch from max(recorded_at)) * 1000)::int8 as at from usage_records where consumer_id = 'consumer-a'`
  expect(at).toBeGreaterThan(Date.now() - 600_000)
  for (const { createTime } of page.usageRecords) expect(createTime).toEqual(timestampFromMs(at))
})

test('an administrator sees the consumer that it names', { timeout }, async () => {
  expect((await list(administrator, { consumerId: 'consumer-b' })).usageRecords).toMatchObject([{ firstTokenMs: 7n }])
  for (const { firstTokenMs } of (await list(consumer)).usageRecords) expect(firstTokenMs).toBe(0n)
})

test.for<[string, Principal, MessageInitShape<typeof ListUsageRecordsRequestSchema>, Partial<TollgateError>]>([
  ['an administrator who names no consumer', administrator, {}, { reason: 'INVALID_ARGUMENT' }],
  ['a consumer that is not there', administrator, { consumerId: 'consumer-c' }, { reason: 'CONSUMER_NOT_FOUND' }],
  ['a page token of nobody', consumer, { pageToken: 'AAAA' }, { reason: 'INVALID_ARGUMENT' }],
])('refuses %s', async ([, principal, fields, expected]) => {
  const error = await list(principal, fields).catch((caught: unknown) => caught)
  expect(error).toBeInstanceOf(TollgateError)
  expect(error).toMatchObject(expected)
  expect(error).toMatchObject({ fields: [{ field: principal === administrator ? 'consumer_id' : 'page_token' }] })
})

test('a text that Postgres cannot hold is the fault of its caller', { timeout }, async () => {
  const snapshots = { current: () => snapshot }
  const { getUsageStats } = createUsageService({ sql: server.sql, now: Date.now, snapshots })
  const asked = invoke(UsageService.method.getUsageStats, getUsageStats, { serviceId: 'a\0b' }, consumer)
  await expect(asked).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT' })
})
