import { TollgateError } from '../errors.ts'
import type { PeriodLimit, PeriodSeed } from './limits.ts'

/**
 * Asks the ledger for unknown period counters, once at a time for each counter. A ledger that does not answer makes
 * LIMITS_UNAVAILABLE: a quota that nobody can vouch for admits nothing.
 */
export class Seeds {
  readonly #seed: PeriodSeed
  readonly #asked = new Map<string, Promise<number>>()

  constructor(seed: PeriodSeed) {
    this.#seed = seed
  }

  /** Units used in the period according to the ledger, a whole number of at least 0. */
  ask(organizationId: string, limit: PeriodLimit): Promise<number> {
    const name = `${organizationId} ${limit.key}`
    const asked = this.#asked.get(name)
    if (asked !== undefined) return asked
    const answer = this.#ask(limit).finally(() => this.#asked.delete(name))
    this.#asked.set(name, answer)
    return answer
  }

  async #ask(limit: PeriodLimit): Promise<number> {
    try {
      const used = await this.#seed(limit)
      if (!Number.isFinite(used)) throw new Error(`seed of ${limit.name} is not a number`)
      return Math.max(0, Math.ceil(used))
    } catch (cause) {
      throw new TollgateError('LIMITS_UNAVAILABLE', 'usage of the current period is not known yet', {
        metadata: { limit: limit.name },
        cause,
      })
    }
  }
}
