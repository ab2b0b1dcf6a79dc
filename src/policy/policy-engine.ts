import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import { type CompiledRule, compileRule, type RuleKind } from './compile-policy.ts'
import { type ActivePolicy, decide, type FailMode, type PolicyFailure } from './decide.ts'
import { allowed, builtinViolation, type Decision, denied } from './decision.ts'
import {
  type CallFacts,
  consumerFacts,
  noRequest,
  organizationFacts,
  type RequestFacts,
  serviceFacts,
} from './facts.ts'
import type { PolicyRecord } from './policy-record.ts'
import { type Limits, subjectOf } from './subject.ts'

/**
 * Decides whether a consumer may use a service. The gate asks it on every call, the RPCs of marketplace.v1.PolicyEngine
 * ask the same one. An engine that answers from memory answers at once, without a promise.
 */
export interface PolicyEngine {
  /** Whether the consumer may use the service at all. */
  checkAccess(request: AccessRequest): Decision | Promise<Decision>
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

export interface PolicyEngineOptions {
  /** Policies in force, in any order; the same array as long as nothing changed. */
  readonly policies: () => readonly PolicyRecord[]
  /** What a policy that cannot be evaluated does to a call. */
  readonly failMode: FailMode
  readonly limits: Limits
  /** Unix milliseconds. */
  readonly now: () => number
  /** Told of policies that could not be evaluated; must not throw or wait. */
  readonly onFailure?: (failure: PolicyFailure) => void
}

/** Default ceilings of an evaluation. */
export const defaultLimits: Limits = { cost: 100_000, scanned: 262_144 }

/**
 * The built-in engine: the rule "builtin/grants" (a consumer may use the services that are granted to it, or "*"), then the
 * policies in force. Rules are compiled once a version.
 */
export function createPolicyEngine(options: PolicyEngineOptions): PolicyEngine {
  const { failMode, limits, now, onFailure } = options
  let seen: readonly PolicyRecord[] = []
  let active = activeSet([], new Map())

  function current(): ActiveSet {
    const policies = options.policies()
    if (policies !== seen) {
      active = activeSet(policies, active.rules)
      seen = policies
    }
    return active
  }

  function ask(policies: readonly ActivePolicy[], facts: CallFacts, payload?: Uint8Array): Decision {
    if (policies.length === 0) return allowed
    return decide(policies, subjectOf(facts, payload, limits), failMode, onFailure)
  }

  return {
    checkAccess: checkGrants,
    validateConsumption(request) {
      const granted = checkGrants(request)
      const { calls } = current()
      if (!granted.allowed || calls.length === 0) return granted
      return ask(calls, factsOf(request, request.request(), request.address, now()), request.payload)
    },
    verifyDataResidency(request) {
      const policies = current().calls.filter(isOf('dataResidency'))
      return ask(policies, factsOf(request, noRequest, '', now()))
    },
    validateService(service) {
      return ask(current().services, factsOfService(service, now()))
    },
  }
}

/** The engine that knows no policies but its built-in rule. */
export function createBuiltinPolicyEngine(): PolicyEngine {
  const none: readonly PolicyRecord[] = []
  return createPolicyEngine({ policies: () => none, failMode: 'closed', limits: defaultLimits, now: Date.now })
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

function factsOfService(service: ServiceRecord, timeMs: number): CallFacts {
  const facts = serviceFacts(service)
  return { consumer: nobody, organization: { id: '' }, service: facts, request: noRequest, address: '', timeMs }
}

function isOf(kind: RuleKind): (policy: ActivePolicy) => boolean {
  return ({ rule }) => rule?.kind === kind
}

/** The policies in force, in the order in which they are asked. */
interface ActiveSet {
  readonly calls: readonly ActivePolicy[]
  readonly services: readonly ActivePolicy[]
  /** Compiled rules by policy and version, which never change; undefined for one that cannot be compiled. */
  readonly rules: ReadonlyMap<string, CompiledRule | undefined>
}

function activeSet(policies: readonly PolicyRecord[], known: ActiveSet['rules']): ActiveSet {
  const rules = new Map<string, CompiledRule | undefined>()
  const active = policies.toSorted(byPriority).map((record) => {
    const key = `${record.id}/${record.version}`
    const rule = known.has(key) ? known.get(key) : compiled(record)
    rules.set(key, rule)
    return { record, rule }
  })
  return {
    // One that cannot be read may be about calls.
    calls: active.filter(({ rule }) => rule?.target !== 'services'),
    services: active.filter(({ rule }) => rule?.target === 'services'),
    rules,
  }
}

function byPriority(a: PolicyRecord, b: PolicyRecord): number {
  return a.spec.priority - b.spec.priority || (a.name < b.name ? -1 : 1)
}

/** What was stored was compiled before; only another release can fail here. */
function compiled({ spec }: PolicyRecord): CompiledRule | undefined {
  try {
    return compileRule(spec)
  } catch {
    return undefined
  }
}

function checkGrants({ consumer, service }: AccessRequest): Decision {
  if (consumer.grantedServices.has(service.id) || consumer.grantedServices.has('*')) return allowed
  const what = `Consumer ${consumer.id} has no grant for service ${service.name} ${service.version}.`
  const remedy = `Ask an administrator to add ${service.id} to its granted services.`
  return denied([builtinViolation('grants', `${what} ${remedy}`)])
}
