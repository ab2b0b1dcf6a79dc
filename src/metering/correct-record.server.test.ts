import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { type CallOptions, type Client, ConnectError, createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { UsageSource } from '../../gen/marketplace/v1/consumption_pb.ts'
import { type CorrectUsageRecordRequestSchema, UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import { unbalanced } from '../../test/support/audit.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { consumerRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import type { ConsumerRecord, PriceRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { as, type Fixture, keys, startFixture, wires } from '../server/fixture.ts'
import { register } from '../server/rpc.ts'
import { correctionIds, correctionOf } from './correction.ts'
import { writeBatch } from './ledger.ts'
import { ensurePartitions } from './month-partitions.ts'
import { noTokens, type UsageEvent } from './usage-event.ts'
import { createUsageService } from './usage-service.ts'

type Fields = Omit<MessageInitShape<typeof CorrectUsageRecordRequestSchema>, '$typeName' | '$unknown'>

const admin = as(keys.admin)
const now = Date.now()
let server: PostgresServer
let fixture: Fixture
let usage: Client<typeof UsageService>
/** Ids of the entries that the observer was told of; it fails once for each error that stands here. */
const told: string[][] = []
const failures: Error[] = []

beforeAll(async () => {
  server = await startPostgresServer()
  await ensurePartitions(server.sql, now)
  const service = createUsageService({
    sql: server.sql,
    now: Date.now,
    snapshots: { current: () => buildSnapshot({ version: 1, services: [chat], consumers, nowMs: now }) },
    onCorrected: async (entries) => {
      told.push(entries.map(({ id }) => id))
      const failure = failures.pop()
      if (failure !== undefined) throw failure
    },
  })
  fixture = await startFixture({ services: [register(UsageService, service)] })
  usage = createClient(UsageService, wires.grpc(fixture.server.address))
}, 60_000)

afterAll(async () => {
  await fixture?.close()
  await server?.stop()
})

beforeEach(() => {
  told.length = 0
})

/** Two nano-units a request until an hour ago, three since. */
const prices: PriceRecord[] = [
  { version: '2', currency: 'USD', effectiveFromMs: now - 3_600_000, model: { kind: 'per_request', requestNanos: 3 } },
  { version: '1', currency: 'USD', effectiveFromMs: 0, model: { kind: 'per_request', requestNanos: 2 } },
]
const chat = serviceRecord({ id: 'service-a', name: 'chat', status: 'retired', prices })
const consumers: ConsumerRecord[] = []

/** A record of a consumer of its own, in the ledger. */
async function recorded(changes: Partial<UsageEvent> = {}): Promise<UsageEvent> {
  const record = usageEvent({ consumerId: randomUUID(), startMs: now, ...changes })
  consumers.push(consumerRecord({ id: record.consumerId }))
  await writeBatch(server.sql, [record])
  return record
}

function correct(record: { id: string }, fields: Fields = {}, options: CallOptions = admin) {
  const request: Fields = {
    recordId: record.id,
    requestId: randomUUID(),
    reason: 'the backend counted twice',
    usage: { inputTokens: 8n, cachedInputTokens: 2n, cacheWriteInputTokens: 1n, outputTokens: 4n },
  }
  return usage.correctUsageRecord({ ...request, ...fields }, options)
}

async function refusal(call: Promise<unknown>) {
  const error = ConnectError.from(
    await call.then(
      () => new Error('no error'),
      (caught: unknown) => caught,
    ),
  )
  const [info] = error.findDetails(ErrorInfoSchema)
  return { reason: info?.reason, metadata: info?.metadata, text: error.rawMessage }
}

async function statistics({ consumerId, serviceId }: UsageEvent) {
  const stats = await usage.getUsageStats({ consumerId, serviceId, days: 2 }, admin)
  return { requests: stats.totalRequests, tokens: stats.totalTokens, nanos: stats.costs[0]?.amountNanos }
}

describe('a correction', () => {
  it('leaves the record as it is, and every sum as if the record had been right', async () => {
    const record = await recorded({ metadata: { team: 'a' } })
    const { reversal, rebooking } = await correct(record, { cost: { currency: 'USD', amountNanos: 77n } })
    const labels = { team: 'a', correction_reason: 'the backend counted twice' }
    expect(reversal).toMatchObject({
      requestId: record.requestId,
      corrects: record.id,
      requests: -1,
      usage: { totalTokens: -42n },
      cost: { amountNanos: -1_234_567n, priceVersion: '1' },
      metadata: labels,
    })
    expect(rebooking).toMatchObject({
      corrects: record.id,
      requests: 1,
      usage: { inputTokens: 8n, cachedInputTokens: 2n, cacheWriteInputTokens: 1n, outputTokens: 4n, totalTokens: 12n },
      cost: { amountNanos: 77n, currency: 'USD', priceVersion: '' },
      metadata: labels,
    })
    const { usageRecords } = await usage.listUsageRecords({ consumerId: record.consumerId }, admin)
    expect(usageRecords.map(({ id }) => id).toSorted()).toEqual(
      [record.id, reversal?.id ?? '', rebooking?.id ?? ''].toSorted(),
    )
    expect(usageRecords.find(({ id }) => id === record.id)).toMatchObject({ usage: { totalTokens: 42n }, requests: 1 })
    expect(await statistics(record)).toEqual({ requests: 1n, tokens: 12n, nanos: 77n })
    expect(await unbalanced(server.sql)).toEqual([])
  })

  it.for<[string, Partial<UsageEvent>, { nanos: bigint; priceVersion: string }]>([
    ['the version that the record names', { priceVersion: '1', startMs: now }, { nanos: 2n, priceVersion: '1' }],
    [
      'the version in force then, for an unpriced record',
      { priceVersion: '', currency: '', costNanos: 0, startMs: now - 3_600_001 },
      { nanos: 2n, priceVersion: '1' },
    ],
    [
      'the version in force then, when that is the newest',
      { priceVersion: '', currency: '', costNanos: 0, startMs: now },
      { nanos: 3n, priceVersion: '2' },
    ],
  ])('without a cost is priced by %s', async ([, changes, { nanos, priceVersion }]) => {
    const { rebooking } = await correct(await recorded(changes))
    expect(rebooking?.cost).toMatchObject({ amountNanos: nanos, currency: 'USD', priceVersion })
  })

  it('keeps where the counts come from unless it says so', async () => {
    const record = await recorded({ usageSource: 'estimated' })
    const first = await correct(record)
    expect(first.rebooking?.usage?.source).toBe(UsageSource.ESTIMATED)
    const second = await correct({ id: first.rebooking?.id ?? '' }, { usage: { source: UsageSource.PROVIDER } })
    expect(second.rebooking?.usage).toMatchObject({ source: UsageSource.PROVIDER, totalTokens: 0n })
  })

  it('happens once, however often its request comes, and its observer hears of it each time', async () => {
    const record = await recorded()
    const requestId = randomUUID()
    const answers = await Promise.all(Array.from({ length: 8 }, () => correct(record, { requestId })))
    failures.push(new Error('counters are away'))
    expect(await refusal(correct(record, { requestId }))).toMatchObject({ reason: 'INTERNAL' })
    answers.push(await correct(record, { requestId }))
    expect(new Set(answers.map(({ rebooking }) => rebooking?.id)).size).toBe(1)
    expect(told).toEqual(Array(10).fill([answers[0]?.reversal?.id, answers[0]?.rebooking?.id]))
    expect(await statistics(record)).toMatchObject({ requests: 1n, tokens: 12n })
  })

  it('of a record happens once, however many want to correct it at the same time', async () => {
    const record = await recorded()
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => correct(record)))
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(await statistics(record)).toMatchObject({ requests: 1n, tokens: 12n })
  })

  it('gives way to one of the same record that comes through the usage log, whatever half of it comes first', async () => {
    const sums = await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        const record = await recorded()
        const late = correctionOf(
          record,
          { ...record, tokens: { ...record.tokens, input: 0 } },
          correctionIds(record.id),
        )
        const halves = n % 2 === 0 ? late : late.toReversed()
        await Promise.allSettled([correct(record), ...halves.map((entry) => writeBatch(server.sql, [entry]))])
        return await statistics(record)
      }),
    )
    for (const sum of sums) {
      expect(sum.requests).toBe(1n)
      expect([12n, 32n]).toContain(sum.tokens)
    }
    expect(await unbalanced(server.sql)).toEqual([])
  })
})

describe('is refused', () => {
  it('a record that was corrected, with the rebooking that holds now', async () => {
    const record = await recorded()
    const first = await correct(record)
    const second = await correct({ id: first.rebooking?.id ?? '' })
    const latestRecordId = second.rebooking?.id ?? ''
    for (const id of [record.id, first.reversal?.id ?? '', first.rebooking?.id ?? '', second.reversal?.id ?? '']) {
      const { reason, metadata, text } = await refusal(correct({ id }))
      expect({ reason, metadata }).toEqual({
        reason: 'USAGE_RECORD_REVERSED',
        metadata: { recordId: id, latestRecordId },
      })
      expect(text).toContain(`Correct ${latestRecordId} instead.`)
    }
    expect(await statistics(record)).toMatchObject({ requests: 1n, tokens: 12n })
  })

  it('a record whose entries have ids of any other making', async () => {
    const record = await recorded()
    await writeBatch(server.sql, correctionOf(record, record, randomUUID))
    expect(await refusal(correct(record))).toMatchObject({ reason: 'USAGE_RECORD_REVERSED' })
    expect(await statistics(record)).toMatchObject({ requests: 1n, tokens: 42n })
  })

  it('an attempt that another one followed: its call has another record', async () => {
    const record = await recorded({ requests: 0, tokens: noTokens, costNanos: 0, currency: '', status: 'failed' })
    await expect(correct(record)).rejects.toThrow(/another one followed/)
  })

  it('a request id that stated something else', async () => {
    const record = await recorded()
    const requestId = randomUUID()
    await correct(record, { requestId })
    for (const other of [{ reason: 'another' }, { usage: {} }, { cost: { currency: 'USD', amountNanos: 1n } }]) {
      expect(await refusal(correct(record, { requestId, ...other }))).toMatchObject({ reason: 'ALREADY_EXISTS' })
    }
  })

  it.for<[string, Fields]>([
    ['a record that nobody has', { recordId: randomUUID() }],
    ['parts beyond their total', { usage: { inputTokens: 1n, cachedInputTokens: 1n, cacheWriteInputTokens: 1n } }],
    ['a negative cost', { cost: { currency: 'USD', amountNanos: -1n } }],
    ['no reason', { reason: '' }],
    ['a reason of 257 characters', { reason: 'r'.repeat(257) }],
    ['a request id that is no UUID', { requestId: 'x' }],
  ])('%s', async ([name, fields]) => {
    const record = await recorded()
    const { reason } = await refusal(correct(record, fields))
    expect(reason).toBe(name.includes('nobody') ? 'USAGE_RECORD_NOT_FOUND' : 'INVALID_ARGUMENT')
    expect(await statistics(record)).toMatchObject({ tokens: 42n })
  })

  it('a consumer', async () => {
    expect(await refusal(correct(await recorded(), {}, as(keys.own)))).toMatchObject({
      reason: 'PERMISSION_MISSING',
    })
  })

  it('usage to be priced, of a service that is gone', async () => {
    expect(await refusal(correct(await recorded({ serviceId: 'gone' })))).toMatchObject({ reason: 'SERVICE_NOT_FOUND' })
  })
})

it('leaves its trail once: what was before and after, and why, without the labels of the call', async () => {
  const record = await recorded({ metadata: { team: 'a label of its caller' } })
  const requestId = randomUUID()
  await correct(record, { requestId, reason: 'billed twice' })
  await correct(record, { requestId, reason: 'billed twice' })
  const trail = await server.sql<Record<string, string>[]>`
    select action, actor, organization_id, reason, before, after from audit_records
    where resource = ${`usage_record/${record.id}`}`
  expect(trail).toMatchObject([
    {
      action: 'usage_record.corrected',
      actor: 'administrator',
      organization_id: record.organizationId,
      reason: 'billed twice',
    },
  ])
  expect(JSON.parse(trail[0]?.before ?? '')).toMatchObject({ id: record.id, requests: 1 })
  expect(JSON.parse(trail[0]?.after ?? '')).toMatchObject({ corrects: record.id, requests: 1 })
  expect(JSON.stringify(trail)).not.toContain('a label')
})
