/**
 * Chooses where the next attempt of a call goes. Pure: what is known of the endpoints, and the randomness, are given.
 *
 * Endpoints fall into groups, best first: nothing speaks against them; this call tried them before; they asked for a rest;
 * they failed just now; their health check found them sick; their breaker is open. Only the best group counts, so an
 * endpoint is always found: ejection never takes the last one. In the group the lowest priority number counts, and among
 * equals the service's way of routing.
 *
 * - **weighted**: at random, in proportion to the weights. Smooth weighted round robin spreads more evenly over a few
 *   calls, but it is a state: all replicas would start at the same endpoint and go on in step, and whatever leaves an
 *   endpoint out for a while bends the shares of the others. A draw keeps the shares among any that are left.
 * - **least latency**: two are drawn by weight, and the one with less latency and fewer calls in flight is taken. Comparing
 *   two (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing") is nearly as good as comparing all, and
 *   does not send every call of every replica to the one that was fastest a moment ago.
 */
import { draw } from '../draw.ts'
import type { EndpointRecord, Routing } from '../registry/records.ts'

/** What is known of an endpoint at this moment. */
export interface EndpointView {
  /** Its health checks say that it should get no calls. */
  readonly isSick: boolean
  /** Its breaker lets no call pass. */
  readonly isOpen: boolean
  /** It asked not to be called for a while. */
  readonly isResting: boolean
  /** Smoothed milliseconds to the begin of an answer; undefined before the first one. */
  readonly latencyMs: number | undefined
  /** Attempts under way. */
  readonly inFlight: number
}

export interface Choice {
  readonly routing: Routing
  /** At least one. */
  readonly endpoints: readonly EndpointRecord[]
  readonly view: (endpointId: string) => EndpointView
  /** Ids of the endpoints that this call tried, in order. */
  readonly tried: readonly string[]
  /** Evenly from 0 (inclusive) to 1. */
  readonly random: () => number
}

/** The endpoint of the next attempt; undefined only for an empty list. */
export function chooseEndpoint(choice: Choice): EndpointRecord | undefined {
  const candidates = bestOf(choice)
  if (candidates.length <= 1) return candidates[0]
  const first = draw(candidates, choice.random)
  if (choice.routing === 'weighted' || first === undefined) return first
  const second = draw(
    candidates.filter((candidate) => candidate !== first),
    choice.random,
  )
  if (second === undefined) return first
  return cost(choice.view(second.id)) < cost(choice.view(first.id)) ? second : first
}

/** Groups are numbered by what speaks against an endpoint; the number of the worst reason outweighs all others. */
const against = { open: 16, sick: 8, justFailed: 4, resting: 2, tried: 1 } as const

/** The endpoints of the best group and, of these, of the best priority. */
function bestOf({ endpoints, view, tried }: Choice): readonly EndpointRecord[] {
  // By far the most services have one.
  if (endpoints.length === 1) return endpoints
  const last = tried.at(-1)
  let best: EndpointRecord[] = []
  let bestRank = Number.POSITIVE_INFINITY
  for (const endpoint of endpoints) {
    const { isOpen, isSick, isResting } = view(endpoint.id)
    const group =
      (isOpen ? against.open : 0) +
      (isSick ? against.sick : 0) +
      (endpoint.id === last ? against.justFailed : 0) +
      (isResting ? against.resting : 0) +
      (tried.includes(endpoint.id) ? against.tried : 0)
    const rank = group * priorities + endpoint.priority
    if (rank < bestRank) {
      best = []
      bestRank = rank
    }
    if (rank === bestRank) best.push(endpoint)
  }
  return best
}

/** More than the contract's highest priority. */
const priorities = 1_000

/**
 * What one more call would wait for, as Finagle's peak EWMA has it: the latency once for each call in flight and the new
 * one. An endpoint that was never measured is free until a call is under way there, and then dearer than any other, so that
 * one call finds out how fast it is.
 */
function cost({ latencyMs, inFlight }: EndpointView): number {
  if (latencyMs === undefined) return inFlight === 0 ? 0 : Number.MAX_SAFE_INTEGER
  return latencyMs * (inFlight + 1)
}
