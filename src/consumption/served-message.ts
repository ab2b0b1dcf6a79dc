import type { MessageInitShape } from '@bufbuild/protobuf'
import type { StreamRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { costMessage, usageMessage } from '../metering/messages.ts'
import { eventData, type Framing } from '../providers/event-stream.ts'
import { doneMarker } from '../providers/openai-stream.ts'
import type { GateStreamItem, Served } from './gate.ts'

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

type StreamMessage = MessageInitShape<typeof StreamRequestResponseSchema>

/** The stream of the gate as messages: data of events without their framing, no comments, and no end marker. */
export async function* streamMessages(items: AsyncIterable<GateStreamItem>): AsyncGenerator<StreamMessage, void> {
  let framing: Framing = 'sse'
  for await (const item of items) {
    switch (item.kind) {
      case 'start':
        framing = item.framing
        yield { part: { case: 'start', value: { requestId: item.requestId } } }
        break
      case 'pieces':
        yield* eventMessages(item.pieces, framing)
        break
      case 'end': {
        yield* eventMessages(item.tail, framing)
        const firstTokenMs = BigInt(item.event.firstTokenMs)
        yield { part: { case: 'end', value: { ...servedMessage(item), firstTokenMs } } }
      }
    }
  }
}

const done = Buffer.from(doneMarker)

function* eventMessages(events: readonly Uint8Array[], framing: Framing): Generator<StreamMessage, void> {
  for (const event of events) {
    const value = eventData(event, framing)
    if (value.length > 0 && !done.equals(value)) yield { part: { case: 'eventData', value } }
  }
}
