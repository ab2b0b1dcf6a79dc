import { fromBinary } from '@bufbuild/protobuf'
import { type StreamRequestResponse, StreamRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { TollgateError } from '../errors.ts'
import { EventTally } from './event-tally.ts'
import { cutStream, invalidAnswer } from './failures.ts'
import { MessageFrames, maxStreamMessageBytes } from './grpc-frames.ts'
import { upstreamModel, upstreamUsage } from './grpc-usage.ts'
import { doneEvent } from './openai-stream.ts'
import type { ReadRequest, StreamEnd, StreamEvent, StreamReader, StreamReport } from './provider.ts'

/** Reads the stream of StreamRequest. Only one that ends with StreamEnd is complete; its figures are the upstream's. */
export function createGrpcStream(request: ReadRequest): StreamReader {
  return new GrpcStream(request)
}

class GrpcStream implements StreamReader {
  readonly #request: ReadRequest
  readonly #frames = new MessageFrames(maxStreamMessageBytes)
  readonly #delivered: EventTally
  /** What StreamEnd said. */
  #told: StreamReport | undefined
  #end: StreamEnd | undefined

  constructor(request: ReadRequest) {
    this.#request = request
    this.#delivered = new EventTally(request)
  }

  get isOver(): boolean {
    return this.#told !== undefined
  }

  push(chunk: Uint8Array): readonly StreamEvent[] {
    const events: StreamEvent[] = []
    if (this.#end !== undefined || this.isOver) return events
    try {
      for (const message of this.#frames.push(chunk)) this.#take(decode(message), events)
    } catch (error) {
      if (!(error instanceof TollgateError)) throw error
      this.#end = { verdict: 'malformed', error }
      events.push({ kind: 'failure', verdict: 'malformed', error })
    }
    return events
  }

  end(): StreamEnd {
    this.#end ??= this.isOver
      ? { verdict: 'complete', tail: this.#request.dialect === 'openai' ? doneEvent : new Uint8Array() }
      : { verdict: 'cut', error: cutStream() }
    return this.#end
  }

  report(): StreamReport {
    return this.#told ?? this.#delivered.report()
  }

  #take({ part }: StreamRequestResponse, events: StreamEvent[]): void {
    if (this.isOver) throw invalidAnswer('goes on after its end')
    if (part.case === 'eventData') {
      this.#delivered.add(part.value)
      // The upstream begins its stream when the first output is there.
      events.push({ kind: 'piece', bytes: toEvent(part.value), hasOutput: true })
    } else if (part.case === 'end') {
      const { textBytes, reasoningBytes } = this.#delivered.report()
      this.#told = {
        ...upstreamUsage(part.value, this.#request, textBytes + reasoningBytes),
        model: upstreamModel(part.value),
        finishReason: part.value.finishReason,
        textBytes,
        reasoningBytes,
      }
    }
  }
}

function decode(message: Uint8Array): StreamRequestResponse {
  try {
    return fromBinary(StreamRequestResponseSchema, message)
  } catch {
    throw invalidAnswer('has a message that is no StreamRequestResponse')
  }
}

const dataStart = Buffer.from('data: ')
const eventEnd = Buffer.from('\n\n')

/** The data of an event with the framing of server-sent events. */
function toEvent(data: Uint8Array): Uint8Array {
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  if (!text.includes(0x0a) && !text.includes(0x0d)) return Buffer.concat([dataStart, text, eventEnd])
  const lines = text.toString().split(/\r\n|\r|\n/)
  return Buffer.from(`${lines.map((line) => `data: ${line}`).join('\n')}\n\n`)
}
