import type { StreamPiece } from '../providers/provider.ts'
import { answerMaxBytes } from './idempotency.ts'

/** Collects what a caller gets of a stream, for repetitions with the same idempotency key. */
export class KeptStream {
  #chunks: Uint8Array[] | undefined
  #bytes = 0

  /** Without a key nothing is kept. */
  constructor(isKept: boolean) {
    this.#chunks = isKept ? [] : undefined
  }

  add(pieces: readonly StreamPiece[]): void {
    for (const { bytes } of pieces) this.#add(bytes)
  }

  /** All of it with the stream's tail; undefined when it is too large to keep, or nothing is kept. */
  body(tail: Uint8Array): Uint8Array | undefined {
    this.#add(tail)
    return this.#chunks === undefined ? undefined : Buffer.concat(this.#chunks)
  }

  #add(bytes: Uint8Array): void {
    this.#bytes += bytes.length
    if (this.#bytes > answerMaxBytes) this.#chunks = undefined
    this.#chunks?.push(bytes)
  }
}
