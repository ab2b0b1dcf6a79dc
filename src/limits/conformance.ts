import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { runProgram, steps } from './conformance-programs.ts'
import { admission, bucket, drain, type LimitsFixture, open, period, usageEvent, uuid } from './conformance-support.ts'
import type { Admission, Limit, LimitCost, Limits } from './limits.ts'

export type { LimitsFixture } from './conformance-support.ts'

/**
 * What every implementation of {@link Limits} promises, as tests. `makeFixture` gives an empty store; times are real,
 * so buckets here refill slowly and assertions allow for what the elapsed time refilled.
 */
export function limitsConformance(name: string, makeFixture: () => Promise<LimitsFixture>): void {
  describe(`${name}: limits`, () => {
    let fixture: LimitsFixture
    let limits: Limits

    beforeEach(async () => {
      fixture = await makeFixture()
      limits = fixture.limits
    })
    afterEach(() => fixture.close())

    async function remaining(...of: Limit[]): Promise<number[]> {
      return (await limits.read('org', of)).map((state) => state.remaining)
    }

    async function admitted(costs: readonly LimitCost[], changes: Partial<Admission> = {}): Promise<Admission> {
      const call = admission(costs, changes)
      const result = await limits.admit(call)
      expect(result).toMatchObject({ admitted: true })
      return call
    }

    describe('admission', () => {
      it('takes the cost from every limit and tells what is left', async () => {
        const [requests, month] = [bucket({ capacity: 10 }), period({ capacity: 1_000 })]
        const before = Date.now()
        const result = await limits.admit(
          admission([
            { limit: requests, amount: 3 },
            { limit: month, amount: 400 },
          ]),
        )
        expect(result).toMatchObject({ admitted: true, limits: [{}, { remaining: 600, resetAtMs: month.endsAtMs }] })
        expect(result.limits[0]?.remaining).toBe(7)
        expect(result.limits[0]?.resetAtMs).toBeGreaterThanOrEqual(before + 2_000)
        expect(await remaining(month)).toEqual([600])
      })

      it.each([0, 1, 2, 3])('takes nothing from any limit when limit %i of 4 refuses', async (refusing) => {
        const all = [
          bucket({ capacity: 50 }),
          period({ capacity: 50 }),
          bucket({ capacity: 50 }),
          period({ capacity: 50 }),
        ]
        await admitted(all.map((limit) => ({ limit, amount: 1 })))
        const before = await remaining(...all)
        const call = admission(all.map((limit, index) => ({ limit, amount: index === refusing ? 90 : 2 })))
        const result = await limits.admit(call)
        expect(result).toMatchObject({ admitted: false, refusedBy: refusing })
        expect(!result.admitted && result.retryAfterMs).toBeGreaterThanOrEqual(1)
        const after = await remaining(...all)
        after.forEach((left, index) => {
          // A second may pass between the two: one unit more, never one less.
          expect(left - (before[index] ?? 0)).toBeGreaterThanOrEqual(0)
          expect(left).toBeLessThanOrEqual(50)
        })
        expect([after[1], after[3]]).toEqual([49, 49])
        expect(await limits.usageLog.sweep()).toBe(0)
      })

      it('names the limit with the longest wait when several refuse', async () => {
        const [slow, month] = [bucket({ capacity: 5 }), period({ capacity: 5, endsAtMs: Date.now() + 3_600_000 })]
        const result = await limits.admit(
          admission([
            { limit: slow, amount: 20 },
            { limit: month, amount: 6 },
          ]),
        )
        expect(result).toMatchObject({ admitted: false, refusedBy: 1, limits: [{ remaining: 5 }, { remaining: 5 }] })
        expect(!result.admitted && result.retryAfterMs).toBeGreaterThan(3_000_000)
      })

      it('adds up costs on the same limit', async () => {
        const month = period({ capacity: 10 })
        const twice = (amount: number) => [
          { limit: month, amount },
          { limit: month, amount },
        ]
        expect(await limits.admit(admission(twice(6)))).toMatchObject({ admitted: false })
        expect(await limits.admit(admission(twice(5)))).toMatchObject({ admitted: true })
        expect(await remaining(month)).toEqual([0])
      })

      it('refuses everything on a period of capacity 0', async () => {
        const none = period({ capacity: 0 })
        expect(await limits.admit(admission([{ limit: none, amount: 0 }]))).toMatchObject({
          admitted: false,
          refusedBy: 0,
        })
      })

      it('takes once when the same call is asked twice', async () => {
        const month = period({ capacity: 100 })
        const call = await admitted([{ limit: month, amount: 10 }])
        expect(await limits.admit(call)).toMatchObject({ admitted: true, limits: [{ remaining: 90 }] })
      })

      it('keeps organizations apart that use the same key', async () => {
        const month = period({ capacity: 10 })
        await admitted([{ limit: month, amount: 10 }])
        await admitted([{ limit: month, amount: 10 }], { organizationId: 'another' })
        expect(await remaining(month)).toEqual([0])
      })

      it('never lets 200 callers at once past a burst of 20 and its refill', async () => {
        const requests = bucket({ capacity: 20 })
        const month = period({ capacity: 1_000 })
        const started = performance.now()
        const costs = [
          { limit: requests, amount: 1 },
          { limit: month, amount: 1 },
        ]
        const results = await Promise.all(Array.from({ length: 200 }, () => limits.admit(admission(costs))))
        const passed = results.filter((result) => result.admitted).length
        expect(passed).toBeGreaterThanOrEqual(20)
        expect(passed).toBeLessThanOrEqual(20 + Math.ceil((performance.now() - started) / 1_000))
        expect(await remaining(month)).toEqual([1_000 - passed])
      })

      it('keeps amounts exact up to the largest', async () => {
        const month = period({ capacity: 1e12 })
        const call = await admitted([{ limit: month, amount: 999_999_999_999 }])
        expect(await remaining(month)).toEqual([1])
        await limits.settle({ ...open(call), actual: [123_456_789_012] })
        expect(await remaining(month)).toEqual([1e12 - 123_456_789_012])
        const wide = bucket({ capacity: 1e8 })
        await admitted([{ limit: wide, amount: 99_999_999 }])
        const [left = 0] = await remaining(wide)
        expect(left).toBeGreaterThanOrEqual(1)
        expect(left).toBeLessThan(1_000)
      })
    })

    describe('seeding', () => {
      it('asks the ledger for an unknown period, counts on from its answer, and never asks again', async () => {
        const month = period({ capacity: 1_000 })
        fixture.used.set(month.key, 900)
        const ask = () => limits.admit(admission([{ limit: month, amount: 30 }]))
        const results = await Promise.all([ask(), ask(), ask(), ask(), ask()])
        expect(results.filter((result) => result.admitted)).toHaveLength(3)
        const asked = fixture.asked.length
        expect(asked).toBeGreaterThanOrEqual(1)
        expect(await remaining(month)).toEqual([10])
        expect(await ask()).toMatchObject({ admitted: false })
        expect(fixture.asked).toHaveLength(asked)
      })

      it('reads an unknown period from the ledger, too', async () => {
        const month = period({ capacity: 1_000 })
        fixture.used.set(month.key, 900)
        expect(await remaining(bucket({ capacity: 3 }), month)).toEqual([3, 100])
      })

      it('refuses with LIMITS_UNAVAILABLE, taking nothing, when the ledger does not answer', async () => {
        const [requests, month] = [bucket({ capacity: 3 }), period({ capacity: 10 })]
        fixture.used.set(month.key, Number.NaN)
        const call = admission([
          { limit: requests, amount: 3 },
          { limit: month, amount: 1 },
        ])
        await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
        expect(await remaining(requests)).toEqual([3])
      })
    })

    describe('settlement', () => {
      it('gives back what was reserved too much', async () => {
        const [requests, month] = [bucket({ capacity: 100 }), period({ capacity: 1_000 })]
        const call = await admitted([
          { limit: requests, amount: 60 },
          { limit: month, amount: 500 },
        ])
        await limits.settle({ ...open(call), actual: [10, 120] })
        const [left = 0, leftOfMonth] = await remaining(requests, month)
        expect(left).toBeGreaterThanOrEqual(90)
        expect(left).toBeLessThanOrEqual(100)
        expect(leftOfMonth).toBe(880)
      })

      it('makes debt of what was reserved too little, and debt refuses', async () => {
        const [requests, month] = [bucket({ capacity: 10 }), period({ capacity: 100 })]
        const call = await admitted([
          { limit: requests, amount: 1 },
          { limit: month, amount: 10 },
        ])
        await limits.settle({ ...open(call), actual: [5_000, 250] })
        const [left = 0, leftOfMonth] = await remaining(requests, month)
        expect(left).toBeLessThan(-4_000)
        expect(leftOfMonth).toBe(-150)
        const next = await limits.admit(admission([{ limit: requests, amount: 1 }]))
        expect(next).toMatchObject({ admitted: false })
        expect(!next.admitted && next.retryAfterMs).toBeGreaterThan(4_000_000)
      })

      it('never fills a bucket beyond its capacity', async () => {
        const requests = bucket({ capacity: 10, refillPerSecond: 1_000_000 })
        const call = await admitted([{ limit: requests, amount: 10 }])
        await limits.settle({ ...open(call), actual: [0] })
        expect(await remaining(requests)).toEqual([10])
      })

      it('changes and records nothing the second time, nor when two come at once', async () => {
        const month = period({ capacity: 100 })
        const call = await admitted([{ limit: month, amount: 50 }])
        const settlement = { ...open(call), actual: [10] }
        await Promise.all([limits.settle(settlement), limits.settle(settlement)])
        await limits.settle({ ...settlement, actual: [99] })
        expect(await remaining(month)).toEqual([90])
        expect(await drain(limits.usageLog)).toHaveLength(1)
      })

      it('records the event of a call that nobody knows, once', async () => {
        const settlement = { id: uuid(), organizationId: 'org', actual: [3], event: usageEvent() }
        await limits.settle(settlement)
        await limits.settle(settlement)
        expect((await drain(limits.usageLog)).map((entry) => entry.event)).toEqual([settlement.event])
      })
    })

    describe('lease', () => {
      it('that runs out records the call as abandoned, once, and keeps the reserved amount', async () => {
        const month = period({ capacity: 100 })
        const call = await admitted([{ limit: month, amount: 40 }], { leaseMs: 1 })
        await expect.poll(() => limits.usageLog.sweep()).toBe(1)
        expect(await limits.usageLog.sweep()).toBe(0)
        expect(await remaining(month)).toEqual([60])
        expect((await drain(limits.usageLog)).map((entry) => entry.event)).toEqual([call.ifAbandoned])
      })

      it('that ran out lets a late settlement correct the counters without a second record', async () => {
        const month = period({ capacity: 100 })
        const call = await admitted([{ limit: month, amount: 40 }], { leaseMs: 1 })
        await expect.poll(() => limits.usageLog.sweep()).toBe(1)
        await limits.settle({ ...open(call), actual: [5] })
        await limits.settle({ ...open(call), actual: [5] })
        expect(await remaining(month)).toEqual([95])
        expect(await drain(limits.usageLog)).toHaveLength(1)
      })

      it('of a settled call never runs out', async () => {
        const call = await admitted([{ limit: bucket({ capacity: 5 }), amount: 1 }], { leaseMs: 1 })
        await limits.settle({ ...open(call), actual: [1] })
        const other = await admitted([{ limit: bucket({ capacity: 5 }), amount: 1 }], { leaseMs: 1 })
        await expect.poll(() => limits.usageLog.sweep()).toBe(1)
        const ids = (await drain(limits.usageLog)).map((entry) => entry.event.id)
        expect(new Set(ids)).toEqual(new Set([call.ifAbandoned.id, other.ifAbandoned.id]))
      })
    })

    describe('usage log', () => {
      async function settleSome(count: number): Promise<string[]> {
        const events = Array.from({ length: count }, (_, index) => usageEvent({ organizationId: `org${index}` }))
        await Promise.all(
          events.map((event) =>
            limits.settle({ id: event.requestId, organizationId: event.organizationId, actual: [], event }),
          ),
        )
        return events.map((event) => event.id).sort()
      }

      it('delivers every settled event once to readers that share the work, and forgets what is acknowledged', async () => {
        const ids = await settleSome(40)
        expect(await limits.usageLog.backlog()).toBe(40)
        const [mine, theirs] = await Promise.all([drain(limits.usageLog, 40), drain(fixture.other.usageLog, 40)])
        expect([...mine, ...theirs].map((entry) => entry.event.id).sort()).toEqual(ids)
        expect(await limits.usageLog.backlog()).toBe(0)
        expect(await drain(limits.usageLog)).toEqual([])
      })

      it('never returns more than asked for', async () => {
        await settleSome(7)
        const signal = AbortSignal.timeout(20_000)
        const first = await limits.usageLog.read(3, 5_000, signal)
        expect(first.length).toBeGreaterThanOrEqual(1)
        expect(first.length).toBeLessThanOrEqual(3)
        await limits.usageLog.acknowledge(first)
        expect(await drain(limits.usageLog)).toHaveLength(7 - first.length)
      })

      it('delivers again what a reader that died did not acknowledge', async () => {
        const ids = await settleSome(5)
        const lost: string[] = []
        await expect
          .poll(async () => {
            const entries = await limits.usageLog.read(10, 100, AbortSignal.timeout(20_000))
            lost.push(...entries.map((entry) => entry.event.id))
            return new Set(lost).size
          })
          .toBe(5)
        const found = new Set<string>()
        await expect
          .poll(
            async () => {
              for (const entry of await drain(fixture.other.usageLog)) found.add(entry.event.id)
              return [...found].sort()
            },
            { timeout: 20_000 },
          )
          .toEqual(ids)
        await expect.poll(() => fixture.other.usageLog.backlog()).toBe(0)
      })

      it('wakes a waiting reader when an event comes, and lets it go when its signal aborts', async () => {
        const stop = new AbortController()
        onTestFinished(() => stop.abort())
        const waiting = limits.usageLog.read(10, 60_000, stop.signal)
        const [id] = await settleSome(1)
        const entries = await waiting
        expect(entries.map((entry) => entry.event.id)).toEqual([id])
        await limits.usageLog.acknowledge(entries)
        const idle = limits.usageLog.read(10, 60_000, stop.signal)
        stop.abort()
        expect(await idle).toEqual([])
      })
    })

    it('is healthy', async () => {
      expect(await limits.health()).toMatchObject({ ok: true })
    })

    it('answers random programs as the pure arithmetic does', async () => {
      await fc.assert(
        fc.asyncProperty(steps, (program) => runProgram(limits, program)),
        { numRuns: 40 },
      )
    })
  })
}
