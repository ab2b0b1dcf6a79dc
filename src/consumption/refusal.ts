import { TollgateError } from '../errors.ts'
import type { AdmissionResult, LimitCost } from '../limits/limits.ts'
import { unitName } from '../limits/unit-name.ts'
import type { Decision } from '../policy/policy-engine.ts'

type Refused = Extract<AdmissionResult, { outcome: 'refused' }>

/**
 * The refusal of a limit: QUOTA_EXCEEDED for a period, RATE_LIMITED for what becomes free sooner. Message, metadata,
 * QuotaFailure and RetryInfo carry the same figures. A call that needs more than the whole limit is promised no retry.
 */
export function refusal(costs: readonly LimitCost[], result: Refused): TollgateError {
  const cost = costs[result.refusedBy]
  const state = result.limits[result.refusedBy]
  if (cost === undefined || state === undefined) {
    return new TollgateError('INTERNAL', 'The call was refused by a limit that it does not have.')
  }
  const { limit, amount } = cost
  const remaining = Math.max(0, Math.floor(state.remaining))
  const unit = unitName(limit)
  const isEverPossible = amount <= limit.capacity
  const left = `${limit.name} of ${limit.subject} has ${remaining} of ${limit.capacity} ${unit} left and the call needs ${amount}`
  const remedy = !isEverPossible
    ? 'no wait helps: ask for a shorter answer (max_tokens), or have the limit raised'
    : limit.kind === 'period'
      ? `it is whole again at ${new Date(limit.endsAtMs).toISOString()}`
      : `retry in ${result.retryAfterMs} ms`
  return new TollgateError(limit.kind === 'period' ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED', `${left}; ${remedy}.`, {
    ...(isEverPossible ? { retryAfterMs: result.retryAfterMs } : {}),
    metadata: {
      limit: limit.name,
      subject: limit.subject,
      capacity: String(limit.capacity),
      remaining: String(remaining),
      requested: String(amount),
      unit,
      ...(isEverPossible ? { retryAfterMs: String(result.retryAfterMs) } : {}),
      resetAt: new Date(state.resetAtMs).toISOString(),
    },
    limits: [
      {
        subject: limit.subject,
        limit: limit.name,
        capacity: limit.capacity,
        remaining,
        unit,
        resetAtMs: state.resetAtMs,
      },
    ],
  })
}

/** POLICY_DENIED with the first violation's id and every violation's text. */
export function policyDenial(decision: Decision): TollgateError {
  const [first] = decision.violations
  return new TollgateError('POLICY_DENIED', decision.reason, {
    metadata: first === undefined ? {} : { policyId: first.policyId, severity: first.severity },
  })
}
