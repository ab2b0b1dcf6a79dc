import type { MessageInitShape } from '@bufbuild/protobuf'
import type { StreamRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { type Framing, visitData } from '../providers/event-stream.ts'
import { doneMarker } from '../providers/openai-stream.ts'
import { EventMessage } from './event-message.ts'
import type { GateStreamItem } from './gate.ts'
import { servedMessage } from './served-message.ts'

type StreamMessage = MessageInitShape<typeof StreamRequestResponseSchema>
type Next = IteratorResult<readonly StreamMessage[], undefined>

const over: Next = { done: true, value: undefined }

/**
 * The stream of the gate as messages, those that are there together as one list: data of events without their framing, no
 * comments, and no end marker. An iterator made by hand, because every token passes it.
 */
export class StreamMessages implements AsyncIterableIterator<readonly StreamMessage[]> {
  readonly #items: AsyncIterator<GateStreamItem>
  #framing: Framing = 'sse'

  constructor(items: AsyncIterator<GateStreamItem>) {
    this.#items = items
  }

  next(): Promise<Next> {
    return this.#items.next().then(this.#read)
  }

  async return(): Promise<Next> {
    await this.#items.return?.()
    return over
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  readonly #read = (next: IteratorResult<GateStreamItem>): Next =>
    next.done === true ? over : { done: false, value: this.#messagesOf(next.value) }

  #messagesOf(item: GateStreamItem): readonly StreamMessage[] {
    if (item.kind === 'pieces') return eventMessages(item.pieces, this.#framing)
    if (item.kind === 'start') {
      this.#framing = item.framing
      return [{ part: { case: 'start', value: { requestId: item.requestId } } }]
    }
    const messages = eventMessages(item.tail, this.#framing)
    const firstTokenMs = BigInt(item.event.firstTokenMs)
    messages.push({ part: { case: 'end', value: { ...servedMessage(item), firstTokenMs } } })
    return messages
  }
}

const done = Buffer.from(doneMarker)

function eventMessages(pieces: readonly Uint8Array[], framing: Framing): StreamMessage[] {
  const messages: StreamMessage[] = []
  for (const piece of pieces) {
    visitData(piece, framing, (bytes, start, end) => {
      const isMarker = end - start === done.length && bytes.compare(done, 0, done.length, start, end) === 0
      if (!isMarker) messages.push(new EventMessage(bytes, start, end))
    })
  }
  return messages
}
