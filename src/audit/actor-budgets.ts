/**
 * How many records of its own each actor may still leave: 1,000 at once, and two a second in the long run, which is what
 * denials that are all alike leave.
 */
export class ActorBudgets {
  readonly #now: () => number
  readonly #budgets = new Map<string, { left: number; asOfMs: number }>()

  /** `now` in milliseconds. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Takes one record from the actor's budget; false when nothing is left of it. */
  take(actor: string): boolean {
    const nowMs = this.#now()
    const budget = this.#budgets.get(actor) ?? this.#begin(actor, nowMs)
    if (budget === undefined) return false
    budget.left = Math.min(most, budget.left + ((nowMs - budget.asOfMs) / 1_000) * perSecond)
    budget.asOfMs = nowMs
    if (budget.left < 1) return false
    budget.left -= 1
    return true
  }

  /** Undefined when more actors are denied at the same time than can be told apart. */
  #begin(actor: string, nowMs: number): { left: number; asOfMs: number } | undefined {
    if (this.#budgets.size >= mostActors) this.#forgetFull(nowMs)
    if (this.#budgets.size >= mostActors) return undefined
    const budget = { left: most, asOfMs: nowMs }
    this.#budgets.set(actor, budget)
    return budget
  }

  #forgetFull(nowMs: number): void {
    for (const [actor, { left, asOfMs }] of this.#budgets) {
      if (left + ((nowMs - asOfMs) / 1_000) * perSecond >= most) this.#budgets.delete(actor)
    }
  }
}

const most = 1_000
const perSecond = 2
const mostActors = 20_000
