import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'

/**
 * Decides whether a consumer may use a service. The gate asks it on every call, the RPCs of marketplace.v1.PolicyEngine
 * ask the same one. An engine that answers from memory answers at once, without a promise.
 */
export interface PolicyEngine {
  /** Whether the consumer may use the service at all. */
  checkAccess(request: AccessRequest): Decision | Promise<Decision>
  /** Whether it may make this call. */
  validateConsumption(request: ConsumptionFacts): Decision | Promise<Decision>
}

export interface AccessRequest {
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
}

/** What is known of a call before it is made. */
export interface ConsumptionFacts extends AccessRequest {
  /** Request body; undefined when the asker has none. Not to be kept, logged or put into a violation. */
  readonly payload?: Uint8Array | undefined
  /** Address of the end user; empty or undefined when unknown. */
  readonly ipAddress?: string | undefined
  readonly userAgent?: string | undefined
}

export interface Decision {
  readonly allowed: boolean
  /** Why not, for the caller; empty when allowed. */
  readonly reason: string
  /** Every rule that was broken; warnings may stand beside `allowed: true`. */
  readonly violations: readonly PolicyViolation[]
}

export interface PolicyViolation {
  /** Built-in rules begin with "builtin/". */
  readonly policyId: string
  readonly severity: 'warning' | 'critical'
  /** What was broken, and what would mend it. */
  readonly message: string
}

/** The engine that knows one rule, "builtin/grants": a consumer may use the services that are granted to it, or "*". */
export function createBuiltinPolicyEngine(): PolicyEngine {
  return { checkAccess: checkGrants, validateConsumption: checkGrants }
}

const allowed: Decision = Object.freeze({ allowed: true, reason: '', violations: Object.freeze([]) })

function checkGrants({ consumer, service }: AccessRequest): Decision {
  if (consumer.grantedServices.has(service.id) || consumer.grantedServices.has('*')) return allowed
  const what = `Consumer ${consumer.id} has no grant for service ${service.name} ${service.version}.`
  const remedy = `Ask an administrator to add ${service.id} to its granted services.`
  const message = `${what} ${remedy}`
  return {
    allowed: false,
    reason: message,
    violations: [{ policyId: 'builtin/grants', severity: 'critical', message }],
  }
}
