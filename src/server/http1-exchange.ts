import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AnswerHeaders } from './answer-headers.ts'
import { drained } from './drained.ts'
import { chunkedSilenceMs, throwAway, throwAwayMs } from './early-answer.ts'
import { type Exchange, noBytes, pathOf, type Trailers } from './exchange.ts'

/** An {@link Exchange} over HTTP/1.1, on the request and response of Node's server. */
export class Http1Exchange implements Exchange {
  readonly httpVersion: string
  readonly isHttp2 = false
  readonly method: string
  readonly url: string
  readonly path: string
  readonly body: IncomingMessage
  readonly #response: ServerResponse
  #status = 0
  #headers: AnswerHeaders | undefined
  #isClosed = false
  #isTaken = false
  #onLeft: (() => void) | undefined
  #onClosed: (() => void) | undefined

  constructor(request: IncomingMessage, response: OwnedResponse) {
    this.httpVersion = request.httpVersion
    this.method = request.method ?? ''
    this.url = request.url ?? '/'
    this.path = pathOf(this.url)
    this.body = request
    this.#response = response
    response[owner] = this
    response.on('close', tellOwner)
  }

  /** To be called when the response closed. */
  closed(): void {
    this.#isClosed = true
    if (!this.#response.writableEnded) this.#onLeft?.()
    this.#onClosed?.()
  }

  get headers(): IncomingMessage['headers'] {
    return this.body.headers
  }

  get isBodyOver(): boolean {
    return this.#isTaken || this.body.complete
  }

  takeBody(): Uint8Array | undefined {
    const { body } = this
    if (body.readableEnded || !this.#hasBody()) return noBytes
    // Node hands over the body before it says that the request is complete.
    if (!body.complete && body.readableLength !== Number(this.headers['content-length'])) return undefined
    this.#isTaken = true
    const bytes: unknown = body.read()
    return bytes instanceof Uint8Array ? bytes : noBytes
  }

  get connection(): IncomingMessage['socket'] {
    return this.body.socket
  }

  get socket(): IncomingMessage['socket'] {
    return this.body.socket
  }

  get isGone(): boolean {
    return this.#response.destroyed
  }

  get isFull(): boolean {
    return this.#response.writableNeedDrain && !this.#response.destroyed
  }

  onLeft(listener: () => void): void {
    this.#onLeft = listener
  }

  setHeader(name: string, value: string): void {
    this.#response.setHeader(name, value)
  }

  head(status: number, headers: AnswerHeaders, hasTrailers: boolean): void {
    this.#status = status
    this.#headers = headers
    // HTTP/1.1 cannot leave a body unread and keep the connection.
    if (this.#bodyIsUnread()) headers.set('connection', 'close')
    if (hasTrailers) this.#sendHead()
  }

  write(bytes: Uint8Array): void {
    if (this.isGone) return
    this.#sendHead()
    this.#response.write(bytes)
  }

  async drained(): Promise<void> {
    if (!this.isFull) return
    await drained(this.#response)
  }

  end(bytes: Uint8Array, trailers?: Trailers): void {
    if (this.isGone) return
    if (trailers !== undefined) this.#response.addTrailers(trailers)
    if (!this.#bodyIsUnread()) this.#endWith(bytes)
    else if (bytes.length > 0) this.write(bytes)
    // The request ends only when somebody reads on after its last byte; what is left of others is forgotten.
    if (this.#isTaken) this.body.read()
    else if (this.body.complete && !this.body.readableEnded) this.body.resume()
  }

  left(): Promise<void> | undefined {
    if (this.isGone) return undefined
    return this.#response.writableEnded ? this.#closed() : this.#endUnread()
  }

  cut(): void {
    this.#response.destroy()
  }

  /** What of the request's body was not read comes first. */
  async #endUnread(): Promise<void> {
    const isChunked = this.headers['content-length'] === undefined
    if (!this.body.complete) await throwAway(this.body, isChunked ? chunkedSilenceMs : throwAwayMs)
    if (this.isGone) return
    this.#endWith(noBytes)
    this.body.resume()
    await this.#closed()
  }

  #endWith(bytes: Uint8Array): void {
    if (bytes.length > 0) {
      this.#sendHead()
      // Node joins head and text into one write, where it makes a list of two of head and bytes.
      if (bytes.length > oneWriteBytes) this.#response.end(bytes)
      else this.#response.end(latin1Of(bytes), 'latin1')
      return
    }
    // Without a body, Node knows best how that is said.
    if (this.#headers !== undefined) {
      this.#response.statusCode = this.#status
      this.#headers.forEach((value, name) => {
        this.#response.setHeader(name, value)
      })
    }
    this.#response.end()
  }

  #sendHead(): void {
    if (this.#headers === undefined) return
    this.#response.writeHead(this.#status, this.#headers.list)
    this.#headers = undefined
  }

  /** True while bytes of the body are still to come or to be read, as far as its headers tell. */
  #bodyIsUnread(): boolean {
    return !this.isBodyOver && this.#hasBody()
  }

  #hasBody(): boolean {
    const { 'content-length': length, 'transfer-encoding': encoding } = this.headers
    return encoding !== undefined || (length !== undefined && length !== '0')
  }

  #closed(): Promise<void> | undefined {
    if (this.#isClosed) return undefined
    return new Promise((resolve) => {
      this.#onClosed = resolve
    })
  }
}

const owner = Symbol('owner')

interface OwnedResponse extends ServerResponse {
  [owner]?: Http1Exchange | undefined
}

/**
 * One listener for all responses. With a closure for each, collections of new objects kept nearly every exchange under load, and its
 * call with it, until the next collection of the whole heap (docs/performance.md): measured, and not explained.
 */
function tellOwner(this: OwnedResponse): void {
  const exchange = this[owner]
  this[owner] = undefined
  exchange?.closed()
}

/** Larger bodies are not worth a copy. Up to it, Node needs no memory for what it writes. */
const oneWriteBytes = 15_000

/** A character for each byte. */
function latin1Of(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}
