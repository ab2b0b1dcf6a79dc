import { describe, expect, it } from 'vitest'
import { correctionIds } from '../metering/correction.ts'
import { noTokens } from '../metering/usage-event.ts'
import { costs, type Scene } from './conformance-scene.ts'
import { bucket, concurrency, period, usageEvent } from './conformance-support.ts'
import { periodKeysOf } from './limit-keys.ts'

/** What was recorded wrongly is put right in usage log and counters, by further entries. */
export function correctionConformance(scene: () => Scene): void {
  describe('a correction', () => {
    it('comes out of the usage log, and the counters follow the ledger', async () => {
      const [month, other] = [period({ capacity: 1_000 }), period({ capacity: 1_000 })]
      const call = await scene().admitted(costs([month, 500]))
      await scene().settle(call, [400])
      await scene().admitted(costs([month, 50]))
      await scene().admitted(costs([other, 30]))
      await scene().drain()
      const { event } = { event: { ...call.ifAbandoned, status: 'succeeded' as const } }
      const events = [-400, 150].map((input) => ({ ...event, id: usageEvent().id, tokens: { ...noTokens, input } }))
      const correction = { events, counters: periodKeysOf(event) }
      await scene().limits.correct(correction)
      expect(await scene().remaining(month, other)).toEqual([1_000 - 150 - 50, 970])
      expect(new Set(await scene().drain())).toEqual(new Set(events))
      await scene().limits.correct(correction)
      expect(await scene().remaining(month, other)).toEqual([1_000 - 150 - 50, 970])
    })

    it('may name counters that do not exist', async () => {
      const event = usageEvent()
      await scene().limits.correct({
        events: [event],
        counters: [...periodKeysOf(event), 'tokens_per_month|key:x||2026-01'],
      })
      expect(await scene().drain()).toEqual([event])
    })
  })

  describe('the settlement of a call that was recorded as abandoned', () => {
    it('corrects record and counters to what was used, once', async () => {
      const scope = { kind: 'consumer', id: usageEvent().id, serviceId: undefined } as const
      const [tokens, money] = [period({ capacity: 100, scope }), period({ capacity: 1_000, scope, unit: 'nanos' })]
      const calls = concurrency(5)
      await scene().admitted(costs([tokens, 7], [calls, 1]))
      const call = await scene().abandoned(costs([tokens, 40], [money, 900], [calls, 1], [bucket({ capacity: 5 }), 1]))
      expect(await scene().remaining(tokens, money, calls)).toEqual([53, 100, 4])
      expect(await scene().settle(call, [5, 60, 1, 1])).toEqual({ crossed: [] })
      await scene().settle(call, [5, 60, 1, 1])
      expect(await scene().remaining(tokens, money, calls)).toEqual([88, 940, 4])
      const [abandoned, reversal, rebooking, ...more] = await scene().drain()
      expect(abandoned).toEqual(call.ifAbandoned)
      const corrects = call.ifAbandoned.id
      const { requestId } = call.ifAbandoned
      expect(reversal).toMatchObject({ requestId, corrects, requests: -1, tokens: { input: -40 }, costNanos: -900 })
      expect(rebooking).toMatchObject({ requestId, corrects, requests: 1, tokens: { input: 5 }, costNanos: 60 })
      expect(rebooking).toMatchObject({ status: 'succeeded' })
      // An administrator who corrects the same record makes the same entries: the ledger takes one of the two.
      const ids = correctionIds(corrects)
      expect([reversal?.id, rebooking?.id]).toEqual([ids(), ids()])
      expect(more).toEqual([])
      await scene().settle(call, [5, 60, 1, 1])
      expect(await scene().remaining(tokens, money, calls)).toEqual([88, 940, 4])
      expect(await scene().drain()).toEqual([])
    })

    it('corrects it once when two come at once', async () => {
      const month = period({ capacity: 100 })
      const call = await scene().abandoned(costs([month, 40]))
      await Promise.all([scene().settle(call, [90]), scene().settle(call, [90])])
      expect(await scene().remaining(month)).toEqual([10])
      expect(await scene().drain()).toHaveLength(3)
    })
  })
}
