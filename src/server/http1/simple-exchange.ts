import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { TLSSocket } from 'node:tls'
import type { AnswerHeaders } from '../answer-headers.ts'
import { drained } from '../drained.ts'
import { type Exchange, noBytes, type Trailers } from '../exchange.ts'
import type { IncomingHeaders } from '../server-call.ts'
import { type CommonLines, headerLines, statusLine, trailerLines } from './answer-text.ts'
import type { SimpleHead } from './simple-head.ts'

/** The connection that an exchange is on. */
export interface ExchangeOwner {
  readonly socket: Socket
  readonly lines: CommonLines
  /** True when the next answer is to be the last one. */
  readonly isLeaving: boolean
  /** The answer is out. Nothing else may follow on the connection when it was the last one. */
  answered(isLast: boolean): void
}

/** An {@link Exchange} over HTTP/1.1 on a bare socket, of a request that came as a whole. */
export class SimpleExchange implements Exchange {
  readonly httpVersion = '1.1'
  readonly isHttp2 = false
  readonly isBodyOver = true
  readonly #owner: ExchangeOwner
  readonly #request: SimpleHead
  readonly #body: Uint8Array
  #stream: Readable | undefined
  #early: string[] | undefined
  #status = 0
  #headers: AnswerHeaders | undefined
  #hasTrailers = false
  #isChunked = false
  #isLast = false
  #isEnded = false
  /** True when the answer is out, or the connection is gone. */
  #isOver = false
  #onLeft: (() => void) | undefined
  #onOver: (() => void) | undefined

  constructor(owner: ExchangeOwner, request: SimpleHead, body: Uint8Array) {
    this.#owner = owner
    this.#request = request
    this.#body = body
  }

  /** To be called when the connection is gone. */
  gone(): void {
    this.#isOver = true
    if (!this.#isEnded) this.#onLeft?.()
    this.#onOver?.()
  }

  get method(): string {
    return this.#request.method
  }

  get url(): string {
    return this.#request.url
  }

  get path(): string {
    return this.#request.path
  }

  get headers(): IncomingHeaders {
    return this.#request.headers
  }

  get body(): Readable {
    this.#stream ??= Readable.from(this.#body.length === 0 ? [] : [this.#body])
    return this.#stream
  }

  takeBody(): Uint8Array {
    return this.#body
  }

  get connection(): Socket {
    return this.#owner.socket
  }

  get socket(): Socket {
    return this.#owner.socket
  }

  get isGone(): boolean {
    return this.#owner.socket.destroyed
  }

  get isFull(): boolean {
    return this.#owner.socket.writableNeedDrain && !this.isGone
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
    if (!this.isGone) this.#put(bytes, '')
  }

  async drained(): Promise<void> {
    if (this.isFull) await drained(this.#owner.socket)
  }

  end(bytes: Uint8Array, trailers?: Trailers): void {
    this.#isEnded = true
    if (this.isGone) return
    const lastChunk = `0\r\n${trailers === undefined ? '' : trailerLines(trailers)}\r\n`
    const { socket } = this.#owner
    // What TLS is given is never out at once; of other sockets that need not be told, which saves a tick a call.
    if (socket instanceof TLSSocket) {
      this.#put(bytes, lastChunk, () => this.#answered())
      return
    }
    this.#put(bytes, lastChunk)
    if (socket.writableLength === 0) this.#answered()
    else socket.write('', () => this.#answered())
  }

  left(): Promise<void> | undefined {
    if (this.#isOver || this.isGone) return undefined
    return new Promise((resolve) => {
      this.#onOver = resolve
    })
  }

  cut(): void {
    if (!this.#isOver) this.#owner.socket.destroy()
  }

  /**
   * @param lastChunk what follows if the answer is chunked.
   * @param onOut told when all of it is out.
   */
  #put(bytes: Uint8Array, lastChunk: string, onOut?: () => void): void {
    const head = this.#takeHead(bytes.length === 0 && lastChunk !== '')
    const { socket } = this.#owner
    if (!this.#hasBody) send(socket, head, noBytes, '', onOut)
    else if (!this.#isChunked) send(socket, head, bytes, '', onOut)
    else if (bytes.length === 0) send(socket, head, noBytes, lastChunk, onOut)
    else send(socket, `${head}${bytes.length.toString(16)}\r\n`, bytes, `\r\n${lastChunk}`, onOut)
  }

  /** The head, once, and nothing from then on. Its lines and their order are those of Node's server. */
  #takeHead(isAll: boolean): string {
    const headers = this.#headers
    if (headers === undefined) return ''
    this.#headers = undefined
    const { lines, isLeaving } = this.#owner
    const { closes } = this.#request
    this.#isLast = closes || isLeaving
    let head = statusLine(this.#status)
    if (isLeaving) head += 'connection: close\r\n'
    if (this.#early !== undefined) head += headerLines(without(this.#early, headers))
    head += headerLines(headers.list)
    head += isLeaving ? lines.date : closes ? lines.closing : lines.kept
    if (this.#hasBody && headers.get('content-length') === undefined) {
      this.#isChunked = !isAll || this.#hasTrailers
      head += this.#isChunked ? 'Transfer-Encoding: chunked\r\n' : 'Content-Length: 0\r\n'
    }
    return `${head}\r\n`
  }

  get #hasBody(): boolean {
    return this.#request.method !== 'HEAD' && this.#status !== 204 && this.#status !== 304
  }

  #answered(): void {
    // Node tells of what was written, too, when it is lost with the connection.
    if (this.#isOver || this.isGone) return
    this.#isOver = true
    this.#owner.answered(this.#isLast)
    this.#onOver?.()
  }
}

/** What is set by name wins over what was set before. */
function without(early: readonly string[], headers: AnswerHeaders): string[] {
  return early.filter((_, at) => headers.get(early[at - (at % 2)] ?? '') === undefined)
}

/** Larger ones are not worth a copy. */
const oneWriteBytes = 32_768

/** Where a write is put together. The system most often takes all of it at once: then the next one goes there, too. */
let block = Buffer.allocUnsafeSlow(oneWriteBytes)

function send(socket: Socket, before: string, bytes: Uint8Array, after: string, onOut?: () => void): void {
  const length = before.length + bytes.length + after.length
  if (length === 0 && onOut === undefined) return
  if (length <= oneWriteBytes) {
    const isWaiting = socket.writableLength > 0 || socket instanceof TLSSocket
    const all = isWaiting ? Buffer.allocUnsafe(length) : block.subarray(0, length)
    all.write(before, 'latin1')
    all.set(bytes, before.length)
    if (after !== '') all.write(after, before.length + bytes.length, 'latin1')
    socket.write(all, onOut)
    if (!isWaiting && socket.writableLength > 0) block = Buffer.allocUnsafeSlow(oneWriteBytes)
    return
  }
  socket.cork()
  if (before !== '') socket.write(before, 'latin1')
  socket.write(bytes, after === '' ? onOut : undefined)
  if (after !== '') socket.write(after, 'latin1', onOut)
  socket.uncork()
}
