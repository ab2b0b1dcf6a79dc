import type { StreamPiece } from '../providers/provider.ts'

type Pieces = AsyncIterator<readonly StreamPiece[]>
type Next = IteratorResult<readonly StreamPiece[], unknown>

/** Hands on the pieces of a stream, and collects them for those who get the answer again. */
export class KeptStream implements Pieces {
  readonly #maxBytes: number
  readonly #pieces: Pieces
  #chunks: Uint8Array[] | undefined = []
  #bytes = 0

  /** Of a stream larger than `maxBytes` nothing is kept. */
  constructor(maxBytes: number, pieces: Pieces) {
    this.#maxBytes = maxBytes
    this.#pieces = pieces
  }

  next(): Promise<Next> {
    return this.#pieces.next().then(this.#keep)
  }

  /** All of it with the stream's tail; undefined when it is too large to keep. */
  body(tail: Uint8Array): Uint8Array | undefined {
    this.#add(tail)
    return this.#chunks === undefined ? undefined : Buffer.concat(this.#chunks)
  }

  readonly #keep = (next: Next): Next => {
    if (next.done !== true) for (const { bytes } of next.value) this.#add(bytes)
    return next
  }

  #add(bytes: Uint8Array): void {
    this.#bytes += bytes.length
    if (this.#bytes > this.#maxBytes) this.#chunks = undefined
    this.#chunks?.push(bytes)
  }
}
