import type { StreamPiece } from '../providers/provider.ts'

/** Collects what a caller gets of a stream, for those who get it again. */
export class KeptStream {
  readonly #maxBytes: number
  #chunks: Uint8Array[] | undefined = []
  #bytes = 0

  /** Of a larger stream nothing is kept. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  add(pieces: readonly StreamPiece[]): void {
    for (const { bytes } of pieces) this.#add(bytes)
  }

  /** All of it with the stream's tail; undefined when it is too large to keep. */
  body(tail: Uint8Array): Uint8Array | undefined {
    this.#add(tail)
    return this.#chunks === undefined ? undefined : Buffer.concat(this.#chunks)
  }

  #add(bytes: Uint8Array): void {
    this.#bytes += bytes.length
    if (this.#bytes > this.#maxBytes) this.#chunks = undefined
    this.#chunks?.push(bytes)
  }
}
