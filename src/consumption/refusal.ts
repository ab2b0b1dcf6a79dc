import { TollgateError } from '../errors.ts'
import type { CallLimit } from '../limits/call-limits.ts'
import type { AdmissionResult } from '../limits/limits.ts'
import { unitName } from '../limits/unit-name.ts'
import type { Decision } from '../policy/decision.ts'
import { dependsOnOutput, fittingMaxTokens, type Reserving } from './fitting-output.ts'

type Refused = Extract<AdmissionResult, { outcome: 'refused' }>

/**
 * The refusal of a limit: QUOTA_EXCEEDED for a period, RATE_LIMITED for what becomes free sooner. Message, metadata,
 * QuotaFailure and RetryInfo carry the same figures, and say whence the limit comes. A call that needs more than the whole
 * limit is promised no retry; where a smaller answer would fit, now or at all, it is told how small.
 */
export function refusal(plan: Reserving, result: Refused): TollgateError {
  const cost = plan.costs[result.refusedBy]
  const state = result.limits[result.refusedBy]
  if (cost === undefined || state === undefined) {
    return new TollgateError('INTERNAL', 'The call was refused by a limit that it does not have.')
  }
  const { limit, amount } = cost
  const remaining = Math.max(0, Math.floor(state.remaining))
  const unit = unitName(limit)
  const serviceId = serviceOf(limit)
  const retryAfterMs = amount <= limit.capacity ? result.retryAfterMs : undefined
  const maxTokens = dependsOnOutput(limit.unit) ? smallerAnswer(plan, result, retryAfterMs !== undefined) : undefined
  const forService = limit.serviceId === '' ? '' : ` for service ${limit.serviceId}`
  const name = `${limit.name} of ${limit.subject}${forService} (origin: ${limit.origin})`
  const message =
    limit.capacity === 0
      ? `${name} is 0, which refuses every call: an administrator can change it (LimitService.SetLimit).`
      : `${name} has ${remaining} of ${limit.capacity} ${unit} left and the call needs ${amount}; ${remedy(limit, retryAfterMs, maxTokens)}.`
  return new TollgateError(limit.kind === 'period' ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED', message, {
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    metadata: {
      limit: limit.name,
      subject: limit.subject,
      ...(serviceId !== '' && { serviceId }),
      origin: limit.origin,
      capacity: String(limit.capacity),
      remaining: String(remaining),
      requested: String(amount),
      unit,
      ...(maxTokens !== undefined && { fittingMaxTokens: String(maxTokens) }),
      ...(retryAfterMs !== undefined && { retryAfterMs: String(retryAfterMs) }),
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

/** The service that a limit is of: of its own limits, or of those of somebody's calls to it. Empty for neither. */
function serviceOf({ subject, serviceId }: CallLimit): string {
  return subject.startsWith('service:') ? subject.slice('service:'.length) : serviceId
}

/** The max_tokens with which the call would fit what is left; else, if no wait helps it, the whole of its limits. */
function smallerAnswer(plan: Reserving, { limits }: Refused, isEverPossible: boolean): number | undefined {
  const now = fittingMaxTokens(
    plan,
    limits.map(({ remaining }) => remaining),
  )
  if (now !== undefined || isEverPossible) return now
  return fittingMaxTokens(
    plan,
    plan.costs.map(({ limit }) => limit.capacity),
  )
}

function remedy(limit: CallLimit, retryAfterMs: number | undefined, maxTokens: number | undefined): string {
  const smaller = `max_tokens of at most ${maxTokens} fit`
  if (retryAfterMs === undefined) {
    if (maxTokens === undefined) return 'no wait and no smaller max_tokens helps: an administrator can raise the limit'
    return `no wait helps, but ${smaller}, or an administrator can raise the limit`
  }
  const wait =
    limit.kind === 'period'
      ? `it is whole again at ${new Date(limit.endsAtMs).toISOString()}`
      : `retry in ${retryAfterMs} ms`
  return maxTokens === undefined ? wait : `${wait}, or ask for less: ${smaller} now`
}

/** POLICY_DENIED with the service, the id of the first policy that denies, and why. */
export function policyDenial(decision: Decision, serviceId: string): TollgateError {
  const first = decision.violations.find(({ outcome }) => outcome === 'denied')
  return new TollgateError('POLICY_DENIED', decision.reason, {
    metadata: { serviceId, ...(first !== undefined && { policyId: first.policyId, severity: first.severity }) },
  })
}
