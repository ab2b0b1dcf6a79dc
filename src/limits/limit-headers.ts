import type { LimitCost, LimitState, LimitUnit } from './limits.ts'

/** What a caller's libraries look for: where it stands with the limit that binds it. */
export interface LimitStanding {
  /** In the limit's unit. */
  readonly capacity: number
  readonly remaining: number
  /** Unix milliseconds at which the limit is whole again. */
  readonly resetAtMs: number
}

/**
 * `x-ratelimit-limit`, `x-ratelimit-remaining` (whole, never below 0) and `x-ratelimit-reset` (whole seconds from now, as
 * in reference 002), alike on answers and on refusals.
 */
export function limitHeaders(standing: LimitStanding, nowMs: number): [string, string][] {
  return standingHeaders(plainNames, standing, nowMs)
}

/**
 * Where a caller stands after its admission, by the tightest of its limits: {@link limitHeaders} of the requests limit
 * with the smallest share left, and the same with the suffix "-tokens" of the tokens limit.
 */
export function tightestHeaders(
  costs: readonly LimitCost[],
  states: readonly LimitState[],
  nowMs: number,
): [string, string][] {
  const headers: [string, string][] = []
  for (const { unit, names } of families) {
    const standing = tightest(costs, states, unit)
    if (standing !== undefined) headers.push(...standingHeaders(names, standing, nowMs))
  }
  return headers
}

function standingHeaders(
  [limit, left, reset]: HeaderNames,
  { capacity, remaining, resetAtMs }: LimitStanding,
  nowMs: number,
): [string, string][] {
  return [
    [limit, String(capacity)],
    [left, String(Math.max(0, Math.floor(remaining)))],
    [reset, String(Math.max(0, Math.ceil((resetAtMs - nowMs) / 1000)))],
  ]
}

type HeaderNames = readonly [limit: string, remaining: string, reset: string]

const plainNames: HeaderNames = ['x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset']

const families: readonly { readonly unit: LimitUnit; readonly names: HeaderNames }[] = [
  { unit: 'requests', names: plainNames },
  {
    unit: 'tokens',
    names: ['x-ratelimit-limit-tokens', 'x-ratelimit-remaining-tokens', 'x-ratelimit-reset-tokens'],
  },
]

function tightest(
  costs: readonly LimitCost[],
  states: readonly LimitState[],
  unit: LimitUnit,
): LimitStanding | undefined {
  let least: LimitStanding | undefined
  for (let index = 0; index < costs.length; index++) {
    const limit = costs[index]?.limit
    const state = states[index]
    if (limit?.unit !== unit || state === undefined) continue
    const { capacity } = limit
    if (least !== undefined && share(state.remaining, capacity) >= share(least.remaining, least.capacity)) continue
    least = { capacity, remaining: state.remaining, resetAtMs: state.resetAtMs }
  }
  return least
}

function share(remaining: number, capacity: number): number {
  return remaining / Math.max(1, capacity)
}
