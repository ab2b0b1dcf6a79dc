import type { StreamPiece } from '../providers/provider.ts'
import type { GateStreamEnd, GateStreamItem, GateStreamStart } from './gate.ts'

/** A stream whose first output is there. */
export interface Flow {
  readonly start: GateStreamStart
  /** Ends with the stream, however that ended. */
  readonly pieces: AsyncIterator<readonly StreamPiece[]>
  /** Reads what is left, and records; to be called once. Rejects with what the stream broke off by. */
  finish(): Promise<GateStreamEnd>
}

type Next = IteratorResult<GateStreamItem, void>

const over: Next = { done: true, value: undefined }

/**
 * The items of a stream. An iterator made by hand, because every token passes it: an async generator costs two promises more
 * for each, an async method one. Like a generator, it begins with the first `next`, and `return` waits for the step that is
 * under way.
 */
export class GateStream implements AsyncGenerator<GateStreamItem, void> {
  readonly #open: () => Promise<Flow>
  #isBegun = false
  /** From its start to its end. */
  #flow: Flow | undefined
  #step: Promise<Next> | undefined

  constructor(open: () => Promise<Flow>) {
    this.#open = open
  }

  next(): Promise<Next> {
    this.#step = this.#flow?.pieces.next().then(this.#handOn) ?? this.#begin()
    return this.#step
  }

  async return(): Promise<Next> {
    await this.#step?.catch(() => {})
    this.#isBegun = true
    await this.#leave()?.finish()
    return over
  }

  async throw(error: unknown): Promise<Next> {
    await this.return()
    throw error
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }

  async #begin(): Promise<Next> {
    // What fails to open is over.
    if (this.#isBegun) return over
    this.#isBegun = true
    this.#flow = await this.#open()
    return { done: false, value: this.#flow.start }
  }

  readonly #handOn = (next: IteratorResult<readonly StreamPiece[], unknown>): Next | Promise<Next> =>
    next.done === true ? this.#end() : { done: false, value: { kind: 'pieces', pieces: next.value.map(bytesOf) } }

  async #end(): Promise<Next> {
    const flow = this.#leave()
    return flow === undefined ? over : { done: false, value: await flow.finish() }
  }

  /** The flow, which is over for all others. */
  #leave(): Flow | undefined {
    const flow = this.#flow
    this.#flow = undefined
    return flow
  }
}

function bytesOf({ bytes }: StreamPiece): Uint8Array {
  return bytes
}
