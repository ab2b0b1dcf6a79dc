import { type StreamRequestResponse, StreamRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import type { WrittenMessage } from '../written-message.ts'

/**
 * A StreamRequestResponse with the data of one event, as nearly all messages of a stream are. The data are copied once, from
 * the backend's bytes to the caller's.
 */
export class EventMessage implements WrittenMessage {
  readonly #bytes: Buffer
  readonly #start: number
  readonly #end: number

  /** The data are `bytes` from `start` to `end`. */
  constructor(bytes: Buffer, start: number, end: number) {
    this.#bytes = bytes
    this.#start = start
    this.#end = end
  }

  get part(): Extract<StreamRequestResponse['part'], { case: 'eventData' }> {
    return { case: 'eventData', value: this.#bytes.subarray(this.#start, this.#end) }
  }

  get binaryLength(): number {
    const length = this.#end - this.#start
    return 1 + varintLength(length) + length
  }

  writeBinary(target: Buffer, at: number): void {
    target[at] = tag
    let next = at + 1
    let length = this.#end - this.#start
    for (; length > 0x7f; length >>>= 7) {
      target[next] = (length & 0x7f) | 0x80
      next += 1
    }
    target[next] = length
    this.#bytes.copy(target, next + 1, this.#start, this.#end)
  }
}

/** Number of the field, and a length that precedes its bytes. */
const tag = (StreamRequestResponseSchema.field.eventData.number << 3) | 2

function varintLength(value: number): number {
  let length = 1
  for (let rest = value; rest > 0x7f; rest >>>= 7) length += 1
  return length
}
