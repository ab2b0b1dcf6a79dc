import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { UsageEvent } from '../metering/usage-event.ts'
import { period, usageEvent } from './conformance-support.ts'
import { decodeList, encodeFields } from './event-codec.ts'
import type { UsageBatch } from './limits.ts'
import { LocalUsageLog } from './local-usage-log.ts'

/** Texts that look like the ends of others in JSON, and one that is part of another. */
const consumers = ['a', 'ab', '","', '],["', 'ü\\"', '\ud800', '0']

type Step =
  /** A record with so many events, of the consumers in turn from this one on. One of large ones is larger than a page. */
  | {
      readonly kind: 'add'
      readonly events: number
      readonly consumer: number
      readonly size: 'small' | 'plain' | 'large'
    }
  | { readonly kind: 'read'; readonly max: number }
  /** Of the batches so far, counted from the newest; maybe again. */
  | { readonly kind: 'acknowledge'; readonly back: number }
  /** What is held is delivered again. */
  | { readonly kind: 'expire' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('add' as const),
        events: fc.oneof(fc.nat(3), fc.constant(300)),
        consumer: fc.nat(consumers.length - 1),
        size: fc.constantFrom('small' as const, 'plain' as const, 'large' as const),
      }),
    },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('read' as const), max: fc.integer({ min: 1, max: 400 }) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('acknowledge' as const), back: fc.nat(4) }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'expire' as const }) },
  ),
  { minLength: 1, maxLength: 30, size: 'max' },
)

interface Known {
  readonly sequence: number
  readonly event: UsageEvent
  /** When it was delivered last. */
  sinceMs: number | undefined
}

it('delivers each event until it is acknowledged, as it was, and knows what of a month waits', async () => {
  await fc.assert(fc.asyncProperty(steps, run), { numRuns: 40 })
}, 60_000)

async function run(program: readonly Step[]): Promise<void> {
  let nowMs = 1
  let through = 0
  let last = 0
  /** What is not acknowledged, in the order of the log. */
  const known = new Map<string, Known>()
  const batches: { readonly batch: UsageBatch; readonly ids: readonly string[] }[] = []
  const log = new LocalUsageLog(
    {
      clock: () => nowMs,
      reclaimIdleMs: 1,
      sweep: async () => 0,
      acknowledgedThrough: async (sequence) => {
        through = sequence
      },
    },
    0,
  )
  for (const step of program) {
    if (step.kind === 'add') {
      last += 1
      const events = Array.from({ length: step.events }, (_, index) =>
        usageEvent({
          consumerId: consumers[(step.consumer + index) % consumers.length] ?? '',
          ...(step.size === 'small' ? { requestId: '', organizationId: '', serviceId: '', endpointId: '' } : {}),
          metadata: { text: 'ü'.repeat(step.size === 'large' && index === 1 ? 40_000 : 1) },
        }),
      )
      for (const event of events) known.set(event.id, { sequence: last, event, sinceMs: undefined })
      log.add(last, events.map(encodeFields))
    } else if (step.kind === 'read') {
      const due = [...known.values()].filter(({ sinceMs }) => sinceMs === undefined || sinceMs < nowMs)
      const batch = await log.read(step.max, 0, new AbortController().signal)
      const events = batch.events()
      expect(events).toHaveLength(batch.size)
      expect(batch.size).toBeLessThanOrEqual(step.max)
      expect(batch.size > 0).toBe(due.length > 0)
      expect(decodeList(Buffer.from(batch.encoded()).toString())).toEqual(events)
      for (const event of events) {
        const delivered = known.get(event.id)
        expect(delivered?.event).toEqual(event)
        if (delivered === undefined) continue
        expect(delivered.sinceMs).not.toBe(nowMs)
        delivered.sinceMs = nowMs
      }
      batches.unshift({ batch, ids: events.map(({ id }) => id) })
    } else if (step.kind === 'acknowledge') {
      const acknowledged = batches[step.back]
      if (acknowledged === undefined) continue
      await acknowledged.batch.acknowledge()
      for (const id of acknowledged.ids) known.delete(id)
      const oldest = Math.min(last + 1, ...[...known.values()].map(({ sequence }) => sequence))
      expect(through).toBe(oldest - 1)
    } else {
      nowMs += 1
    }
    expect(log.size).toBe(known.size)
    for (const id of consumers) {
      const limit = period({ capacity: 1, scope: { kind: 'consumer', id, serviceId: undefined } })
      const waiting = [...known.values()].filter(({ event }) => event.consumerId === id)
      expect(
        log
          .waitingFor(limit)
          .map((event) => event.id)
          .sort(),
      ).toEqual(waiting.map(({ event }) => event.id).sort())
    }
  }
}

it('leaves out of a batch what was acknowledged as part of another, and is gone', async () => {
  const log = new LocalUsageLog(
    { clock: () => 0, reclaimIdleMs: 0, sweep: async () => 0, acknowledgedThrough: async () => undefined },
    0,
  )
  log.add(1, [encodeFields(usageEvent())])
  const read = () => log.read(10, 0, new AbortController().signal)
  const [slow, next] = [await read(), await read()]
  expect(next.events()).toEqual(slow.events())
  await next.acknowledge()
  expect(slow.events()).toEqual([])
  await slow.acknowledge()
  expect(await read()).toMatchObject({ size: 0 })
})
