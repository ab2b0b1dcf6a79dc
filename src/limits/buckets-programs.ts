import fc from 'fast-check'
import { bucket, concurrency, period } from './conformance-support.ts'
import type { Limit, LimitCost } from './limits.ts'

/** Steps of random programs for the arithmetic of limits, in TypeScript and in Lua. */
export type BucketStep =
  /** A call comes. */
  | { readonly kind: 'admit'; readonly amounts: readonly number[] }
  /** One of the open calls ends; of a gateway that crashed, none ever does. */
  | { readonly kind: 'settle'; readonly call: number; readonly actual: readonly number[] }
  /** One of the open calls never began. */
  | { readonly kind: 'release'; readonly call: number }
  /** The lease of one of the open calls runs out. */
  | { readonly kind: 'abandon'; readonly call: number }
  /** Somebody doubts a period. */
  | { readonly kind: 'forget'; readonly period: number }
  /** The clock goes on, or jumps back. */
  | { readonly kind: 'tick'; readonly micros: number }

/** One second, in the microseconds of the arithmetic. */
export const second = 1_000_000

/** A clock that mostly goes forward, sometimes back, and sometimes far. */
export const ticks = fc.oneof(
  { weight: 6, arbitrary: fc.nat(3 * second) },
  { weight: 1, arbitrary: fc.integer({ min: -5 * second, max: 0 }) },
  { weight: 1, arbitrary: fc.integer({ min: -86_400 * second, max: 86_400 * second }) },
)

const amounts = fc.tuple(fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(2))
const call = fc.nat(5)

export const bucketPrograms: fc.Arbitrary<BucketStep[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('admit' as const), amounts }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('settle' as const), call, actual: amounts }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('release' as const), call }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('abandon' as const), call }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), period: fc.nat(1) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('tick' as const), micros: ticks }) },
  ),
  { minLength: 1, maxLength: 50 },
)

/** One limit of each kind and window, of its own; index 2 and 3 are periods. */
export function limitsOfEveryKind(): Limit[] {
  return [
    bucket({ capacity: 40, refill: 3 }),
    bucket({ capacity: 60, refill: 120, windowMs: 60_000, unit: 'tokens' }),
    period({ capacity: 150 }),
    period({ capacity: 120, unit: 'nanos' }),
    concurrency(5),
  ]
}

export function costsOf(limits: readonly Limit[], values: readonly number[]): LimitCost[] {
  return limits.map((limit, index) => ({ limit, amount: values[index] ?? 0 }))
}
