/**
 * Messages as gRPC frames them: a byte that says whether it is compressed, four bytes of length, the message.
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".)
 */
import { TollgateError } from '../errors.ts'
import { invalidAnswer } from './failures.ts'

/** Longest message of a stream. That of a whole answer is bounded by the answer's ceiling. */
export const maxStreamMessageBytes = 16 * 1024 * 1024

const prefixBytes = 5

/** A message with its prefix, as one piece of bytes. */
export function frameMessage(message: Uint8Array): Uint8Array {
  const framed = Buffer.allocUnsafe(prefixBytes + message.length)
  framed[0] = 0
  framed.writeUInt32BE(message.length, 1)
  framed.set(message, prefixBytes)
  return framed
}

/** Takes messages out of a body, whatever chunks it arrives in. Bytes are copied only for what came in several chunks. */
export class MessageFrames {
  readonly #maxBytes: number
  #held: Uint8Array[] = []
  #heldBytes = 0
  /** Bytes of the unfinished message with its prefix; as many as the prefix until that is there. */
  #neededBytes = prefixBytes

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Nothing is held back of an unfinished message. */
  get isBetween(): boolean {
    return this.#heldBytes === 0
  }

  /**
   * The messages that a chunk completes, to be taken to the end; they may share memory with it. Throws, after those before
   * it, BACKEND_ANSWER_INVALID for a compressed message, which was not asked for, and BACKEND_ANSWER_TOO_LARGE beyond the
   * ceiling; then it is over.
   */
  *push(chunk: Uint8Array): Generator<Uint8Array, void> {
    this.#held.push(chunk)
    this.#heldBytes += chunk.length
    if (this.#heldBytes < this.#neededBytes) return
    const all = this.#held.length === 1 ? chunk : Buffer.concat(this.#held)
    let at = 0
    this.#neededBytes = prefixBytes
    while (all.length - at >= prefixBytes) {
      const bytes = prefixBytes + this.#lengthAt(all, at)
      if (at + bytes > all.length) {
        this.#neededBytes = bytes
        break
      }
      yield all.subarray(at + prefixBytes, at + bytes)
      at += bytes
    }
    this.#held = at < all.length ? [all.subarray(at)] : []
    this.#heldBytes = all.length - at
  }

  #lengthAt(bytes: Uint8Array, at: number): number {
    if (bytes[at] !== 0) throw invalidAnswer('is no gRPC, or compressed though nobody asked for that')
    const length = new DataView(bytes.buffer, bytes.byteOffset + at, prefixBytes).getUint32(1)
    if (length > this.#maxBytes) {
      const text = `The service's backend sent a message of more than ${this.#maxBytes} bytes.`
      throw new TollgateError('BACKEND_ANSWER_TOO_LARGE', text, { metadata: { maxBytes: String(this.#maxBytes) } })
    }
    return length
  }
}
