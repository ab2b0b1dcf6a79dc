import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  abandon,
  admit,
  concurrencyRetryMs,
  declare,
  forget,
  maxDebtParts,
  nothingTold,
  partsOf,
  release,
  type Slot,
  seed,
  seedVersion,
  settle,
  states,
} from './buckets.ts'
import { bucketPrograms, costsOf, limitsOfEveryKind, second, ticks } from './buckets-programs.ts'
import { bucket, concurrency, period } from './conformance-support.ts'
import type { BucketLimit, Limit, LimitCost } from './limits.ts'

const start = 1_795_000_000 * second

const anyBucket: fc.Arbitrary<BucketLimit> = fc.oneof(
  fc
    .record({
      capacity: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 1e8 })),
      refill: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 1e6 })),
      windowMs: fc.constant(1_000 as const),
    })
    .map(bucket),
  fc
    .record({
      capacity: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 5e7 })),
      refill: fc.oneof(fc.integer({ min: 1, max: 1_000 }), fc.integer({ min: 1, max: 5e7 })),
      windowMs: fc.constant(60_000 as const),
    })
    .map(bucket),
)

function expectWhole(slots: Map<string, Slot>): void {
  for (const slot of slots.values()) {
    for (const value of Object.values(slot)) {
      if (typeof value === 'number') expect(Number.isSafeInteger(value)).toBe(true)
    }
  }
}

describe('a bucket', () => {
  it('admits at most its capacity and what was refilled, whatever the clock does', () => {
    fc.assert(
      fc.property(anyBucket, fc.array(fc.tuple(ticks, fc.nat(60)), { maxLength: 60 }), (limit, program) => {
        const slots = new Map<string, Slot>()
        let now = start
        // The bucket is full until something is taken from it, whatever the clock did before that.
        let first: number | undefined
        let latest = start
        let admitted = 0
        for (const [tick, amount] of program) {
          now += tick
          if (admit(slots, [{ limit, amount }], now).kind === 'admitted') admitted += amount
          latest = first === undefined ? now : Math.max(latest, now)
          if (slots.size > 0) first ??= now
          expectWhole(slots)
          const refilled = BigInt(latest - (first ?? latest)) * BigInt(limit.refill)
          const parts = BigInt(partsOf(limit))
          expect(BigInt(admitted) * parts <= BigInt(limit.capacity) * parts + refilled).toBe(true)
        }
      }),
      {
        examples: [
          [
            bucket({ capacity: 5, refill: 3, windowMs: 1_000 }),
            [
              [0, 6],
              [-1, 5],
              [1_666_667, 5],
            ],
          ],
        ],
      },
    )
  })

  it('admits after the wait that a refusal names, and not two milliseconds before', () => {
    fc.assert(
      fc.property(anyBucket, fc.nat(), fc.nat(1e6), (limit, seedOfAmount, debt) => {
        const slots = new Map<string, Slot>()
        settle(slots, [{ limit, amount: 0 }], [limit.capacity + debt], start)
        const cost = [{ limit, amount: 1 + (seedOfAmount % limit.capacity) }]
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

  it.each([bucket({ capacity: 1e8 }), bucket({ capacity: 5e7, windowMs: 60_000 })])(
    'stays exact and bounded in the deepest debt: $capacity in $windowMs ms',
    (limit) => {
      const slots = new Map<string, Slot>()
      for (let i = 0; i < 5; i++) settle(slots, [{ limit, amount: 0 }], [1e15], start)
      expectWhole(slots)
      expect(slots.get(limit.key)).toMatchObject({ level: -maxDebtParts })
      const refusal = admit(slots, [{ limit, amount: 1e15 }], start)
      expect(Number.isSafeInteger(refusal.kind === 'refused' ? refusal.retryAfterMs : Number.NaN)).toBe(true)
    },
  )
})

/** A call takes so much, an open call ends at so much, or the data is lost. */
type BucketUse = readonly [kind: 'admit' | 'settle' | 'lose', amount: number]

const bucketUses: fc.Arbitrary<BucketUse> = fc.tuple(
  fc.constantFrom('admit', 'admit', 'admit', 'settle', 'settle', 'lose'),
  fc.nat(60),
)

describe('a bucket whose calls settle at more or less than they took', () => {
  it('admits a call only within capacity and refill of each life of its data, what others used and hold included', () => {
    fc.assert(
      fc.property(anyBucket, fc.array(fc.tuple(ticks, bucketUses), { maxLength: 80 }), (limit, program) => {
        const slots = new Map<string, Slot>()
        const open: number[] = []
        let [used, now, latest] = [0, start, start]
        let first: number | undefined
        // In parts: what the lives of the data before this one let pass at most. Their debt is forgotten.
        let before = 0n
        const taken = () => {
          const held = open.reduce((sum, one) => sum + one, 0)
          return BigInt(used + held) * BigInt(partsOf(limit))
        }
        const passed = (): bigint => {
          const refilled = BigInt(latest - (first ?? latest)) * BigInt(limit.refill)
          return before + BigInt(limit.capacity * partsOf(limit)) + refilled
        }
        for (const [tick, [kind, amount]] of program) {
          now += tick
          latest = first === undefined ? now : Math.max(latest, now)
          if (kind === 'lose') {
            before = passed()
            if (taken() > before) before = taken()
            slots.clear()
            first = undefined
          } else if (kind === 'settle') {
            const reserved = open.shift()
            if (reserved === undefined) continue
            settle(slots, [{ limit, amount: reserved }], [amount], now)
            first ??= now
            used += amount
          } else if (admit(slots, [{ limit, amount }], now).kind === 'admitted') {
            open.push(amount)
            first ??= now
            expect(taken() <= passed()).toBe(true)
          }
          expectWhole(slots)
        }
      }),
      { numRuns: 500 },
    )
  })
})

describe('several limits', () => {
  const limits = limitsOfEveryKind()
  const costs = fc
    .tuple(fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(3))
    .map((amounts) => costsOf(limits, amounts))

  it('are all taken or none: a refusal changes nothing', () => {
    fc.assert(
      fc.property(fc.array(costs, { maxLength: 40 }), (program) => {
        const slots = known(limits)
        for (const cost of program) {
          const before = states(slots, limits, start).map((state) => state.remaining)
          const verdict = admit(slots, cost, start)
          const after = states(slots, limits, start).map((state) => state.remaining)
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
        const slots = known(limits)
        const open: [LimitCost[], number][] = []
        let used = 0
        for (const [cost, actual] of program) {
          if (admit(slots, cost, start).kind === 'admitted') open.push([cost, actual])
        }
        for (const [cost, actual] of open) {
          settle(slots, cost, [actual, actual, actual, actual, actual], start)
          used += actual
        }
        const left = states(slots, limits, start).map((state) => state.remaining)
        expect(left).toEqual([40 - used, 60 - used, 150 - used, 120 - used, 5])
      }),
    )
  })
})

describe('at any interleaving of calls, abandoned and lost ones among them, and whatever the clock does,', () => {
  it('a period knows what was settled and what is held, and is passed only by what open calls used beyond it', () => {
    fc.assert(
      fc.property(bucketPrograms, (program) => {
        const limits = limitsOfEveryKind()
        const slots = known(limits)
        const open: LimitCost[][] = []
        /** By period: settled units, and those beyond the reservation by calls that were open at the last admission. */
        const used = [0, 0]
        const beyond = [0, 0]
        let now = start
        for (const step of program) {
          if (step.kind === 'tick') now += step.micros
          else if (step.kind === 'admit') {
            const cost = costsOf(limits, step.amounts)
            if (admit(slots, cost, now).kind === 'admitted') {
              open.push(cost)
              beyond.fill(0)
            }
          } else if (step.kind === 'forget') {
            const month = limits[2 + step.period]
            if (month?.kind !== 'period') continue
            forget(slots, month.key, now)
            expect(admit(slots, [{ limit: month, amount: 0 }], now)).toEqual({ kind: 'unseeded', indices: [0] })
            seed(slots, month, used[step.period] ?? 0, seedVersion(slots, month.key))
          } else {
            const [cost] = open.splice(step.call, 1)
            if (cost === undefined) continue
            const reserved = cost.map((entry) => entry.amount)
            const actual = step.kind === 'settle' ? step.actual : step.kind === 'abandon' ? reserved : cost.map(() => 0)
            if (step.kind === 'settle') settle(slots, cost, actual, now)
            else if (step.kind === 'abandon') abandon(slots, cost, now)
            else release(slots, cost, now)
            for (const index of [0, 1]) {
              const [units = 0, most = 0] = [actual[2 + index], reserved[2 + index]]
              used[index] = (used[index] ?? 0) + units
              beyond[index] = (beyond[index] ?? 0) + Math.max(0, units - most)
            }
          }
          expectWhole(slots)
          for (const index of [0, 1]) {
            const limit = limits[2 + index]
            const held = open.reduce((sum, cost) => sum + (cost[2 + index]?.amount ?? 0), 0)
            expect(slots.get(limit?.key ?? '')).toMatchObject({ kind: 'period', used: used[index], held })
            expect(used[index]).toBeLessThanOrEqual((limit?.capacity ?? 0) + (beyond[index] ?? 0))
          }
          const calls = open.reduce((sum, cost) => sum + (cost[4]?.amount ?? 0), 0)
          expect(slots.get(limits[4]?.key ?? '') ?? { open: 0 }).toMatchObject({ open: calls })
          expect(calls).toBeLessThanOrEqual(5)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('a seed is taken only when nothing happened to its period since it was asked', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('settle', 'forget', 'ask', 'give'), { maxLength: 30 }), (program) => {
        const limit = period({ capacity: 100 })
        const slots = new Map<string, Slot>()
        forget(slots, limit.key, start)
        let used = 0
        let asked = { used: 0, version: -1 }
        for (const [index, step] of program.entries()) {
          const now = start + 1 + index
          if (step === 'settle') {
            settle(slots, [{ limit, amount: 0 }], [1], now)
            used += 1
          } else if (step === 'forget') forget(slots, limit.key, now)
          else if (step === 'ask') asked = { used, version: seedVersion(slots, limit.key) }
          else seed(slots, limit, asked.used, asked.version)
          const slot = slots.get(limit.key)
          if (slot?.kind === 'period') expect(slot.used).toBe(used)
        }
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
    const verdict = admit(known([month]), [{ limit: month, amount: 6 }], start)
    expect(verdict).toMatchObject({ kind: 'refused', retryAfterMs: 90_000 })
  })

  it('is told of by the next settlement when nobody heard of the threshold that was passed', () => {
    const month = period({ capacity: 10 })
    const cost = [{ limit: month, amount: 9 }]
    const silent = [abandon, (slots: Map<string, Slot>) => seed(slots, month, 9, seedVersion(slots, month.key))]
    for (const pass of silent) {
      const slots = pass === abandon ? known([month]) : new Map<string, Slot>()
      pass(slots, cost, start)
      release(slots, [{ limit: month, amount: 0 }], start)
      expect(tellOf(slots, month)).toEqual([{ index: 0, used: 9, threshold: 80 }])
      expect(tellOf(slots, month)).toEqual([])
    }
  })

  it('has each threshold of a capacity told once, whatever becomes of its use and of its capacity', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(20), fc.integer({ min: 8, max: 12 })), { maxLength: 30 }), (program) => {
        const month = period({ capacity: 10 })
        const slots = new Map<string, Slot>()
        const told = new Set<string>()
        for (const [used, capacity] of program) {
          forget(slots, month.key, start)
          expect(tellOf(slots, { ...month, capacity })).toEqual([])
          seed(slots, month, used, seedVersion(slots, month.key))
          const [crossing] = tellOf(slots, { ...month, capacity })
          const passed = [80, 100].filter((percent) => used * 100 >= capacity * percent)
          if (crossing === undefined) {
            // What was told of a larger capacity holds for a smaller one.
            const isTold = (percent: number) =>
              [8, 9, 10, 11, 12].some((of) => of >= capacity && told.has(`${percent}/${of}`))
            expect(passed.length === 0 || isTold(passed.at(-1) ?? 0)).toBe(true)
          } else {
            expect(crossing).toEqual({ index: 0, used, threshold: passed.at(-1) })
            expect(told).not.toContain(`${crossing.threshold}/${capacity}`)
            for (const percent of passed) told.add(`${percent}/${capacity}`)
          }
        }
      }),
    )
  })

  it('stays exact at the largest amounts', () => {
    const month = period({ capacity: 8e15, unit: 'nanos' })
    const slots = known([month])
    for (let call = 0; call < 7; call++) admit(slots, [{ limit: month, amount: 1e15 }], start)
    expectWhole(slots)
    expect(states(slots, [month], start)).toMatchObject([{ remaining: 1e15 }])
  })
})

describe('after a loss of data', () => {
  it('what open calls hold is held again, beyond any limit, and buckets start full', () => {
    const limits: Limit[] = [bucket({ capacity: 5 }), period({ capacity: 5 }), concurrency(1)]
    const slots = new Map<string, Slot>()
    declare(slots, costsOf(limits, [5, 4, 1]), start)
    declare(slots, costsOf(limits, [5, 4, 1]), start)
    for (const limit of limits) if (limit.kind === 'period') seed(slots, limit, 0, 0)
    expect(states(slots, limits, start).map((state) => state.remaining)).toEqual([5, -3, -1])
    const refusal = admit(slots, [{ limit: limits[2] ?? concurrency(1), amount: 0 }], start)
    expect(refusal).toMatchObject({ kind: 'refused', retryAfterMs: concurrencyRetryMs })
  })
})

/** What a settlement of nothing tells. */
function tellOf(slots: Map<string, Slot>, limit: Limit): ReturnType<typeof settle> {
  return settle(slots, [{ limit, amount: 0 }], [0], start)
}

function known(limits: readonly Limit[]): Map<string, Slot> {
  const none: Slot = { kind: 'period', used: 0, held: 0, ...nothingTold }
  return new Map(limits.flatMap((limit) => (limit.kind === 'period' ? [[limit.key, none]] : [])))
}
