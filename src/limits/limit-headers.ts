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
  const headers: [string, string][] = []
  tellHeaders(plainNames, standing, nowMs, (name, value) => headers.push([name, value]))
  return headers
}

/**
 * Tells where a caller stands after its admission, by the tightest of its limits: {@link limitHeaders} of the requests limit
 * with the smallest share left, and the same with the suffix "-tokens" of the tokens limit.
 */
export function tellTightest(
  costs: readonly LimitCost[],
  states: readonly LimitState[],
  nowMs: number,
  tell: TellHeader,
): void {
  for (const { unit, names } of families) {
    const standing = tightest(costs, states, unit)
    if (standing !== undefined) tellHeaders(names, standing, nowMs, tell)
  }
}

type TellHeader = (name: string, value: string) => void

function tellHeaders(
  { limit, left, reset }: HeaderNames,
  { capacity, remaining, resetAtMs }: LimitStanding,
  nowMs: number,
  tell: TellHeader,
): void {
  tell(limit, String(capacity))
  tell(left, String(Math.max(0, Math.floor(remaining))))
  tell(reset, String(Math.max(0, Math.ceil((resetAtMs - nowMs) / 1000))))
}

interface HeaderNames {
  readonly limit: string
  readonly left: string
  readonly reset: string
}

const plainNames: HeaderNames = {
  limit: 'x-ratelimit-limit',
  left: 'x-ratelimit-remaining',
  reset: 'x-ratelimit-reset',
}

const families: readonly { readonly unit: LimitUnit; readonly names: HeaderNames }[] = [
  { unit: 'requests', names: plainNames },
  {
    unit: 'tokens',
    names: {
      limit: 'x-ratelimit-limit-tokens',
      left: 'x-ratelimit-remaining-tokens',
      reset: 'x-ratelimit-reset-tokens',
    },
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
