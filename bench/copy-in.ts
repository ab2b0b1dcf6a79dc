import type { Connection, Submittable } from 'pg'

/** What the driver hands to a query when the server asks for the rows. */
interface CopyTarget {
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
}

/**
 * A `copy … from stdin` for `client.query(…)`, which the driver leaves to its users. Rows that fit into memory: they are
 * handed to the socket at once. `done` resolves after the commit.
 */
export class CopyIn implements Submittable {
  readonly done: Promise<void>
  readonly #text: string
  readonly #chunks: readonly string[]
  readonly #settle: PromiseWithResolvers<void> = Promise.withResolvers()

  /** `chunks` hold whole rows, in COPY's text format. */
  constructor(text: string, chunks: readonly string[]) {
    this.#text = text
    this.#chunks = chunks
    this.done = this.#settle.promise
  }

  submit(connection: Connection): void {
    connection.query(this.#text)
  }

  handleCopyInResponse(target: CopyTarget): void {
    for (const chunk of this.#chunks) target.sendCopyFromChunk(Buffer.from(chunk))
    target.endCopyFrom()
  }

  handleCommandComplete(): void {}

  handleError(error: Error): void {
    this.#settle.reject(error)
  }

  handleReadyForQuery(): void {
    this.#settle.resolve()
  }
}
