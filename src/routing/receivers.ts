import type { TollgateError } from '../errors.ts'
import type { StreamEnd, StreamFailure, StreamPiece, StreamReader, StreamReport } from '../providers/provider.ts'
import { turnsEnd } from '../turn.ts'
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
    await turnsEnd()
    const first = this.#first ?? Buffer.alloc(0)
    return this.#reader.read(this.#rest === undefined ? first : Buffer.concat([first, ...this.#rest]))
  }
}

/** A stream whose first output is there. It must be read to its end, or given up by the end of its call. */
export interface BackendStream {
  /**
   * What can be handed to the caller at once, in order: the pieces that have come since the last ones. Ends with the stream,
   * however that ended; whoever reads slowly makes the backend wait. One reads at a time; who stops before the end leaves the
   * rest to the next one.
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

type Next = IteratorResult<readonly StreamPiece[], undefined>

/**
 * Takes in a stream: good as soon as its first output is there, or its end without any. Its pieces are an iterator made by
 * hand: an async generator costs three promises a token, this one.
 */
export class StreamedAnswer implements Receiver<BackendStream>, BackendStream, AsyncIterator<readonly StreamPiece[]> {
  readonly maxBytes = undefined
  readonly #reader: StreamReader
  readonly #begun = Promise.withResolvers<BackendStream>()
  readonly #read = Promise.withResolvers<StreamEnd>()
  readonly #over = Promise.withResolvers<TollgateError | undefined>()
  #waiting: StreamPiece[] = []
  #waitingBytes = 0
  #ended: StreamEnd | undefined
  /** Of the reader that waits. */
  #wake: ((next: Next) => void) | undefined
  #post: BackendCall | undefined

  constructor(reader: StreamReader) {
    this.#reader = reader
  }

  get pieces(): AsyncIterable<readonly StreamPiece[]> {
    return this
  }

  get end(): Promise<StreamEnd> {
    return this.#read.promise
  }

  /** Resolves at the end of the backend's part, with what went wrong. */
  over(): Promise<TollgateError | undefined> {
    return this.#over.promise
  }

  report(): StreamReport {
    return this.#reader.report()
  }

  onData(chunk: Buffer, post: BackendCall): void {
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
  value(post: BackendCall): Promise<BackendStream> {
    this.#post = post
    post.done.then(
      () => this.#conclude(this.#ended ?? this.#reader.end()),
      (error: TollgateError) => this.#conclude({ verdict: 'cut', error }),
    )
    return this.#begun.promise
  }

  [Symbol.asyncIterator](): AsyncIterator<readonly StreamPiece[]> {
    return this
  }

  next(): Promise<Next> {
    if (this.#waiting.length > 0) {
      const value = this.#waiting
      this.#waiting = []
      this.#waitingBytes = 0
      this.#post?.resume()
      return Promise.resolve({ done: false, value })
    }
    if (this.#ended !== undefined) return Promise.resolve(this.#finish(this.#ended))
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #offer(pieces: StreamPiece[], post: BackendCall): void {
    let hasOutput = false
    let bytes = 0
    for (const piece of pieces) {
      bytes += piece.bytes.length
      hasOutput ||= piece.hasOutput
    }
    if (hasOutput) post.sawOutput()
    if (this.#wake !== undefined) {
      this.#tell({ done: false, value: pieces })
      return
    }
    if (this.#waiting.length === 0) this.#waiting = pieces
    else this.#waiting.push(...pieces)
    this.#waitingBytes += bytes
    const isFull = this.#waitingBytes > highWaterBytes
    // What comes before the first output is held back, as long as there is room for it.
    if (hasOutput || isFull) this.#begun.resolve(this)
    if (isFull) post.pause()
  }

  #conclude(end: StreamEnd): void {
    if (this.#ended !== undefined) return
    this.#ended = end
    this.#over.resolve(end.verdict === 'complete' ? undefined : end.error)
    if (end.verdict === 'complete') this.#begun.resolve(this)
    else this.#begun.reject(end.error)
    if (this.#wake !== undefined) this.#tell(this.#finish(end))
  }

  /** The last piece was read. */
  #finish(end: StreamEnd): Next {
    this.#read.resolve(end)
    return { done: true, value: undefined }
  }

  #tell(next: Next): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.(next)
  }
}
