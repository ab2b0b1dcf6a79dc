import type { LimitUnit } from '../limits/limits.ts'
import type { TokenParts } from '../metering/usage-event.ts'
import { type Plan, reservedUnits } from './plan.ts'

/** What of a plan says how much it reserves. */
export type Reserving = Pick<Plan, 'costs' | 'price' | 'reserved'> & {
  readonly asked: Pick<Plan['asked'], 'choices'>
}

/**
 * The largest max_tokens with which the call would fit the rooms, given in the order of its costs; undefined when none
 * does, its prompt alone being too much. A room may be what is left of a limit, or the whole of it.
 */
export function fittingMaxTokens(plan: Reserving, rooms: readonly number[]): number | undefined {
  const { costs, price } = plan
  const { choices } = plan.asked
  const fits = (maxTokens: number): boolean => {
    const reserved: TokenParts = { ...plan.reserved, output: maxTokens * choices }
    return costs.every(({ limit }, index) => {
      return !dependsOnOutput(limit.unit) || reservedUnits(limit.unit, price, reserved) <= (rooms[index] ?? 0)
    })
  }
  if (!fits(1)) return undefined
  // What a call reserves grows with its output, so halving finds the last one that fits.
  let fitting = 1
  let tooMany = Math.floor(plan.reserved.output / choices) + 1
  while (tooMany - fitting > 1) {
    const middle = Math.floor((fitting + tooMany) / 2)
    if (fits(middle)) fitting = middle
    else tooMany = middle
  }
  return fitting
}

/** Whether a smaller answer takes less of such a limit. */
export function dependsOnOutput(unit: LimitUnit): boolean {
  return unit === 'tokens' || unit === 'nanos'
}
