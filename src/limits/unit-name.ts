import type { Limit } from './limits.ts'

/** What a limit counts, as people read it: "requests", "tokens", "nano-USD", "calls at once". */
export function unitName(limit: Limit): string {
  if (limit.unit === 'nanos') return `nano-${limit.kind === 'period' ? limit.currency : 'units'}`
  return limit.unit === 'calls' ? 'calls at once' : limit.unit
}
