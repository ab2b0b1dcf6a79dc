import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import { allowed, builtinViolation, type Decision, denied } from './decision.ts'
import {
  type CallFacts,
  consumerFacts,
  noRequest,
  organizationFacts,
  type RequestFacts,
  type ServiceFacts,
  serviceFacts,
} from './facts.ts'
import { createLocalJudge, defaultLimits, type Judge } from './judge.ts'
import type { PolicyRecord } from './policy-record.ts'

/**
 * Decides whether a consumer may use a service. The gate asks it on every call, the RPCs of marketplace.v1.PolicyEngine
 * ask the same one. An engine that answers from memory answers at once, without a promise. One that asks elsewhere throws
 * POLICY_UNAVAILABLE when nobody answers and calls must not pass unasked.
 */
export interface PolicyEngine {
  /** Whether the consumer may use the service at all. */
  checkAccess(request: AccessRequest): Decision
  /** Whether it may make this call, and with what payload. */
  validateConsumption(request: ConsumptionRequest): Decision | Promise<Decision>
  /** Whether its data may go to where the service works. */
  verifyDataResidency(request: AccessRequest): Decision | Promise<Decision>
  /** Whether a service is as policies for services demand. */
  validateService(service: ServiceRecord): Decision | Promise<Decision>
}

export interface AccessRequest {
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
}

/** A call before it is made. */
export interface ConsumptionRequest extends AccessRequest {
  /** Request body; undefined when the asker has none. Not to be kept, logged or put into a violation. */
  readonly payload?: Uint8Array | undefined
  /** Address of the caller; empty when unknown. */
  readonly address: string
  /** What is known of the request, asked for once at most. May throw what a request that cannot be read deserves. */
  request(): RequestFacts
}

/**
 * The rule "builtin/grants" (a consumer may use the services that are granted to it, or "*"), then what the judge says.
 *
 * @param now Unix milliseconds.
 */
export function createPolicyEngine(judge: Judge, now: () => number): PolicyEngine {
  return {
    checkAccess: checkGrants,
    validateConsumption(request) {
      const granted = checkGrants(request)
      if (!granted.allowed || !judge.decidesCalls()) return granted
      return judge.judge('call', factsOf(request, request.request(), request.address, now()), request.payload)
    },
    verifyDataResidency: (request) => judge.judge('residency', factsOf(request, noRequest, '', now())),
    validateService: (service) => judge.judge('service', factsOfService(serviceFacts(service), now())),
  }
}

/** The engine that knows no policies but its built-in rule. */
export function createBuiltinPolicyEngine(): PolicyEngine {
  const none: readonly PolicyRecord[] = []
  const judge = createLocalJudge({ policies: () => none, failMode: 'closed', limits: defaultLimits })
  return createPolicyEngine(judge, Date.now)
}

export function factsOf(
  { consumer, service }: AccessRequest,
  request: RequestFacts,
  address: string,
  timeMs: number,
): CallFacts {
  return {
    consumer: consumerFacts(consumer),
    organization: organizationFacts(consumer),
    service: serviceFacts(service),
    request,
    address,
    timeMs,
  }
}

const nobody = { id: '', projectId: '', name: '', tier: '', status: '', clearance: '', homeRegion: '' }
const noOrganization = { id: '' }

/** Facts about a service that nobody calls. */
export function factsOfService(service: ServiceFacts, timeMs: number): CallFacts {
  return { consumer: nobody, organization: noOrganization, service, request: noRequest, address: '', timeMs }
}

function checkGrants({ consumer, service }: AccessRequest): Decision {
  if (consumer.grantedServices.has(service.id) || consumer.grantedServices.has('*')) return allowed
  const what = `Consumer ${consumer.id} has no grant for service ${service.name} ${service.version}.`
  const remedy = `Ask an administrator to add ${service.id} to its granted services.`
  return denied([builtinViolation('grants', `${what} ${remedy}`)])
}
