import type { StreamPiece } from '../providers/provider.ts'

type Next = IteratorResult<readonly StreamPiece[], unknown>

/** Hands on the pieces of a stream, and collects them for those who get the answer again. */
export class KeptStream implements AsyncIterator<readonly StreamPiece[]> {
  readonly #maxBytes: number
  readonly #pieces: AsyncIterator<readonly StreamPiece[]>
  #chunks: Uint8Array[] | undefined = []
  #bytes = 0

  /** Of a stream larger than `maxBytes` nothing is kept. */
  constructor(maxBytes: number, pieces: AsyncIterator<readonly StreamPiece[]>) {
    this.#maxBytes = maxBytes
    this.#pieces = pieces
  }

  async next(): Promise<Next> {
    const next = await this.#pieces.next()
    if (next.done !== true) for (const { bytes } of next.value) this.#add(bytes)
    return next
  }

  /** Resolves when all is read that was not. */
  async readAll(): Promise<void> {
    while ((await this.next()).done !== true);
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
