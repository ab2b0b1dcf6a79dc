/**
 * Puts the rate limit headers of the gate under OpenAI's names, in place: `x-ratelimit-limit-requests`, `-remaining-`,
 * `-reset-`, and the same of `-tokens`; resets as durations. `refusedUnit` is the unit of the limit that refused the
 * call, whose figures then stand in the headers without a suffix; of units that OpenAI has no name for, nothing is told.
 */
export function renameRateLimits(headers: Map<string, string>, refusedUnit = 'requests'): void {
  for (const figure of ['limit', 'remaining', 'reset']) {
    const name = `x-ratelimit-${figure}`
    const value = headers.get(name)
    headers.delete(name)
    if (value !== undefined && named.has(refusedUnit)) headers.set(`${name}-${refusedUnit}`, value)
  }
  for (const unit of named) {
    const name = `x-ratelimit-reset-${unit}`
    const seconds = headers.get(name)
    if (seconds !== undefined) headers.set(name, durationText(Number(seconds)))
  }
}

const named: ReadonlySet<string> = new Set(['requests', 'tokens'])

/** Whole seconds as Go prints a duration: "0s", "59s", "1m0s", "744h0m0s". */
export function durationText(seconds: number): string {
  const h = Math.floor(seconds / 3600)
  const m = Math.floor((seconds % 3600) / 60)
  const s = seconds % 60
  if (h > 0) return `${h}h${m}m${s}s`
  return m > 0 ? `${m}m${s}s` : `${s}s`
}
