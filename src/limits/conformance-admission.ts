import { describe, expect, it } from 'vitest'
import { costs, type Scene } from './conformance-scene.ts'
import { admission, bucket, concurrency, period } from './conformance-support.ts'
import type { Limit, LimitCost } from './limits.ts'

/** One limit of each kind, of 50 units, as a call may meet them. */
const kinds: readonly (readonly [name: string, limit: () => Limit])[] = [
  ['a bucket of a second', () => bucket({ capacity: 50 })],
  ['a bucket of a minute', () => bucket({ capacity: 50, windowMs: 60_000, unit: 'tokens' })],
  ['a month of tokens', () => period({ capacity: 50 })],
  ['a month of money', () => period({ capacity: 50, unit: 'nanos' })],
  ['a concurrency', () => concurrency(50)],
]

/** All or none, exactly, at any number of callers. */
export function admissionConformance(scene: () => Scene): void {
  describe('admission', () => {
    it('takes the cost from every limit and tells what is left', async () => {
      const all = kinds.map(([, limit]) => limit())
      const before = Date.now()
      const call = admission(all.map((limit, index) => ({ limit, amount: index + 3 })))
      const result = await scene().limits.admit(call)
      if (result.outcome !== 'admitted') throw new Error(`the call is ${result.outcome}`)
      expect(result.limits.map((state) => state.remaining)).toEqual([47, 46, 45, 44, 43])
      const [second, minute, tokens, money, calls] = result.limits.map((state) => state.resetAtMs)
      // Three seconds and four minutes of refill; the store's clock may be a little off.
      expect(second).toBeGreaterThanOrEqual(before + 2_000)
      expect(minute).toBeGreaterThanOrEqual(before + 239_000)
      expect([tokens, money]).toEqual([all[2], all[3]].map((limit) => limit?.kind === 'period' && limit.endsAtMs))
      expect(Math.abs((calls ?? 0) - before)).toBeLessThan(60_000)
      expect((await scene().remaining(...all)).slice(2)).toEqual([45, 44, 43])
    })

    it.each(kinds)('takes nothing from any limit when %s refuses', async (refusing) => {
      const all = kinds.map(([, limit]) => limit())
      const call = await scene().admitted(all.map((limit) => ({ limit, amount: 1 })))
      const before = await scene().remaining(...all)
      const refusedBy = kinds.findIndex(([name]) => name === refusing)
      const refused = admission(all.map((limit, index) => ({ limit, amount: index === refusedBy ? 90 : 2 })))
      const result = await scene().limits.admit(refused)
      expect(result).toMatchObject({ outcome: 'refused', refusedBy })
      if (result.outcome === 'refused') expect(result.retryAfterMs).toBeGreaterThanOrEqual(1)
      const told = result.outcome === 'refused' ? result.limits.map((state) => state.remaining) : []
      for (const after of [told, await scene().remaining(...all)]) {
        expect(after.slice(2)).toEqual([49, 49, 49])
        for (const index of [0, 1]) {
          // Time refills: one unit more, never one less.
          expect(after[index]).toBeGreaterThanOrEqual(before[index] ?? 50)
          expect(after[index]).toBeLessThanOrEqual(50)
        }
      }
      // It left no reservation and no record, either.
      await scene().settle(call, [1, 1, 1, 1, 1])
      expect((await scene().drain()).map((event) => event.requestId)).toEqual([call.id])
    })

    it('names the limit with the longest wait when several refuse', async () => {
      const [slow, month] = [bucket({ capacity: 5 }), period({ capacity: 5 })]
      const result = await scene().limits.admit(admission(costs([slow, 20], [month, 6], [concurrency(1), 2])))
      expect(result).toMatchObject({ outcome: 'refused', refusedBy: 1 })
      expect(result).toMatchObject({ limits: [{ remaining: 5 }, { remaining: 5 }, { remaining: 1 }] })
      expect(result.outcome === 'refused' && result.retryAfterMs).toBeGreaterThan(86_400_000)
    })

    it('tells how long a bucket of a minute takes', async () => {
      const tokens = bucket({ capacity: 10, refill: 6, windowMs: 60_000 })
      await scene().admitted(costs([tokens, 10]))
      const result = await scene().limits.admit(admission(costs([tokens, 3])))
      const wait = result.outcome === 'refused' ? result.retryAfterMs : 0
      expect(wait).toBeGreaterThan(20_000)
      expect(wait).toBeLessThanOrEqual(30_000)
    })

    it('adds up costs on the same limit', async () => {
      for (const limit of [period({ capacity: 10 }), concurrency(10), bucket({ capacity: 10 })]) {
        const twice = (amount: number): LimitCost[] => costs([limit, amount], [limit, amount])
        expect(await scene().limits.admit(admission(twice(6)))).toMatchObject({ outcome: 'refused' })
        expect(await scene().limits.admit(admission(twice(5)))).toMatchObject({ outcome: 'admitted' })
        expect(await scene().limits.admit(admission(costs([limit, 5])))).toMatchObject({ outcome: 'refused' })
      }
    })

    it('refuses everything on a period of capacity 0', async () => {
      const none = period({ capacity: 0 })
      const result = await scene().limits.admit(admission(costs([none, 0])))
      expect(result).toMatchObject({ outcome: 'refused', refusedBy: 0 })
    })

    it('takes once when the same call is asked twice, also at once', async () => {
      const [month, calls] = [period({ capacity: 100 }), concurrency(5)]
      const call = admission(costs([month, 10], [calls, 1]))
      const results = await Promise.all([scene().limits.admit(call), scene().limits.admit(call)])
      results.push(await scene().limits.admit(call))
      for (const result of results) {
        expect(result).toMatchObject({ outcome: 'admitted', limits: [{ remaining: 90 }, { remaining: 4 }] })
      }
    })

    it('never lets 200 callers at once past any limit', async () => {
      const [requests, month, calls] = [bucket({ capacity: 60 }), period({ capacity: 45 }), concurrency(30)]
      const started = performance.now()
      const admitAll = async (cost: LimitCost[]) => {
        const all = Array.from({ length: 200 }, () => scene().limits.admit(admission(cost)))
        return (await Promise.all(all)).filter((result) => result.outcome === 'admitted').length
      }
      const all = costs([requests, 1], [month, 1], [calls, 1])
      expect(await admitAll(all)).toBe(30)
      expect(await admitAll(all.slice(0, 2))).toBe(15)
      const rest = await admitAll(all.slice(0, 1))
      expect(rest).toBeGreaterThanOrEqual(15)
      expect(rest).toBeLessThanOrEqual(15 + Math.ceil((performance.now() - started) / 1_000))
      expect(await scene().remaining(month, calls)).toEqual([0, 0])
    })

    it('keeps amounts exact up to the largest', async () => {
      const money = period({ capacity: 8e15, unit: 'nanos' })
      const call = await scene().admitted(costs([money, 999_999_999_999_999]))
      expect(await scene().remaining(money)).toEqual([7_000_000_000_000_001])
      await scene().settle(call, [123_456_789_012_345])
      expect(await scene().remaining(money)).toEqual([8e15 - 123_456_789_012_345])
      const wide = bucket({ capacity: 1e8 })
      await scene().admitted(costs([wide, 99_999_999]))
      const [left = 0] = await scene().remaining(wide)
      expect(left).toBeGreaterThanOrEqual(1)
      expect(left).toBeLessThanOrEqual(20)
    })

    it('counts on what a period holds for open calls, and a concurrency on how many there are', async () => {
      const [month, calls] = [period({ capacity: 100 }), concurrency(2)]
      const first = await scene().admitted(costs([month, 60], [calls, 1]))
      const second = admission(costs([month, 60], [calls, 1]))
      expect(await scene().limits.admit(second)).toMatchObject({ outcome: 'refused', refusedBy: 0 })
      await scene().settle(first, [40, 1])
      expect(await scene().limits.admit(second)).toMatchObject({ limits: [{ remaining: 0 }, { remaining: 1 }] })
      await scene().admitted(costs([calls, 1]))
      expect(await scene().limits.admit(admission(costs([calls, 1])))).toMatchObject({ outcome: 'refused' })
    })
  })
}
