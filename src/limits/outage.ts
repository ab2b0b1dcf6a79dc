import type { Admission, Limit, Settlement } from './limits.ts'
import { type PeriodBase, periodShare, shareOf } from './share.ts'

/** One time in which the shared store is away, from the first failure until admissions go there again. */
export class Outage {
  readonly startedAtMs: number
  /** Replicas that share the limits, while it lasts. */
  readonly replicas: number
  /** True from the first answer of the shared store until admissions go there again. */
  isEnding = false
  admitted = 0
  /** Events that went to the ledger past the shared store. */
  booked = 0
  /** What calls hold of each limit that the shared store admitted, or used of it since. */
  readonly #open = new Map<string, number>()

  constructor(startedAtMs: number, replicas: number, open: Iterable<Admission>) {
    this.startedAtMs = startedAtMs
    this.replicas = replicas
    for (const admission of open) this.opened(admission)
  }

  /** The shared store admitted this call of ours. */
  opened({ costs }: Admission): void {
    for (const { limit, amount } of costs) this.#move(limit, amount)
  }

  /** A call is over that the shared store admitted; its usage stays outside the ledger, so it stays out of our share. */
  settled({ admission, actual }: Settlement): void {
    admission.costs.forEach(({ limit, amount }, index) => {
      this.#move(limit, (limit.kind === 'concurrency' ? 0 : (actual[index] ?? amount)) - amount)
    })
  }

  /** This replica's share of a limit; `base` of a period, which is known when it is needed. */
  share(limit: Limit, base: PeriodBase): Limit {
    const open = this.#open.get(limit.key) ?? 0
    return limit.kind === 'period' ? periodShare(limit, this.replicas, base, open) : shareOf(limit, this.replicas, open)
  }

  #move(limit: Limit, units: number): void {
    if (limit.kind !== 'bucket') this.#open.set(limit.key, (this.#open.get(limit.key) ?? 0) + units)
  }
}
