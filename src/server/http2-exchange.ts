import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import type { AnswerHeaders } from './answer-headers.ts'
import { drained } from './drained.ts'
import { throwAway } from './early-answer.ts'
import { type Exchange, noBytes, pathOf, type Trailers } from './exchange.ts'

/**
 * An {@link Exchange} on a raw stream of HTTP/2. Node's request and response objects for HTTP/2 cost about as much again as
 * the stream below them.
 */
export class Http2Exchange implements Exchange {
  readonly httpVersion = '2.0'
  readonly isHttp2 = true
  readonly method: string
  readonly url: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: ServerHttp2Stream
  readonly connection: object
  #status = 0
  #headers: AnswerHeaders | undefined
  #hasTrailers = false
  #trailers: Trailers | undefined
  #early: string[] | undefined
  #isEnded = false
  #isClosed = false
  #onLeft: (() => void) | undefined
  #onClosed: (() => void) | undefined

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders) {
    this.method = headers[':method'] ?? ''
    this.url = headers[':path'] ?? '/'
    this.path = pathOf(this.url)
    this.headers = headers
    this.body = stream
    this.connection = stream.session ?? stream
    // What it would tell follows in 'close'.
    stream.on('error', ignore)
    stream.on('close', () => {
      this.#isClosed = true
      if (!this.#isEnded) this.#onLeft?.()
      this.#onClosed?.()
      // Node keeps streams in a Map, whose old tables lead to those that are closed (passing-map.ts): they lead no further.
      stream.removeAllListeners()
      stream.on('error', ignore)
    })
  }

  get isBodyOver(): boolean {
    const stream = this.body
    return stream.readableEnded || stream.aborted || stream.closed || stream.destroyed
  }

  /** Others tell their end only to those who listen for it. */
  takeBody(): Uint8Array | undefined {
    return this.body.readableEnded ? noBytes : undefined
  }

  get socket(): { readonly remoteAddress?: string | undefined } {
    return this.body.session?.socket ?? {}
  }

  get isGone(): boolean {
    return this.body.destroyed || this.body.closed
  }

  get isFull(): boolean {
    return this.body.writableNeedDrain && !this.isGone
  }

  onLeft(listener: () => void): void {
    this.#onLeft = listener
  }

  setHeader(name: string, value: string): void {
    this.#early ??= []
    this.#early.push(name, value)
  }

  head(status: number, headers: AnswerHeaders, hasTrailers: boolean): void {
    this.#status = status
    this.#headers = headers
    this.#hasTrailers = hasTrailers
  }

  write(bytes: Uint8Array): void {
    if (this.isGone) return
    this.#sendHead(false)
    // Node ends the stream of a HEAD request by itself.
    if (!this.body.writableEnded) this.body.write(bytes)
  }

  async drained(): Promise<void> {
    if (!this.isFull) return
    await drained(this.body)
  }

  end(bytes: Uint8Array, trailers?: Trailers): void {
    const stream = this.body
    this.#isEnded = true
    if (this.isGone) return
    this.#trailers = trailers
    this.#sendHead(bytes.length === 0)
    if (bytes.length > 0 && !stream.writableEnded) stream.end(bytes)
    else stream.end()
  }

  left(): Promise<void> | undefined {
    if (this.body.destroyed) return undefined
    return this.isBodyOver ? this.#closed() : this.#resetUnread()
  }

  /** What of the request's body was not read comes first. */
  async #resetUnread(): Promise<void> {
    const stream = this.body
    await throwAway(stream)
    // A body that ended closes the stream by itself; a reset would overtake trailers that are still to be sent.
    if (!this.isBodyOver) stream.close(constants.NGHTTP2_NO_ERROR)
    await this.#closed()
  }

  cut(): void {
    this.body.close(constants.NGHTTP2_CANCEL)
  }

  /** `isAll` when nothing follows but, perhaps, trailers. */
  #sendHead(isAll: boolean): void {
    if (this.#headers === undefined) return
    const { list } = this.#headers
    this.#headers = undefined
    const headers: Record<string, string | number> = { ':status': this.#status }
    const early = this.#early ?? []
    for (let at = 0; at < early.length; at += 2) headers[early[at] ?? ''] = early[at + 1] ?? ''
    for (let at = 0; at < list.length; at += 2) headers[list[at] ?? ''] = list[at + 1] ?? ''
    if (this.#hasTrailers) {
      this.body.respond(headers, untilTrailers)
      this.body.on('wantTrailers', () => this.#sendTrailers())
    } else {
      this.body.respond(headers, isAll ? endOfStream : undefined)
    }
  }

  #sendTrailers(): void {
    if (!this.body.destroyed && !this.body.closed) this.body.sendTrailers(this.#trailers ?? {})
  }

  #closed(): Promise<void> | undefined {
    if (this.#isClosed) return undefined
    return new Promise((resolve) => {
      this.#onClosed = resolve
    })
  }
}

const endOfStream = Object.freeze({ endStream: true })
const untilTrailers = Object.freeze({ waitForTrailers: true })

function ignore(): void {}
