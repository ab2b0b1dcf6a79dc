import { type CallLimit, type LimitedCall, type LimitRules, limitsOfCall } from './call-limits.ts'
import { KnownCalls } from './known-calls.ts'
import { monthEndMs } from './limit-keys.ts'

/** As {@link limitsOfCall}. */
export type LimitsOfCall = (rules: LimitRules, call: LimitedCall) => readonly CallLimit[]

interface Known {
  readonly rules: LimitRules
  readonly consumer: LimitedCall['consumer']
  readonly keyTier: LimitedCall['keyTier']
  readonly monthEndMs: number
  readonly limits: readonly CallLimit[]
}

/**
 * The limits of calls, made once for all calls of a consumer with a key to a service, until the registry or the month changes.
 * Whoever needs a limit in another form (texts, keys) can remember that form by the limit itself, which is the same object in
 * every such call. Records and rules are immutable and made anew when the registry changes: that they are the same objects
 * says that nothing did.
 */
export function createKnownLimits(maxEntries = 10_000): LimitsOfCall {
  const entries = new KnownCalls<Known>(maxEntries)
  return (rules, call) => {
    const { consumer, serviceId, keyId, keyTier, atMs } = call
    const known = entries.get(consumer.id, serviceId, keyId)
    const ends = monthEndMs(atMs)
    if (
      known !== undefined &&
      known.rules === rules &&
      known.consumer === consumer &&
      known.keyTier === keyTier &&
      known.monthEndMs === ends
    ) {
      return known.limits
    }
    const limits = limitsOfCall(rules, call)
    entries.set(consumer.id, serviceId, keyId, { rules, consumer, keyTier, monthEndMs: ends, limits })
    return limits
  }
}
