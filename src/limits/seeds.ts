import { TollgateError } from '../errors.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { PeriodLimit, PeriodSeed } from './limits.ts'

/**
 * Units used in a period, a whole number of at least 0. A ledger that does not answer makes LIMITS_UNAVAILABLE: a quota
 * that nobody can vouch for admits nothing.
 */
export async function askSeed(seed: PeriodSeed, limit: PeriodLimit, waiting: readonly UsageEvent[]): Promise<number> {
  try {
    const used = await seed(limit, waiting)
    if (!Number.isFinite(used)) throw new Error(`seed of ${limit.name} is not a number`)
    return Math.max(0, Math.ceil(used))
  } catch (cause) {
    throw new TollgateError('LIMITS_UNAVAILABLE', 'usage of the current period is not known yet', {
      metadata: { limit: limit.name },
      cause,
    })
  }
}
