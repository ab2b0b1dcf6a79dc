import type { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import type { UnaryService } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import type { Limits } from '../limits/limits.ts'
import { limitsFor } from '../limits/tiers.ts'
import { costMessage, usageMessage } from '../metering/messages.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import type { Gate } from './gate.ts'
import { resolveConsumer, resolveService } from './resolve.ts'

export interface ConsumptionServiceOptions {
  readonly gate: Gate
  readonly snapshots: Pick<SnapshotSource, 'current'>
  readonly limits: Pick<Limits, 'read'>
  /** Unix milliseconds. */
  readonly now: () => number
}

/** marketplace.v1.ConsumptionService on the gate. */
export function createConsumptionService(
  options: ConsumptionServiceOptions,
): UnaryService<typeof ConsumptionService.method> {
  return {
    async routeRequest(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const { serviceId, payload, metadata } = request
      const { body, event, charge, service } = await options.gate.route(
        { consumerId, serviceId, payload, metadata },
        call,
      )
      return {
        requestId: call.id,
        responseData: body,
        usage: usageMessage(event.tokens, event.usageSource),
        cost: costMessage(charge),
        latencyMs: BigInt(event.durationMs),
        servedBy: {
          serviceId: service.id,
          serviceVersion: service.version,
          endpointId: event.endpointId,
          attempt: event.attempt,
          model: event.model,
        },
      }
    },

    async checkQuota(request, call) {
      const snapshot = options.snapshots.current()
      const consumer = resolveConsumer(snapshot, ownConsumer(request.consumerId, call.principal))
      const service = resolveService(snapshot, request.serviceId)
      const [, quota] = limitsFor(consumer, service.id, options.now())
      const [state] = await options.limits.read(consumer.organizationId, [quota])
      if (state === undefined) throw new TollgateError('INTERNAL', 'The quota could not be read.')
      const remaining = Math.max(0, state.remaining)
      return {
        remaining: BigInt(remaining),
        limit: BigInt(quota.capacity),
        resetAt: BigInt(quota.endsAtMs / 1000),
        used: BigInt(quota.capacity - state.remaining),
        tier: consumer.tier,
        exceeded: remaining === 0,
        serviceId: service.id,
        consumerId: consumer.id,
      }
    },
  }
}
