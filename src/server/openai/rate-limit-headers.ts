import type { AnswerHeaders } from '../answer-headers.ts'

/**
 * Puts the rate limit headers of the gate under OpenAI's names, in place: `x-ratelimit-limit-requests`, `-remaining-`,
 * `-reset-`, and the same of `-tokens`; resets as durations. `refusedUnit` is the unit of the limit that refused the
 * call, whose figures then stand in the headers without a suffix; of units that OpenAI has no name for, nothing is told.
 */
export function renameRateLimits(headers: AnswerHeaders, refusedUnit = 'requests'): void {
  const named = names.get(refusedUnit)
  for (let at = 0; at < unnamed.length; at++) {
    const name = unnamed[at] ?? ''
    const ours = named?.[at]
    if (ours === undefined) headers.delete(name)
    else headers.rename(name, ours)
  }
  for (const name of resets) {
    const seconds = headers.get(name)
    if (seconds !== undefined) headers.set(name, durationText(Number(seconds)))
  }
}

const unnamed: readonly string[] = ['x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset']

/** OpenAI's names of {@link unnamed}, by the unit of the limit. Written out: texts that are put together compare slowly. */
const names: ReadonlyMap<string, readonly string[]> = new Map([
  ['requests', ['x-ratelimit-limit-requests', 'x-ratelimit-remaining-requests', 'x-ratelimit-reset-requests']],
  ['tokens', ['x-ratelimit-limit-tokens', 'x-ratelimit-remaining-tokens', 'x-ratelimit-reset-tokens']],
])

const resets: readonly string[] = ['x-ratelimit-reset-requests', 'x-ratelimit-reset-tokens']

/** Whole seconds as Go prints a duration: "0s", "59s", "1m0s", "744h0m0s". */
export function durationText(seconds: number): string {
  const h = Math.floor(seconds / 3600)
  const m = Math.floor((seconds % 3600) / 60)
  const s = seconds % 60
  if (h > 0) return `${h}h${m}m${s}s`
  return m > 0 ? `${m}m${s}s` : `${s}s`
}
