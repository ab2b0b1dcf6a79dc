/** Thrown through a whole evaluation when it has used its budget: no operator of the language can catch it. */
export class CostExceeded extends Error {
  override readonly name = 'CostExceeded'
}

/**
 * Counts what an evaluation costs. One unit is about 100 ns: one call of a function on small values, one step of a macro.
 * An evaluation is never interrupted from outside, so everything that takes time in it must charge before it does.
 */
export class Meter {
  #budget = 0
  #left = 0

  /** Begins an evaluation that may use `budget` units. */
  start(budget: number): void {
    this.#budget = budget
    this.#left = budget
  }

  /** Takes units; throws {@link CostExceeded} when fewer are left. */
  charge(units: number): void {
    this.#left -= units
    if (this.#left < 0) throw new CostExceeded(`used its budget of ${this.#budget} cost units`)
  }

  /** Units taken since the start, at most the budget. */
  get used(): number {
    return this.#budget - Math.max(0, this.#left)
  }
}
