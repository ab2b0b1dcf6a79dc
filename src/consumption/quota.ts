import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { type LimitStatusSchema, LimitUnit as LimitUnitNumber } from '../../gen/marketplace/v1/consumption_pb.ts'
import type { Limit, LimitState, LimitUnit } from '../limits/limits.ts'

/** A limit and how it stands, for callers. */
export function limitStatusMessage(limit: Limit, state: LimitState): MessageInitShape<typeof LimitStatusSchema> {
  const remaining = Math.max(0, state.remaining)
  return {
    limit: limit.name,
    subject: limit.subject,
    serviceId: limit.serviceId,
    unit: units[limit.unit],
    currency: limit.kind === 'period' ? limit.currency : '',
    used: BigInt(limit.capacity - state.remaining),
    total: BigInt(limit.capacity),
    remaining: BigInt(remaining),
    resetAt: timestampFromMs(state.resetAtMs),
    exceeded: remaining === 0,
  }
}

const units: Readonly<Record<LimitUnit, LimitUnitNumber>> = {
  requests: LimitUnitNumber.REQUESTS,
  tokens: LimitUnitNumber.TOKENS,
  nanos: LimitUnitNumber.NANOS,
  calls: LimitUnitNumber.CALLS,
}
