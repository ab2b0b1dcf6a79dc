/** What the checks of an endpoint say. Pure: each result makes the next state. */
import type { HealthCheck } from '../registry/health-check.ts'

export interface EndpointHealth {
  readonly isSick: boolean
  /** Unix milliseconds since when. */
  readonly sinceMs: number
  readonly checkedAtMs: number
  /** What was wrong at the last check; undefined when nothing was. */
  readonly failure: string | undefined
  /** Results in a row that say the contrary. */
  readonly against: number
}

/**
 * The health after one more check. An endpoint counts as well until enough checks in a row were bad, and then as sick until
 * enough in a row were good.
 *
 * @param known undefined before the first check.
 */
export function afterCheck(
  known: EndpointHealth | undefined,
  failure: string | undefined,
  { healthyThreshold, unhealthyThreshold }: Pick<HealthCheck, 'healthyThreshold' | 'unhealthyThreshold'>,
  nowMs: number,
): EndpointHealth {
  const { isSick, sinceMs, against } = known ?? { isSick: false, sinceMs: nowMs, against: 0 }
  const told = { checkedAtMs: nowMs, failure }
  if (isSick === (failure !== undefined)) return { isSick, sinceMs, against: 0, ...told }
  const needed = isSick ? healthyThreshold : unhealthyThreshold
  if (against + 1 < needed) return { isSick, sinceMs, against: against + 1, ...told }
  return { isSick: !isSick, sinceMs: nowMs, against: 0, ...told }
}
