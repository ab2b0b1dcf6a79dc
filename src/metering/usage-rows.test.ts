import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import { correctionOf } from './correction.ts'
import { noTokens, type UsageEvent } from './usage-event.ts'
import { usageColumns } from './usage-rows.ts'

test.for<[string, Partial<UsageEvent>]>([
  ['id is not a UUID', { id: 'x' }],
  ['id is not a UUID', { id: randomUUID().toUpperCase() }],
  ['requestId is not a UUID', { requestId: '' }],
  ['consumerId is not a text of at most 128 characters', { consumerId: 'c'.repeat(129) }],
  ['serviceId is not a text of at most 128 characters', { serviceId: 'a\0b' }],
  ['startMs is out of range', { startMs: Number.NaN }],
  ['startMs is out of range', { startMs: 9e15 }],
  ['durationMs is out of range', { durationMs: Number.POSITIVE_INFINITY }],
  ['firstTokenMs is out of range', { firstTokenMs: Number.NaN }],
  ['tokens.output is not a count', { tokens: { ...noTokens, output: -1 } }],
  ['tokens.input is not a count', { tokens: { ...noTokens, input: 0.5 } }],
  ['costNanos is not a count', { costNanos: 2 ** 53 }],
  ['attempt is out of range', { attempt: 1e12 }],
  ['requests is none of 1, 0 and -1', { requests: 2 }],
  ['tokens.input is not a count', { requests: 0, tokens: { ...noTokens, input: 1 }, costNanos: 0 }],
  ['costNanos is not a count', { requests: 0, tokens: noTokens, costNanos: 1 }],
  ['corrects is not a UUID', { corrects: 'x' }],
  ['corrects is not stated in a reversal', { requests: -1, tokens: noTokens, costNanos: 0 }],
  ['costNanos is not a count', { costNanos: -1, corrects: randomUUID() }],
  ['costNanos is not a count', { requests: -1, corrects: randomUUID(), tokens: noTokens, costNanos: 1 }],
  ['tokens.input is not a count', { requests: -1, corrects: randomUUID(), tokens: { ...noTokens, input: 1 } }],
])('rejects an event whose %s', ([reason, changes]) => {
  const event = usageEvent(changes)
  const { columns, rejected } = usageColumns([event, usageEvent()])
  expect(rejected).toEqual([{ event, reason }])
  expect(columns.records.ids).toHaveLength(1)
})

test('takes negative figures in a reversal', () => {
  const [reversal, rebooking] = correctionOf(usageEvent(), usageEvent({ costNanos: 1 }), randomUUID)
  expect(usageColumns([reversal, rebooking])).toMatchObject({
    columns: {
      dimensions: { requests: expect.arrayContaining([-1, 1]), corrected: [reversal.corrects, reversal.corrects] },
    },
    rejected: [],
  })
})

test('takes an attempt that another one followed', () => {
  const superseded = usageEvent({ requests: 0, tokens: noTokens, costNanos: 0 })
  expect(usageColumns([superseded])).toMatchObject({ columns: { dimensions: { requests: [0] } }, rejected: [] })
})

test('names what records have in common once, and no record twice', () => {
  const [a, b] = [usageEvent({ durationMs: 1 }), usageEvent({ durationMs: 2, metadata: { a: 'b' } })]
  const other = usageEvent({ consumerId: 'consumer-b' })
  const { columns } = usageColumns([other, b, a, b])
  expect(columns.dimensions.consumerIds.toSorted()).toEqual(['consumer-a', 'consumer-b'])
  expect(columns.records.ids).toEqual([a.id, b.id, other.id].toSorted())
  const consumers = columns.records.dimensions.map((number) => columns.dimensions.consumerIds[number - 1])
  expect(consumers).toEqual(columns.records.ids.map((id) => (id === other.id ? 'consumer-b' : 'consumer-a')))
})

test.for<[string, Partial<UsageEvent>]>([
  ['hour', { startMs: 1_700_000_000_000 + 3_600_000 }],
  ['organization', { organizationId: 'x' }],
  ['consumer', { consumerId: 'x' }],
  ['service', { serviceId: 'x' }],
  ['endpoint', { endpointId: 'x' }],
  ['key', { keyId: 'x' }],
  ['status', { status: 'failed' }],
  ['reason', { errorReason: 'x' }],
  ['source', { usageSource: 'none' }],
  ['currency', { currency: 'EUR' }],
  ['version of the price', { priceVersion: 'x' }],
  ['model', { model: 'x' }],
  ['attempt', { attempt: 2 }],
  ['request count', { requests: 0, tokens: noTokens, costNanos: 0 }],
  ['sign', { requests: -1, corrects: randomUUID(), tokens: noTokens, costNanos: 0 }],
  ['corrected record', { corrects: randomUUID() }],
])('keeps apart what differs in its %s', ([, changes]) => {
  const startMs = 1_700_000_000_000
  const { columns } = usageColumns([usageEvent({ startMs }), usageEvent({ startMs, ...changes })])
  expect(columns.records.dimensions.toSorted()).toEqual([1, 2])
})

test('rejects what is no event at all', () => {
  const { tokens: _, ...event } = usageEvent()
  const damaged: UsageEvent[] = [JSON.parse('{}'), JSON.parse(JSON.stringify(event))]
  expect(usageColumns(damaged).rejected.map(({ reason }) => reason)).toEqual(['id is not a UUID', 'a field is missing'])
})

test('makes the texts of callers and backends storable instead of rejecting them', () => {
  const { columns, rejected } = usageColumns([
    usageEvent({ model: `a\0b${'m'.repeat(500)}`, metadata: { 'k\0': 'v\ud800' }, durationMs: 1.6 }),
  ])
  expect(rejected).toEqual([])
  expect(columns.dimensions.models).toEqual([`a\uFFFDb${'m'.repeat(197)}`])
  expect(columns.records.metadata).toEqual([JSON.stringify({ 'k\uFFFD': 'v\uFFFD' })])
  expect(columns.records.durationsMs).toEqual([2])
})
