import type { TollgateError } from '../errors.ts'
import type { StreamEnd, StreamFailure, StreamPiece, StreamReader, StreamReport } from '../providers/provider.ts'
import type { Receiver } from './attempts.ts'
import type { BackendCall } from './backend-call.ts'

/** Takes in a whole answer. What `reader` makes of it is what the caller gets; an answer that it refuses is no answer. */
export class WholeAnswer<T> implements Receiver<T> {
  readonly maxBytes: number
  readonly #reader: { read(answer: Uint8Array): T }
  /** By far the most answers come in one chunk. */
  #first: Buffer | undefined
  #rest: Buffer[] | undefined

  constructor(maxBytes: number, reader: { read(answer: Uint8Array): T }) {
    this.maxBytes = maxBytes
    this.#reader = reader
  }

  onData(chunk: Buffer): void {
    if (this.#first === undefined) this.#first = chunk
    else if (this.#rest === undefined) this.#rest = [chunk]
    else this.#rest.push(chunk)
  }

  async value(post: BackendCall): Promise<T> {
    await post.done
    const first = this.#first ?? Buffer.alloc(0)
    return this.#reader.read(this.#rest === undefined ? first : Buffer.concat([first, ...this.#rest]))
  }
}

/** A stream whose first output is there. It must be read to its end, or given up by the signal of its call. */
export interface BackendStream {
  /**
   * What can be handed to the caller at once, in order: the pieces that one chunk completed. Ends with the stream, however
   * that ended; whoever reads slowly makes the backend wait.
   */
  readonly pieces: AsyncIterable<readonly StreamPiece[]>
  /** How the stream ended; resolves when its last piece was read. Never rejects. */
  readonly end: Promise<StreamEnd>
  /** What is known of its usage now. */
  report(): StreamReport
}

/** So much waits for the caller before the backend has to. */
const highWaterBytes = 65_536

/** After the backend's end marker the connection has so long to become free for another call. */
const afterEndMs = 1_000

/** Takes in a stream: good as soon as its first output is there, or its end without any. */
export function streamedAnswer(reader: StreamReader): Receiver<BackendStream> {
  const stream = new Streamed(reader)
  return {
    maxBytes: undefined,
    onData: (chunk, post) => stream.take(chunk, post),
    value: (post) => stream.begun(post),
    over: () => stream.over,
  }
}

class Streamed implements BackendStream {
  readonly pieces: AsyncIterable<readonly StreamPiece[]>
  readonly #reader: StreamReader
  readonly #begun = Promise.withResolvers<BackendStream>()
  readonly #read = Promise.withResolvers<StreamEnd>()
  readonly #over = Promise.withResolvers<TollgateError | undefined>()
  #waiting: (readonly StreamPiece[])[] = []
  #waitingBytes = 0
  #ended: StreamEnd | undefined
  #wake: (() => void) | undefined
  #post: BackendCall | undefined

  constructor(reader: StreamReader) {
    this.#reader = reader
    this.pieces = { [Symbol.asyncIterator]: () => this.#iterate() }
  }

  get end(): Promise<StreamEnd> {
    return this.#read.promise
  }

  /** Resolves at the end of the backend's part, with what went wrong. */
  get over(): Promise<TollgateError | undefined> {
    return this.#over.promise
  }

  report(): StreamReport {
    return this.#reader.report()
  }

  take(chunk: Buffer, post: BackendCall): void {
    if (this.#ended !== undefined) return
    const pieces: StreamPiece[] = []
    let failure: StreamFailure | undefined
    for (const event of this.#reader.push(chunk)) {
      if (event.kind === 'failure') failure = event
      else pieces.push(event)
    }
    if (pieces.length > 0) this.#offer(pieces, post)
    if (failure !== undefined) {
      this.#conclude(failure)
      post.fail(failure.error)
    } else if (this.#reader.isOver) {
      this.#conclude(this.#reader.end())
      post.endWithin(afterEndMs)
    }
  }

  /** The stream, once its first output or its end is there; rejects with what ended it before that. */
  begun(post: BackendCall): Promise<BackendStream> {
    this.#post = post
    post.done.then(
      () => this.#conclude(this.#ended ?? this.#reader.end()),
      (error: TollgateError) => this.#conclude({ verdict: 'cut', error }),
    )
    return this.#begun.promise
  }

  #offer(pieces: readonly StreamPiece[], post: BackendCall): void {
    this.#waiting.push(pieces)
    let hasOutput = false
    for (const { bytes, hasOutput: isOutput } of pieces) {
      this.#waitingBytes += bytes.length
      hasOutput ||= isOutput
    }
    const isFull = this.#waitingBytes > highWaterBytes
    if (hasOutput) post.sawOutput()
    // What comes before the first output is held back, as long as there is room for it.
    if (hasOutput || isFull) this.#begun.resolve(this)
    if (isFull) post.pause()
    this.#wake?.()
  }

  #conclude(end: StreamEnd): void {
    if (this.#ended !== undefined) return
    this.#ended = end
    this.#over.resolve(end.verdict === 'complete' ? undefined : end.error)
    if (end.verdict === 'complete') this.#begun.resolve(this)
    else this.#begun.reject(end.error)
    this.#wake?.()
  }

  async *#iterate(): AsyncGenerator<readonly StreamPiece[]> {
    for (;;) {
      const pieces = this.#waiting.shift()
      if (pieces !== undefined) {
        for (const { bytes } of pieces) this.#waitingBytes -= bytes.length
        if (this.#waitingBytes === 0) this.#post?.resume()
        yield pieces
        continue
      }
      if (this.#ended !== undefined) break
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    this.#read.resolve(this.#ended)
  }
}
