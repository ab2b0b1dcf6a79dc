import type { MessageInitShape } from '@bufbuild/protobuf'
import {
  type PolicyDecisionSchema,
  type PolicyEngine as PolicyEngineService,
  PolicySeverity,
  type ValidateConsumptionRequest,
} from '../../gen/marketplace/v1/policy_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { consumerNotFound, serviceNotFound } from '../registry/not-found.ts'
import { type ServiceRecord, takesCalls } from '../registry/records.ts'
import { findService, type SnapshotSource } from '../registry/snapshot.ts'
import { builtinViolation, type Decision } from './decision.ts'
import type { RequestFacts } from './facts.ts'
import type { AccessRequest, PolicyEngine } from './policy-engine.ts'
import { outcomeMessage } from './policy-message.ts'
import type { PolicyRecorder } from './policy-recorder.ts'

export interface PolicyServiceOptions {
  /** The one that the gate asks. */
  readonly engine: PolicyEngine
  readonly snapshots: Pick<SnapshotSource, 'current'>
  readonly recorder: Pick<PolicyRecorder, 'report'>
  /** What policies may know of a request that is described. */
  describe(request: ValidateConsumptionRequest, call: Call, service: ServiceRecord): RequestFacts
}

/**
 * marketplace.v1.PolicyEngine. Throws CONSUMER_NOT_FOUND and SERVICE_NOT_FOUND; everything else that would keep a call
 * from being made is a violation of the decision. Nothing that is asked here is recorded as if it had happened.
 */
export function createPolicyService(options: PolicyServiceOptions): Handlers<typeof PolicyEngineService.method> {
  const { engine, snapshots, recorder, describe } = options

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
      const parties = resolve(request, call)
      const { payload, ipAddress } = request
      const decision = await engine.validateConsumption({
        ...parties,
        payload,
        address: ipAddress,
        request: () => describe(request, call, parties.service),
      })
      return decisionMessage(withStatus(decision, parties))
    },

    async validateService({ serviceId }) {
      return decisionMessage(await engine.validateService(serviceOf(serviceId)))
    },

    async verifyDataResidency(request, call) {
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
