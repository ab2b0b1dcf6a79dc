import type { PolicyEngine as PolicyEngineService } from '../../gen/marketplace/v1/policy_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { consumerNotFound, serviceNotFound } from '../registry/not-found.ts'
import { takesCalls } from '../registry/records.ts'
import { findService, type SnapshotSource } from '../registry/snapshot.ts'
import type { AccessRequest, Decision, PolicyEngine, PolicyViolation } from './policy-engine.ts'

export interface PolicyServiceOptions {
  /** The one that the gate asks. */
  readonly engine: PolicyEngine
  readonly snapshots: Pick<SnapshotSource, 'current'>
}

/**
 * marketplace.v1.PolicyEngine. Throws CONSUMER_NOT_FOUND and SERVICE_NOT_FOUND; everything else that would keep a call
 * from being made is a violation of the decision.
 */
export function createPolicyService(options: PolicyServiceOptions): Handlers<typeof PolicyEngineService.method> {
  const { engine, snapshots } = options

  function resolve(request: { consumerId: string; serviceId: string }, call: Call): AccessRequest {
    const snapshot = snapshots.current()
    const consumerId = ownConsumer(request.consumerId, call.principal)
    const consumer = snapshot.consumersById.get(consumerId)
    if (consumer === undefined) throw consumerNotFound(consumerId)
    const service = findService(snapshot, request.serviceId)
    if (service === undefined) throw serviceNotFound(request.serviceId)
    return { consumer, service }
  }

  return {
    async checkAccess(request, call) {
      return decisionMessage(await engine.checkAccess(resolve(request, call)))
    },

    async validateConsumption(request, call) {
      const parties = resolve(request, call)
      const { payload, ipAddress, userAgent } = request
      const decision = await engine.validateConsumption({ ...parties, payload, ipAddress, userAgent })
      return decisionMessage(withStatus(decision, parties))
    },
  }
}

/** The gate refuses by status before it asks the engine; whoever asks for a decision hears of it as a violation. */
function withStatus(decision: Decision, { consumer, service }: AccessRequest): Decision {
  const broken: PolicyViolation[] = []
  if (consumer.status !== 'active') {
    const message = `Consumer ${consumer.id} is ${consumer.status}. An administrator can activate it.`
    broken.push({ policyId: 'builtin/consumer-status', severity: 'critical', message })
  }
  if (!takesCalls(service.status)) {
    const message = `Service ${service.name} ${service.version} is ${service.status}. Choose an active version.`
    broken.push({ policyId: 'builtin/service-status', severity: 'critical', message })
  }
  const [first] = broken
  if (first === undefined) return decision
  return { allowed: false, reason: first.message, violations: [...broken, ...decision.violations] }
}

function decisionMessage({ allowed, reason, violations }: Decision): {
  allowed: boolean
  reason: string
  violations: { policyId: string; severity: string; message: string }[]
} {
  return { allowed, reason, violations: violations.map((violation) => ({ ...violation })) }
}
