import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { admit, maxDebtUnits, type Slot, settle, states } from './buckets.ts'
import { bucket, period } from './conformance-support.ts'
import type { BucketLimit, Limit, LimitCost } from './limits.ts'

const second = 1_000_000
const start = 1_795_000_000 * second

const anyBucket = fc
  .record({
    capacity: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 1e8 })),
    refillPerSecond: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 1e6 })),
  })
  .map(bucket)

/** Time passes, mostly forward, sometimes back. */
const ticks = fc.oneof(
  { weight: 6, arbitrary: fc.nat(3 * second) },
  { weight: 1, arbitrary: fc.integer({ min: -second, max: 0 }) },
)

function whole(slots: Map<string, Slot>): void {
  for (const slot of slots.values()) {
    expect(Number.isSafeInteger(slot.kind === 'bucket' ? slot.level : slot.used)).toBe(true)
  }
}

describe('a bucket', () => {
  it('admits at most its capacity and what was refilled, whatever the clock does', () => {
    fc.assert(
      fc.property(anyBucket, fc.array(fc.tuple(ticks, fc.nat(60)), { maxLength: 60 }), (limit, program) => {
        const slots = new Map<string, Slot>()
        let now = start
        // The bucket is full when it is first seen; the clock may have stepped back before that.
        const first = start + (program[0]?.[0] ?? 0)
        let latest = first
        let admitted = 0
        for (const [tick, amount] of program) {
          now += tick
          latest = Math.max(latest, now)
          if (admit(slots, [{ limit, amount }], now).kind === 'admitted') admitted += amount
          whole(slots)
          const refilledMicros = BigInt(latest - first) * BigInt(limit.refillPerSecond)
          expect(BigInt(admitted) * 1_000_000n <= BigInt(limit.capacity) * 1_000_000n + refilledMicros).toBe(true)
        }
      }),
    )
  })

  it('admits after the wait that a refusal names, and not two milliseconds before', () => {
    fc.assert(
      fc.property(anyBucket, fc.nat(), fc.nat(1e6), (limit, seed, debt) => {
        const slots = new Map<string, Slot>()
        settle(slots, [{ limit, amount: 0 }], [limit.capacity + debt], start)
        const cost = [{ limit, amount: 1 + (seed % limit.capacity) }]
        const refusal = admit(slots, cost, start)
        if (refusal.kind !== 'refused') throw new Error('an empty bucket admitted')
        const { retryAfterMs } = refusal
        expect(retryAfterMs).toBeGreaterThanOrEqual(1)
        if (retryAfterMs > 2) {
          expect(admit(new Map(slots), cost, start + (retryAfterMs - 2) * 1_000).kind).toBe('refused')
        }
        expect(admit(slots, cost, start + retryAfterMs * 1_000).kind).toBe('admitted')
      }),
    )
  })

  it('is whole at the moment that its state names', () => {
    fc.assert(
      fc.property(anyBucket, fc.nat(1e6), (limit, used) => {
        const slots = new Map<string, Slot>()
        settle(slots, [{ limit, amount: 0 }], [used], start)
        const [state] = states(slots, [limit], start)
        expect(states(slots, [limit], (state?.resetAtMs ?? 0) * 1_000)[0]?.remaining).toBe(limit.capacity)
      }),
    )
  })

  it('stays exact and bounded in the deepest debt', () => {
    const limit: BucketLimit = bucket({ capacity: 1e8, refillPerSecond: 1 })
    const slots = new Map<string, Slot>()
    for (let i = 0; i < 5; i++) settle(slots, [{ limit, amount: 0 }], [1e12], start)
    whole(slots)
    expect(states(slots, [limit], start)[0]?.remaining).toBe(-maxDebtUnits)
    const refusal = admit(slots, [{ limit, amount: 1e12 }], start)
    expect(Number.isSafeInteger(refusal.kind === 'refused' ? refusal.retryAfterMs : Number.NaN)).toBe(true)
  })
})

describe('several limits', () => {
  const limits: Limit[] = [
    bucket({ capacity: 20 }),
    period({ capacity: 60 }),
    bucket({ capacity: 30, refillPerSecond: 7 }),
  ]
  const costs = fc
    .tuple(fc.nat(25), fc.nat(25), fc.nat(25))
    .map((amounts): LimitCost[] => limits.map((limit, index) => ({ limit, amount: amounts[index] ?? 0 })))

  it('are all taken or none: a refusal changes nothing', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(second), costs), { maxLength: 40 }), (program) => {
        const slots = fresh(limits)
        let now = start
        for (const [tick, cost] of program) {
          now += tick
          const before = states(slots, limits, now).map((state) => state.remaining)
          const verdict = admit(slots, cost, now)
          const after = states(slots, limits, now).map((state) => state.remaining)
          const taken = verdict.kind === 'admitted' ? cost.map((entry) => entry.amount) : cost.map(() => 0)
          expect(after).toEqual(before.map((left, index) => left - (taken[index] ?? 0)))
          if (verdict.kind === 'admitted') expect(Math.min(...after)).toBeGreaterThanOrEqual(0)
        }
      }),
    )
  })

  it('end where the actual use alone would have led, after every reservation is settled', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(costs, fc.nat(25)), { maxLength: 20 }), (program) => {
        const slots = fresh(limits)
        let used = 0
        for (const [cost, actual] of program) {
          if (admit(slots, cost, start).kind !== 'admitted') continue
          settle(slots, cost, [actual, actual, actual], start)
          used += actual
        }
        expect(states(slots, limits, start).map((state) => state.remaining)).toEqual([20 - used, 60 - used, 30 - used])
      }),
    )
  })
})

describe('a period', () => {
  it('is unknown until it is seeded, and a settlement does not make it known', () => {
    const month = period({ capacity: 5 })
    const slots = new Map<string, Slot>()
    settle(slots, [{ limit: month, amount: 1 }], [3], start)
    expect(admit(slots, [{ limit: month, amount: 1 }], start)).toEqual({ kind: 'unseeded', indices: [0] })
  })

  it('refuses until it ends', () => {
    const month = period({ capacity: 5, endsAtMs: start / 1_000 + 90_000 })
    const verdict = admit(fresh([month]), [{ limit: month, amount: 6 }], start)
    expect(verdict).toMatchObject({ kind: 'refused', retryAfterMs: 90_000 })
  })
})

function fresh(limits: readonly Limit[]): Map<string, Slot> {
  return new Map(limits.flatMap((limit) => (limit.kind === 'period' ? [[limit.key, { kind: 'period', used: 0 }]] : [])))
}
