import { Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import type { Tier as TierName } from '../registry/records.ts'

/** From the lowest to the highest. */
export const tiers = ['basic', 'premium', 'enterprise'] as const satisfies readonly TierName[]

/** The name of a tier; undefined when none is stated. */
export function tierOf(tier: Tier): TierName | undefined {
  return tiers.find((name) => values[name] === tier)
}

/** A tier in the contract. */
export function tierMessage(name: TierName): Tier {
  return values[name]
}

const values: Readonly<Record<TierName, Tier>> = {
  basic: Tier.BASIC,
  premium: Tier.PREMIUM,
  enterprise: Tier.ENTERPRISE,
}
