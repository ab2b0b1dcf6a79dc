import { Readable } from 'node:stream'
import { noBytes } from '../exchange.ts'
import { type ErrorCode, errorCodes } from './error-codes.ts'
import { ReceiveWindow } from './flow-window.ts'

/** How much of a request's body may be on its way before it is read; the 64 KiB of the protocol make large bodies crawl. */
export const streamWindowBytes: number = 1024 * 1024

export interface Reader {
  /** Told of bytes that were read on a stream, and of how many the peer may be told to send anew on it. */
  given(id: number, bytes: number, ofStream: number): void
}

/**
 * The body of a request. Most often it comes as a whole, together with its headers: {@link take} hands it over, and nothing else is
 * made of it. Whoever wants it chunk by chunk gets a Readable, and the peer sends on as that is read.
 */
export class IncomingBody {
  /** True when the peer sent all of it. */
  isEnded = false
  readonly #id: number
  readonly #contentLength: number | undefined
  readonly #reader: Reader
  readonly #window = new ReceiveWindow(streamWindowBytes)
  /** What came and was not read. */
  #chunks: Buffer[] = []
  #unread = 0
  #received = 0
  /** Where short chunks are collected, up to there: the last one of `#chunks`. */
  #tail: Buffer | undefined
  #tailTo = 0
  #readable: BodyReadable | undefined
  #isOver = false

  constructor(id: number, contentLength: number | undefined, reader: Reader) {
    this.#id = id
    this.#contentLength = contentLength
    this.#reader = reader
  }

  /** Takes what came in a frame of `frameBytes`, with its padding. Returns what is wrong with it; then nothing was taken. */
  put(chunk: Buffer, frameBytes: number, isLast: boolean): ErrorCode | undefined {
    if (this.isEnded) return errorCodes.streamClosed
    if (!this.#window.take(frameBytes)) return errorCodes.flowControlError
    this.#received += chunk.length
    if (!this.#isAsLongAs(isLast)) return errorCodes.protocolError
    this.isEnded = isLast
    this.#unread += frameBytes
    if (this.#isOver) {
      this.#read(frameBytes)
    } else {
      this.#read(frameBytes - chunk.length)
      if (chunk.length > 0) this.#keep(chunk)
    }
    this.#readable?.feed()
    return undefined
  }

  /** The peer says that this was all. Returns what is wrong with that. */
  end(): ErrorCode | undefined {
    if (this.isEnded) return errorCodes.streamClosed
    if (!this.#isAsLongAs(true)) return errorCodes.protocolError
    this.isEnded = true
    this.#readable?.feed()
    return undefined
  }

  /** True when it was read to its end, or will never come. */
  get isOver(): boolean {
    return this.#isOver || (this.#readable?.readableEnded ?? (this.isEnded && this.#chunks.length === 0))
  }

  /** All of it; undefined while it did not come. */
  take(): Uint8Array | undefined {
    if (this.#readable !== undefined) return this.#readable.readableEnded ? noBytes : undefined
    if (!this.isEnded) return undefined
    const chunks = this.#chunks
    this.#isOver = true
    this.#chunks = []
    this.#read(this.#unread)
    return chunks.length <= 1 ? (chunks[0] ?? noBytes) : Buffer.concat(chunks)
  }

  get readable(): Readable {
    if (this.#readable === undefined) {
      this.#readable = new BodyReadable(this)
      if (this.#isOver) this.#readable.destroy()
    }
    return this.#readable
  }

  /** The next chunk for the Readable; undefined when there is none for now, null at the end. */
  shift(): Buffer | null | undefined {
    const chunk = this.#chunks.shift()
    if (chunk === undefined) return this.isEnded ? null : undefined
    if (this.#chunks.length === 0) this.#tail = undefined
    this.#read(chunk.length)
    return chunk
  }

  /** Nothing comes any more, or nobody wants it. */
  close(): void {
    this.#isOver = true
    this.#chunks = []
    this.#read(this.#unread)
    this.#readable?.destroy()
  }

  #read(bytes: number): void {
    if (bytes === 0) return
    this.#unread -= bytes
    const ofStream = this.#window.give(bytes)
    this.#reader.given(this.#id, bytes, this.isEnded || this.#isOver ? 0 : ofStream)
  }

  /** Whether so much came as the headers announced; less only while more may come. */
  #isAsLongAs(isAll: boolean): boolean {
    if (this.#contentLength === undefined) return true
    return isAll ? this.#received === this.#contentLength : this.#received <= this.#contentLength
  }

  /**
   * A chunk by itself holds on to all that came with it: what is not a good part of that is copied, short chunks together from
   * the second one on.
   */
  #keep(chunk: Buffer): void {
    if (chunk.length >= shortBytes || this.isEnded) {
      this.#tail = undefined
      this.#chunks.push(chunk.length * 4 >= chunk.buffer.byteLength ? chunk : this.#copied(chunk))
    } else if (this.#tail === undefined || this.#tail.length - this.#tailTo < chunk.length) {
      this.#tail = this.#chunks.length === 0 ? Buffer.from(chunk) : Buffer.allocUnsafeSlow(tailBytes)
      this.#tailTo = chunk.copy(this.#tail)
      this.#chunks.push(this.#tail.subarray(0, this.#tailTo))
    } else {
      this.#tailTo += chunk.copy(this.#tail, this.#tailTo)
      this.#chunks[this.#chunks.length - 1] = this.#tail.subarray(0, this.#tailTo)
    }
  }

  /** The whole of a body is taken at once: it may stand beside others. */
  #copied(chunk: Buffer): Buffer {
    if (this.isEnded) return Buffer.from(chunk)
    const copy = Buffer.allocUnsafeSlow(chunk.length)
    chunk.copy(copy)
    return copy
  }
}

const shortBytes = 1024
const tailBytes = 4096

/** A body as Node's streams are. */
class BodyReadable extends Readable {
  readonly #body: IncomingBody
  #isWanted = false

  constructor(body: IncomingBody) {
    super()
    this.#body = body
  }

  override _read(): void {
    this.#isWanted = true
    this.feed()
  }

  feed(): void {
    while (this.#isWanted && !this.destroyed) {
      const chunk = this.#body.shift()
      if (chunk === undefined) return
      this.#isWanted = chunk !== null
      if (!this.push(chunk)) this.#isWanted = false
    }
  }
}
