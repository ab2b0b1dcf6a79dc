import fc from 'fast-check'
import { expect, it } from 'vitest'
import { noTokens } from '../metering/usage-event.ts'
import {
  admit,
  declare,
  forget,
  nothingTold,
  partsOf,
  type Slot,
  seed,
  seedVersion,
  settle,
  states,
} from './buckets.ts'
import type { Scene } from './conformance-scene.ts'
import { admission, bucket, concurrency, period, settlement, usageEvent, uuid } from './conformance-support.ts'
import type { Admission, Limit, LimitCost, PeriodLimit } from './limits.ts'

type Step =
  | { readonly kind: 'admit'; readonly amounts: readonly number[] }
  /** Of the calls so far, also settled ones, counted from the newest. */
  | { readonly kind: 'settle'; readonly back: number; readonly actual: readonly number[] }
  /** So much more or less of each period. */
  | { readonly kind: 'correct'; readonly tokens: number; readonly nanos: number }
  /** The ledger takes what the usage log holds. */
  | { readonly kind: 'drain' }
  | { readonly kind: 'read' }

const amounts = fc.tuple(fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(2))
/** Of each period, so that no correction leads below 0. */
const usedBefore = 300

const change = fc.integer({ min: -10, max: 10 })

const programs: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('admit' as const), amounts }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('settle' as const), back: fc.nat(3), actual: amounts }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('correct' as const), tokens: change, nanos: change }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('drain' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('read' as const) }) },
  ),
  { minLength: 1, maxLength: 30 },
)

/**
 * Runs random programs on fresh limits of every kind and on the arithmetic beside them. The store's clock is its own, so
 * the arithmetic runs twice: with a clock that stands still and with one that is ahead; the store must answer between the
 * two. Periods and concurrency have no clock: there the two agree, and the store must agree with both.
 */
export function programConformance(scene: () => Scene): void {
  it('answers random programs as the pure arithmetic does', async () => {
    await fc.assert(
      fc.asyncProperty(programs, (program) => run(scene(), program)),
      { numRuns: 40 },
    )
  })
}

async function run(scene: Scene, program: readonly Step[]): Promise<void> {
  const { limits } = scene
  const scope = { kind: 'consumer', id: uuid(), serviceId: undefined } as const
  const tokens = period({ capacity: usedBefore + 90, scope })
  const money = period({ capacity: usedBefore + 80, scope, unit: 'nanos' })
  for (const { key } of [tokens, money]) scene.ledger.usedBefore.set(key, usedBefore)
  const all: Limit[] = [
    bucket({ capacity: 40 }),
    bucket({ capacity: 60, refill: 120, windowMs: 60_000 }),
    tokens,
    money,
    concurrency(4),
  ]
  const costsOf = (values: readonly number[]): LimitCost[] =>
    all.map((limit, index) => ({ limit, amount: values[index] ?? 0 }))
  const slow = new Map(all.map((limit) => [limit.key, unusedSlot(limit)]))
  const fast = new Map(slow)
  const calls: Admission[] = []
  const settled = new Set<string>()
  const started = performance.now()
  // A little ahead, because the clocks of the store and of this process may tick apart.
  const ahead = () => Math.ceil((performance.now() - started) * 1_000) + 5_000

  const between = (found: readonly { remaining: number }[]) => {
    const least = states(slow, all, 0)
    const most = states(fast, all, ahead())
    expect(found).toHaveLength(all.length)
    found.forEach(({ remaining }, index) => {
      expect(remaining).toBeGreaterThanOrEqual(least[index]?.remaining ?? 0)
      expect(remaining).toBeLessThanOrEqual(most[index]?.remaining ?? 0)
    })
  }

  for (const step of program) {
    if (step.kind === 'admit') {
      const call = admission(costsOf(step.amounts))
      const result = await limits.admit(call)
      const probe =
        result.outcome === 'admitted' ? admit(new Map(fast), call.costs, ahead()) : admit(new Map(slow), call.costs, 0)
      expect(result.outcome).toBe(probe.kind)
      if (result.outcome === 'admitted') {
        calls.unshift(call)
        takeAnyway(slow, call.costs, 0)
        takeAnyway(fast, call.costs, ahead())
        between(result.limits)
      } else if (result.outcome === 'refused') {
        expect(result.retryAfterMs).toBeGreaterThanOrEqual(1)
        between(result.limits)
      }
    } else if (step.kind === 'settle') {
      const call = calls[step.back]
      if (call === undefined) continue
      const { crossed } = await limits.settle(settlement(call, step.actual))
      if (settled.has(call.id)) {
        expect(crossed).toEqual([])
        continue
      }
      settled.add(call.id)
      settle(slow, call.costs, step.actual, 0)
      const expected = settle(fast, call.costs, step.actual, ahead())
      expect(crossed).toEqual(expected.map(({ index, ...facts }) => ({ limit: all[index], ...facts })))
    } else if (step.kind === 'correct') {
      const event = usageEvent({
        consumerId: scope.id,
        tokens: { ...noTokens, input: step.tokens },
        costNanos: step.nanos,
      })
      await limits.correct({ events: [event], counters: [tokens.key, money.key] })
      for (const slots of [slow, fast]) {
        follow(slots, tokens, step.tokens)
        follow(slots, money, step.nanos)
      }
    } else if (step.kind === 'drain') {
      for (let left = await limits.usageLog.backlog(); left > 0; left = await limits.usageLog.backlog()) {
        await scene.drain(left)
      }
    }
    between(await limits.read(all))
  }
}

/** A period that was doubted, and is read from the ledger again. */
function follow(slots: Map<string, Slot>, limit: PeriodLimit, change: number): void {
  const slot = slots.get(limit.key)
  const used = slot?.kind === 'period' ? slot.used + change : 0
  forget(slots, limit.key, 0)
  seed(slots, limit, used, seedVersion(slots, limit.key))
}

/** What the store admitted by its own clock. */
function takeAnyway(slots: Map<string, Slot>, costs: readonly LimitCost[], nowMicros: number): void {
  declare(slots, costs, nowMicros)
  const rates = costs.filter(({ limit }) => limit.kind === 'bucket')
  const nothing = rates.map(({ limit }) => ({ limit, amount: 0 }))
  settle(
    slots,
    nothing,
    rates.map((cost) => cost.amount),
    nowMicros,
  )
}

function unusedSlot(limit: Limit): Slot {
  if (limit.kind === 'bucket') return { kind: 'bucket', level: limit.capacity * partsOf(limit), at: 0 }
  if (limit.kind === 'concurrency') return { kind: 'concurrency', open: 0 }
  return { kind: 'period', used: usedBefore, held: 0, ...nothingTold }
}
