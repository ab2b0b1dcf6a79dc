import type { LimitCost, LimitState } from './limits.ts'

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
export function limitHeaders({ capacity, remaining, resetAtMs }: LimitStanding, nowMs: number): [string, string][] {
  return [
    ['x-ratelimit-limit', String(capacity)],
    ['x-ratelimit-remaining', String(Math.max(0, Math.floor(remaining)))],
    ['x-ratelimit-reset', String(Math.max(0, Math.ceil((resetAtMs - nowMs) / 1000)))],
  ]
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
  for (const [unit, suffix] of families) {
    const standing = tightest(costs, states, unit)
    if (standing === undefined) continue
    for (const [name, value] of limitHeaders(standing, nowMs)) headers.push([`${name}${suffix}`, value])
  }
  return headers
}

const families = [
  ['requests', ''],
  ['tokens', '-tokens'],
] as const

function tightest(costs: readonly LimitCost[], states: readonly LimitState[], unit: string): LimitStanding | undefined {
  let least: LimitStanding | undefined
  costs.forEach(({ limit }, index) => {
    const state = states[index]
    if (limit.unit !== unit || state === undefined) return
    const standing = { ...state, capacity: limit.capacity }
    if (least === undefined || share(standing) < share(least)) least = standing
  })
  return least
}

function share({ remaining, capacity }: LimitStanding): number {
  return remaining / Math.max(1, capacity)
}
