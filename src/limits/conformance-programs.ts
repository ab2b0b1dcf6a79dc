import fc from 'fast-check'
import { expect } from 'vitest'
import { admit, type Slot, settle, states } from './buckets.ts'
import { admission, bucket, open, period } from './conformance-support.ts'
import type { Admission, LimitCost, Limits } from './limits.ts'

export type Step =
  | { readonly kind: 'admit'; readonly amounts: readonly number[] }
  /** Of the calls so far, also settled ones, counted from the newest. */
  | { readonly kind: 'settle'; readonly back: number; readonly actual: readonly number[] }
  | { readonly kind: 'read' }

const amounts = fc.array(fc.nat(25), { minLength: 3, maxLength: 3 })

export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('admit' as const), amounts }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('settle' as const), back: fc.nat(3), actual: amounts }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('read' as const) }) },
  ),
  { minLength: 1, maxLength: 30 },
)

/**
 * Runs a program on fresh limits and on the arithmetic beside it. The store's clock is its own, so the arithmetic runs
 * twice: with a clock that stands still and with one that is ahead; the store must answer between the two. Periods have
 * no clock: there the two agree, and the store must agree with both.
 */
export async function runProgram(limits: Limits, program: readonly Step[]): Promise<void> {
  const all = [bucket({ capacity: 40 }), period({ capacity: 90 }), bucket({ capacity: 60 })]
  const costsOf = (values: readonly number[]): LimitCost[] =>
    all.map((limit, index) => ({ limit, amount: values[index] ?? 0 }))
  const nothing = costsOf([])
  const slow = new Map<string, Slot>(all.map((limit) => [limit.key, emptySlot(limit.kind, limit.capacity)]))
  const fast = new Map(slow)
  const calls: Admission[] = []
  const settled = new Set<string>()
  const started = performance.now()
  // A little ahead, because the clocks of the store and of this process may tick apart.
  const ahead = () => Math.ceil((performance.now() - started) * 1_000) + 5_000

  const between = (found: readonly { remaining: number }[]) => {
    const least = states(slow, all, 0)
    const most = states(fast, all, ahead())
    found.forEach(({ remaining }, index) => {
      expect(remaining).toBeGreaterThanOrEqual(least[index]?.remaining ?? 0)
      expect(remaining).toBeLessThanOrEqual(most[index]?.remaining ?? 0)
    })
  }

  for (const step of program) {
    if (step.kind === 'admit') {
      const call = admission(costsOf(step.amounts))
      const result = await limits.admit(call)
      const probe = result.admitted ? admit(new Map(fast), call.costs, ahead()) : admit(new Map(slow), call.costs, 0)
      expect(probe.kind).toBe(result.admitted ? 'admitted' : 'refused')
      if (result.admitted) {
        calls.unshift(call)
        settle(slow, nothing, step.amounts, 0)
        settle(fast, nothing, step.amounts, ahead())
      } else {
        expect(result.retryAfterMs).toBeGreaterThanOrEqual(1)
      }
      between(result.limits)
    } else if (step.kind === 'settle') {
      const call = calls[step.back]
      if (call === undefined) continue
      await limits.settle({ ...open(call), actual: step.actual })
      if (settled.has(call.id)) continue
      settled.add(call.id)
      settle(slow, call.costs, step.actual, 0)
      settle(fast, call.costs, step.actual, ahead())
    }
    between(await limits.read('org', all))
  }
}

function emptySlot(kind: 'bucket' | 'period', capacity: number): Slot {
  return kind === 'bucket' ? { kind, level: capacity * 1_000_000, at: 0 } : { kind, used: 0 }
}
