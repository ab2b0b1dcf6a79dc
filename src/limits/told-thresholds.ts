import { nothingTold, type Told, toldOf } from './buckets.ts'
import type { Settled } from './limits.ts'

/** What was told of the thresholds of a period. */
export interface ToldPeriod extends Told {
  /** Of the period's limit. */
  readonly key: string
  /** Unix milliseconds. */
  readonly endsAtMs: number
}

/** Beyond this many the oldest are let go, and told once more if the counters are lost. About 200 bytes each. */
const maxPeriods = 100_000

/** What one process told of thresholds, which nothing else can say of counters that are lost. */
export class ToldThresholds {
  readonly #periods = new Map<string, ToldPeriod>()

  /** Returns what it knows of these periods then. */
  tell(crossed: Settled['crossed']): ToldPeriod[] {
    return crossed.map(({ limit: { key, endsAtMs, capacity }, threshold }) =>
      this.add({ key, endsAtMs, ...toldOf(threshold, capacity) }),
    )
  }

  add({ key, endsAtMs, ...told }: ToldPeriod): ToldPeriod {
    const { told80, told100 } = this.#periods.get(key) ?? nothingTold
    const period = {
      key,
      endsAtMs,
      told80: Math.max(told80, told.told80),
      told100: Math.max(told100, told.told100),
    }
    this.#periods.set(key, period)
    const [oldest = ''] = this.#periods.keys()
    if (this.#periods.size > maxPeriods) this.#periods.delete(oldest)
    return period
  }

  all(): ToldPeriod[] {
    return [...this.#periods.values()]
  }
}
