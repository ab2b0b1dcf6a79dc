import type { TollgateError } from '../errors.ts'
import type { Tier } from '../limits/call-limits.ts'
import type { QuotaExceeded, RateLimited } from './event.ts'

/** A call that the gate refused. */
interface Refusal {
  readonly requestId: string
  readonly organizationId: string
  readonly consumerId: string
  readonly keyId: string
  readonly serviceId: string
  readonly tier: Tier
  readonly error: TollgateError
}

const types = { RATE_LIMITED: 'rate_limited', QUOTA_EXCEEDED: 'quota_exceeded' } as const

/** The event of a call that a limit refused; undefined when something else did. */
export function refusalEvent(refusal: Refusal): RateLimited | QuotaExceeded | undefined {
  const { error, requestId, organizationId, consumerId, keyId, serviceId, tier } = refusal
  const [violation] = error.limits
  if (violation === undefined || (error.reason !== 'RATE_LIMITED' && error.reason !== 'QUOTA_EXCEEDED'))
    return undefined
  const { subject, limit, unit, capacity, remaining, resetAtMs } = violation
  return {
    type: types[error.reason],
    organizationId,
    consumerId,
    keyId,
    serviceId,
    requestId,
    subject,
    limit,
    unit,
    capacity,
    tier,
    remaining,
    resetAtMs,
    retryAfterMs: error.retryAfterMs,
  }
}
