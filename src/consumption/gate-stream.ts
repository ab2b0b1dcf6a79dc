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
 * for each. Like one, it begins with the first `next`, and `return` waits for the step that is under way.
 */
export class GateStream implements AsyncGenerator<GateStreamItem, void> {
  readonly #open: () => Promise<Flow>
  #flow: Flow | undefined
  #phase: 'new' | 'flowing' | 'over' = 'new'
  #step: Promise<Next> | undefined

  constructor(open: () => Promise<Flow>) {
    this.#open = open
  }

  next(): Promise<Next> {
    this.#step = this.#advance()
    return this.#step
  }

  async return(): Promise<Next> {
    await this.#step?.catch(() => {})
    const flow = this.#flow
    if (this.#phase === 'flowing') {
      this.#phase = 'over'
      await flow?.finish()
    }
    this.#phase = 'over'
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

  async #advance(): Promise<Next> {
    if (this.#phase === 'over') return over
    const flow = this.#flow
    if (flow === undefined) return await this.#begin()
    const next = await flow.pieces.next()
    if (next.done !== true) return { done: false, value: { kind: 'pieces', pieces: next.value.map(bytesOf) } }
    this.#phase = 'over'
    return { done: false, value: await flow.finish() }
  }

  async #begin(): Promise<Next> {
    // What fails to open is over.
    this.#phase = 'over'
    this.#flow = await this.#open()
    this.#phase = 'flowing'
    return { done: false, value: this.#flow.start }
  }
}

function bytesOf({ bytes }: StreamPiece): Uint8Array {
  return bytes
}
