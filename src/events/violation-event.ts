import type { PolicyViolated } from './event.ts'

/** A violation of a policy, as whoever records it tells it. */
interface Violation {
  readonly organizationId: string
  readonly consumerId: string
  readonly keyId: string
  readonly serviceId: string
  readonly requestId: string
  readonly policyId: string
  readonly policyName: string
  readonly policyVersion: number
  readonly severity: string
  readonly outcome: string
}

/** The event of a violation. Its text stays behind: others than the gate write texts of violations. */
export function violationEvent(violation: Violation): PolicyViolated {
  const { organizationId, consumerId, keyId, serviceId, requestId } = violation
  const { policyId, policyName, policyVersion, severity, outcome } = violation
  return {
    type: 'policy_violation',
    organizationId,
    consumerId,
    keyId,
    serviceId,
    requestId,
    subject: `policy:${policyId}`,
    policyId,
    policyName,
    policyVersion,
    severity,
    outcome,
  }
}
