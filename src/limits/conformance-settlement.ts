import { describe, expect, it } from 'vitest'
import { noTokens } from '../metering/usage-event.ts'
import { costs, type Scene } from './conformance-scene.ts'
import { admission, bucket, concurrency, period, settlement, unknownCall, usageEvent } from './conformance-support.ts'
import type { PeriodLimit } from './limits.ts'

/** What was reserved becomes what was used, once, whatever becomes of the call. */
export function settlementConformance(scene: () => Scene): void {
  describe('settlement', () => {
    it('gives back what was reserved too much', async () => {
      const [requests, month] = [bucket({ capacity: 100 }), period({ capacity: 1_000 })]
      const call = await scene().admitted(costs([requests, 60], [month, 500]))
      await scene().settle(call, [10, 120])
      const [left = 0, leftOfMonth] = await scene().remaining(requests, month)
      expect(left).toBeGreaterThanOrEqual(90)
      expect(left).toBeLessThanOrEqual(100)
      expect(leftOfMonth).toBe(880)
    })

    it('makes debt of what was reserved too little, and debt refuses', async () => {
      const [requests, month] = [bucket({ capacity: 10 }), period({ capacity: 100 })]
      const call = await scene().admitted(costs([requests, 1], [month, 10]))
      await scene().settle(call, [5_000, 250])
      const [left = 0, leftOfMonth] = await scene().remaining(requests, month)
      expect(left).toBeLessThan(-4_000)
      expect(leftOfMonth).toBe(-150)
      const next = await scene().limits.admit(admission(costs([requests, 1])))
      expect(next.outcome === 'refused' && next.retryAfterMs).toBeGreaterThan(4_000_000)
      expect(await scene().limits.admit(admission(costs([month, 0])))).toMatchObject({ outcome: 'refused' })
    })

    it('never fills a bucket beyond its capacity', async () => {
      const requests = bucket({ capacity: 10, refill: 1_000_000 })
      const call = await scene().admitted(costs([requests, 10]))
      await scene().settle(call, [0])
      expect(await scene().remaining(requests)).toEqual([10])
    })

    it('ends a call at once, whatever it says it used of a concurrency', async () => {
      const calls = concurrency(3)
      const [first, second] = [await scene().admitted(costs([calls, 1])), await scene().admitted(costs([calls, 2]))]
      await scene().settle(first, [7])
      expect(await scene().remaining(calls)).toEqual([1])
      await scene().settle(second, [0])
      expect(await scene().remaining(calls)).toEqual([3])
    })

    it('changes and records nothing the second time, nor when two come at once', async () => {
      const [month, calls] = [period({ capacity: 100 }), concurrency(5)]
      await scene().admitted(costs([month, 7], [calls, 1]))
      const call = await scene().admitted(costs([month, 50], [calls, 1]))
      await Promise.all([scene().settle(call, [10, 1]), scene().settle(call, [10, 1])])
      await scene().settle(call, [99, 1])
      expect(await scene().remaining(month, calls)).toEqual([83, 4])
      expect(await scene().drain()).toHaveLength(1)
    })

    it('records a call that nobody knows, once, and its counters know of it', async () => {
      const month = period({ capacity: 100 })
      expect(await scene().remaining(month)).toEqual([100])
      const stranger = settlement(admission(costs([month, 40])), [30])
      await scene().limits.settle(stranger)
      await scene().limits.settle(stranger)
      expect(await scene().remaining(month)).toEqual([70])
      const other = unknownCall()
      await scene().limits.settle(other)
      const events = await scene().drain()
      expect(new Set(events)).toEqual(new Set([stranger.event, other.event]))
      expect(events).toHaveLength(2)
    })

    it('tells once that 80 and that 100 percent of a period are used', async () => {
      const [tokens, others] = [period({ capacity: 1_000 }), period({ capacity: 10_000, unit: 'nanos' })]
      const told = async (actual: number) => {
        const call = await scene().admitted(costs([others, 1], [tokens, 1]))
        return (await scene().settle(call, [0, actual])).crossed
      }
      expect(await told(799)).toEqual([])
      expect(await told(1)).toEqual([{ limit: tokens, used: 800, threshold: 80 }])
      expect(await told(150)).toEqual([])
      expect(await told(60)).toEqual([{ limit: tokens, used: 1_010, threshold: 100 }])
    })

    it('tells of both thresholds of two periods, and of the higher one when it passes both', async () => {
      const [tokens, money] = [period({ capacity: 100 }), period({ capacity: 1_000, unit: 'nanos' })]
      const call = await scene().admitted(costs([tokens, 10], [money, 10]))
      const { crossed } = await scene().settle(call, [100, 900])
      expect(crossed).toEqual([
        { limit: tokens, used: 100, threshold: 100 },
        { limit: money, used: 900, threshold: 80 },
      ])
      expect(await scene().settle(call, [100, 900])).toEqual({ crossed: [] })
    })

    it('tells by the next settlement of a threshold that nobody heard of, and never again, also after a correction', async () => {
      const month = period({ capacity: 1_000 })
      const used = async (change: number) => {
        const tokens = { ...noTokens, input: change }
        const event = usageEvent({ consumerId: month.scope.id, tokens })
        await scene().limits.correct({ events: [event], counters: [month.key] })
      }
      const told = async (limit: PeriodLimit, actual = 0) =>
        (await scene().settle(await scene().admitted(costs([limit, 1])), [actual])).crossed
      await scene().abandoned(costs([month, 810]))
      expect(await told(month)).toEqual([{ limit: month, used: 810, threshold: 80 }])
      await used(-500)
      expect(await told(month, 500)).toEqual([])
      const last = await scene().admitted(costs([month, 1]))
      await used(300)
      // Nobody knows the counter now.
      expect((await scene().settle(last, [1])).crossed).toEqual([])
      const raised = { ...month, capacity: 1_200 }
      expect(await told(raised)).toEqual([{ limit: raised, used: 1_111, threshold: 80 }])
      expect(await told(raised)).toEqual([])
    })

    it('tells of a threshold that was passed before anybody asked for the counter', async () => {
      const month = period({ capacity: 1_000 })
      scene().ledger.usedBefore.set(month.key, 900)
      const call = await scene().admitted(costs([month, 1]))
      expect((await scene().settle(call, [1])).crossed).toEqual([{ limit: month, used: 901, threshold: 80 }])
    })

    it('tells each threshold by exactly one of many settlements that come at once', async () => {
      const month = period({ capacity: 1_000 })
      const calls = await Promise.all(Array.from({ length: 100 }, () => scene().admitted(costs([month, 10]))))
      const results = await Promise.all(
        calls.flatMap((call) => [scene().settle(call, [10]), scene().settle(call, [10])]),
      )
      const told = results.flatMap((result) => result.crossed.map(({ threshold, used }) => [threshold, used]))
      expect(told.sort()).toEqual([
        [100, 1_000],
        [80, 800],
      ])
    })
  })

  describe('a lease', () => {
    it('that runs out records the call as abandoned, once, at the reserved amount, and ends it', async () => {
      const [month, calls] = [period({ capacity: 100 }), concurrency(5)]
      await scene().admitted(costs([calls, 1]))
      const call = await scene().abandoned(costs([month, 40], [calls, 1]))
      expect(await scene().limits.usageLog.sweep()).toBe(0)
      expect(await scene().remaining(month, calls)).toEqual([60, 4])
      expect(await scene().drain()).toEqual([call.ifAbandoned])
    })

    it('of a settled call never runs out', async () => {
      const call = await scene().admitted(costs([bucket({ capacity: 5 }), 1]), { leaseMs: 1 })
      await scene().settle(call, [1])
      const other = await scene().abandoned(costs([bucket({ capacity: 5 }), 1]))
      const ids = (await scene().drain()).map((event) => event.id)
      expect(ids.sort()).toEqual([call.ifAbandoned.id, other.ifAbandoned.id].sort())
    })
  })
}
