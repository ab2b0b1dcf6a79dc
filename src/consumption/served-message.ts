import { costMessage, usageMessage } from '../metering/messages.ts'
import type { Served } from './gate.ts'

/** What RouteRequestResponse and StreamEnd have in common. */
export function servedMessage({ event, charge, serviceVersion, finishReason, isReplayed }: Served) {
  return {
    requestId: event.requestId,
    usage: usageMessage(event.tokens, event.usageSource),
    cost: costMessage(charge),
    finishReason,
    latencyMs: BigInt(event.durationMs),
    servedBy: {
      serviceId: event.serviceId,
      serviceVersion,
      endpointId: event.endpointId,
      attempt: event.attempt,
      model: event.model,
    },
    replayed: isReplayed,
    cached: event.usageSource === 'cache',
  }
}
