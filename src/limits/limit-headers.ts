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
