/**
 * Traffic splits: which version of a name gets a call. Pure: the split, what is known of the versions, and the randomness are
 * given.
 *
 * A **sticky** split keeps a consumer at one version by weighted rendezvous hashing (each version gets a score of the consumer
 * and the version, and the highest wins): replicas agree without telling each other, the shares follow the weights, and when a
 * version leaves or changes its weight, no consumer moves between the others, as it would with ranges of one hash.
 */
import { hash } from 'node:crypto'
import { draw } from '../draw.ts'
import { type ServiceRecord, takesCalls } from './records.ts'

export interface TrafficSplitRecord {
  readonly name: string
  /** At least one; versions differ. */
  readonly shares: readonly Share[]
  readonly sticky: boolean
  /** Moves with every change. */
  readonly revision: number
}

export interface Share {
  readonly version: string
  /** At least 1. */
  readonly weight: number
}

/**
 * The version that gets a call; undefined when none of the split takes calls.
 *
 * @param versionOf the service of a version of the name.
 * @param random evenly from 0 (inclusive) to 1; not asked by a sticky split.
 */
export function chooseShare(
  split: TrafficSplitRecord,
  versionOf: (version: string) => ServiceRecord | undefined,
  consumerId: string,
  random: () => number,
): ServiceRecord | undefined {
  const candidates = split.shares.flatMap(({ version, weight }) => {
    const service = versionOf(version)
    return service !== undefined && takesCalls(service.status) ? [{ service, weight }] : []
  })
  return split.sticky ? highest(candidates, split.name, consumerId) : draw(candidates, random)?.service
}

interface Candidate {
  readonly service: ServiceRecord
  readonly weight: number
}

function highest(candidates: readonly Candidate[], name: string, consumerId: string): ServiceRecord | undefined {
  let best: ServiceRecord | undefined
  let bestScore = Number.NEGATIVE_INFINITY
  for (const { service, weight } of candidates) {
    // -weight / ln(u), for a u that is even in 0 to 1, is highest in proportion to the weights.
    const score = -weight / Math.log(unit(`${name}\n${service.version}\n${consumerId}`))
    if (score > bestScore) {
      best = service
      bestScore = score
    }
  }
  return best
}

/** A number between 0 and 1, both exclusive, that depends on the text alone. */
function unit(text: string): number {
  const bits = Number.parseInt(hash('sha256', text, 'hex').slice(0, 12), 16)
  return (bits + 0.5) / 2 ** 48
}
