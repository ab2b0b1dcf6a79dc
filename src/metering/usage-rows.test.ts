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
  expect(columns.ids).toHaveLength(1)
})

test('takes negative figures in a reversal', () => {
  const [reversal, rebooking] = correctionOf(usageEvent(), usageEvent({ costNanos: 1 }), randomUUID)
  expect(usageColumns([reversal, rebooking])).toMatchObject({
    columns: { requests: [-1, 1], corrected: [reversal.corrects, reversal.corrects], costs: [-1_234_567, 1] },
    rejected: [],
  })
})

test('takes an attempt that another one followed', () => {
  const superseded = usageEvent({ requests: 0, tokens: noTokens, costNanos: 0 })
  expect(usageColumns([superseded])).toMatchObject({ columns: { requests: [0] }, rejected: [] })
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
  expect(columns.models).toEqual([`a\uFFFDb${'m'.repeat(197)}`])
  expect(columns.metadata).toEqual([JSON.stringify({ 'k\uFFFD': 'v\uFFFD' })])
  expect(columns.durationsMs).toEqual([2])
})
