import type { MessageInitShape } from '@bufbuild/protobuf'
import {
  type PolicyDecisionSchema,
  type PolicyEngine as PolicyEngineService,
  PolicySeverity,
  type ValidateConsumptionRequest,
} from '../../gen/marketplace/v1/policy_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { TollgateError } from '../errors.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { reachOf } from '../identity/principal.ts'
import { consumerNotFound, serviceNotFound } from '../registry/not-found.ts'
import { type ServiceRecord, takesCalls } from '../registry/records.ts'
import { findService, type SnapshotSource } from '../registry/snapshot.ts'
import { builtinViolation, type Decision } from './decision.ts'
import type { RequestFacts } from './facts.ts'
import type { Judge } from './judge.ts'
import { type AccessRequest, factsOfService, type PolicyEngine } from './policy-engine.ts'
import { outcomeMessage, statedFacts, statedService } from './policy-message.ts'
import type { PolicyRecorder } from './policy-recorder.ts'

export interface PolicyServiceOptions {
  /** The one that the gate asks. */
  readonly engine: PolicyEngine
  /** Asked by other gates. It must ask nobody else, or two gates could ask each other for ever. */
  readonly judge: Judge
  readonly snapshots: Pick<SnapshotSource, 'current'>
  readonly recorder: Pick<PolicyRecorder, 'report'>
  /** What policies may know of a request that is described. */
  describe(request: ValidateConsumptionRequest, call: Call, service: ServiceRecord): RequestFacts
  /** Unix milliseconds. */
  readonly now: () => number
}

/**
 * marketplace.v1.PolicyEngine. Throws CONSUMER_NOT_FOUND and SERVICE_NOT_FOUND; everything else that would keep a call
 * from being made is a violation of the decision. Nothing that is asked here is recorded as if it had happened.
 */
export function createPolicyService(options: PolicyServiceOptions): Handlers<typeof PolicyEngineService.method> {
  const { engine, snapshots, recorder, describe, now } = options

  function serviceOf(idOrName: string): ServiceRecord {
    const service = findService(snapshots.current(), idOrName)
    if (service === undefined) throw serviceNotFound(idOrName)
    return service
  }

  function resolve(request: { consumerId: string; serviceId: string }, call: Call): AccessRequest {
    const consumerId = ownConsumer(request.consumerId, call.principal)
    const consumer = snapshots.current().consumersById.get(consumerId)
    if (consumer === undefined) throw consumerNotFound(consumerId)
    return { consumer, service: serviceOf(request.serviceId) }
  }

  return {
    async checkAccess(request, call) {
      return decisionMessage(await engine.checkAccess(resolve(request, call)))
    },

    async validateConsumption(request, call) {
      const { payload, ipAddress, facts } = request
      if (facts !== undefined) {
        requireWholeReach(call)
        return decisionMessage(await options.judge.judge('call', statedFacts(facts, now()), payload))
      }
      const parties = resolve(request, call)
      const decision = await engine.validateConsumption({
        ...parties,
        payload,
        address: ipAddress,
        request: () => describe(request, call, parties.service),
      })
      return decisionMessage(withStatus(decision, parties))
    },

    async validateService({ serviceId, facts }, call) {
      if (facts !== undefined) {
        requireWholeReach(call)
        const stated = factsOfService(statedService(facts), now())
        return decisionMessage(await options.judge.judge('service', stated))
      }
      return decisionMessage(await engine.validateService(serviceOf(serviceId)))
    },

    async verifyDataResidency(request, call) {
      if (request.facts !== undefined) {
        requireWholeReach(call)
        return decisionMessage(await options.judge.judge('residency', statedFacts(request.facts, now())))
      }
      return decisionMessage(await engine.verifyDataResidency(resolve(request, call)))
    },

    async reportViolation(request, call) {
      const { policyId, message, consumerId, serviceId, requestId } = request
      const { current } = snapshots
      const violationId = await recorder.report({
        policyId,
        message,
        severity: request.severity === PolicySeverity.WARNING ? 'warning' : 'critical',
        organizationId: current().consumersById.get(consumerId)?.organizationId ?? '',
        consumerId,
        serviceId: findService(current(), serviceId)?.id ?? serviceId,
        requestId,
        reportedBy: actorOf(call).subject,
      })
      return { violationId }
    },
  }
}

/** Facts may be about anybody: who states them must be one who may ask about everybody. */
function requireWholeReach({ principal }: Call): void {
  if (reachOf(principal, 'policy.check') === 'all') return
  const description = 'is for gates: the credential must reach all consumers with policy.check'
  throw new TollgateError('PERMISSION_MISSING', `facts ${description}`, {
    fields: [{ field: 'facts', description }],
    metadata: { permission: 'policy.check', field: 'facts' },
  })
}

/** The gate refuses by status before it asks the engine; whoever asks for a decision hears of it as a violation. */
function withStatus(decision: Decision, { consumer, service }: AccessRequest): Decision {
  const broken = []
  if (consumer.status !== 'active') {
    const message = `Consumer ${consumer.id} is ${consumer.status}. An administrator can activate it.`
    broken.push(builtinViolation('consumer-status', message))
  }
  if (!takesCalls(service.status)) {
    const message = `Service ${service.name} ${service.version} is ${service.status}. Choose an active version.`
    broken.push(builtinViolation('service-status', message))
  }
  const [first] = broken
  if (first === undefined) return decision
  return { allowed: false, reason: first.message, violations: [...broken, ...decision.violations], marks: [] }
}

/** A decision in the contract. */
export function decisionMessage({
  allowed,
  reason,
  violations,
  marks,
  payload,
}: Decision): MessageInitShape<typeof PolicyDecisionSchema> {
  return {
    allowed,
    reason,
    violations: violations.map(({ outcome, policyVersion, ...violation }) => ({
      ...violation,
      policyVersion: BigInt(policyVersion),
      outcome: outcomeMessage(outcome),
    })),
    marks: [...marks],
    ...(payload === undefined ? {} : { redactedPayload: payload }),
  }
}
