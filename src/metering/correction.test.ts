import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import { correctionOf } from './correction.ts'
import type { UsageEvent } from './usage-event.ts'

const original = usageEvent({ startMs: 1_700_000_000_123, metadata: { team: 'a' }, traceparent: 'sampled' })

test('a reversal negates every figure and keeps every dimension', () => {
  const [reversal] = correctionOf(original, { ...original, metadata: { correction_reason: 'why' } }, randomUUID)
  expect(reversal).toEqual({
    ...original,
    id: expect.not.stringMatching(original.id),
    requests: -1,
    corrects: original.id,
    tokens: { input: -10, cachedInput: -4, cacheWriteInput: -3, output: -20, reasoningOutput: -5 },
    costNanos: -1_234_567,
    metadata: { correction_reason: 'why' },
    traceparent: '',
  })
})

test('a rebooking has the right figures at the old start', () => {
  const right = usageEvent({ startMs: 5, costNanos: 7, status: 'failed', consumerId: 'consumer-b' })
  const [, rebooking] = correctionOf(original, right, randomUUID)
  expect(rebooking).toEqual({
    ...right,
    id: expect.not.stringMatching(right.id),
    startMs: original.startMs,
    requests: 1,
    corrects: original.id,
  })
})

test('a figure of 0 stays 0', () => {
  const [reversal] = correctionOf({ ...original, costNanos: 0 }, original, randomUUID)
  expect(Object.is(reversal.costNanos, 0)).toBe(true)
})

test('sums are those of the last versions, however often and in whatever order entries arrive', () => {
  const figures = fc.record({
    consumerId: fc.constantFrom('a', 'b'),
    status: fc.constantFrom('succeeded', 'failed'),
    durationMs: fc.nat({ max: 3 }),
    costNanos: fc.nat(),
    tokens: fc.record({
      input: fc.nat(),
      cachedInput: fc.nat(),
      cacheWriteInput: fc.nat(),
      output: fc.nat(),
      reasoningOutput: fc.nat(),
    }),
  })
  /** Corrects the record of this place, or adds one when there is none. */
  const step = fc.record({ place: fc.nat({ max: 9 }), figures })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.infiniteStream(fc.nat()), (program, order) => {
      const versions: UsageEvent[] = []
      const entries: UsageEvent[] = []
      for (const { place, figures } of program) {
        const current = versions[place]
        if (current === undefined) {
          const record = usageEvent({ startMs: place * 1_800_000, ...figures })
          versions.push(record)
          entries.push(record)
        } else {
          const pair = correctionOf(current, { ...current, ...figures }, randomUUID)
          versions[place] = pair[1]
          entries.push(...pair)
        }
      }
      const arrivals = [...entries, ...entries.filter((_, index) => index % 3 === 0)]
        .map((entry) => ({ entry, rank: order.next().value }))
        .toSorted((a, b) => a.rank - b.rank)
      const ledger = new Map(arrivals.map(({ entry }) => [entry.id, entry]))
      expect(sumsOf(ledger.values())).toEqual(sumsOf(versions))
    }),
  )
})

/** What the rollup adds up, by its dimensions and the histogram's; rows without anything are left out. */
function sumsOf(events: Iterable<UsageEvent>): Map<string, bigint[]> {
  const rows = new Map<string, bigint[]>()
  for (const { requests, tokens, costNanos, ...event } of events) {
    const hour = Math.floor(event.startMs / 3_600_000)
    const key = [hour, event.consumerId, event.status, event.currency, event.durationMs].join(' ')
    const figures = [requests, costNanos, requests * event.durationMs, ...Object.values(tokens)].map(BigInt)
    const row = rows.get(key)
    rows.set(key, row === undefined ? figures : row.map((sum, index) => sum + (figures[index] ?? 0n)))
  }
  return new Map([...rows].filter(([, row]) => row.some((figure) => figure !== 0n)).toSorted())
}
