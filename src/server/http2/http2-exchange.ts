import type { Readable } from 'node:stream'
import type { AnswerHeaders } from '../answer-headers.ts'
import { throwAway } from '../early-answer.ts'
import type { Exchange, Trailers } from '../exchange.ts'
import type { IncomingHeaders } from '../server-call.ts'
import type { Http2Connection } from './connection.ts'
import { errorCodes } from './error-codes.ts'
import { flags, frameMaxBytes, frameTypes } from './frames.ts'
import { IncomingBody } from './incoming-body.ts'
import type { RequestHead } from './request-head.ts'
import type { Sender, Speaker } from './sender.ts'

/** An {@link Exchange} over HTTP/2: one stream of a connection. */
export class Http2Exchange implements Exchange, Speaker {
  readonly httpVersion = '2.0'
  readonly isHttp2 = true
  readonly id: number
  readonly connection: Http2Connection
  readonly method: string
  readonly url: string
  readonly path: string
  readonly headers: IncomingHeaders
  /** What the peer sends. */
  readonly incoming: IncomingBody
  /** How much of the answer's body the peer takes for now; below zero when it took back what it allowed. */
  window: number
  isWaiting = false
  /** True when all of the answer was handed over to leave. */
  isSent = false
  readonly #sender: Sender
  #status = 0
  #headers: AnswerHeaders | undefined
  #early: string[] | undefined
  #trailers: Trailers | undefined
  /** Parts of the answer's body that were not sent, the first of them from `#sentOfFirst` on. */
  #first: Uint8Array | undefined
  #later: Uint8Array[] | undefined
  #sentOfFirst = 0
  #unsent = 0
  /** True once there is anything to send after the head, which may change until then. */
  #isBegun = false
  #isEnded = false
  #isClosed = false
  #resetsWhenSent = false
  #onLeft: (() => void) | undefined
  #onClosed: (() => void) | undefined
  #onDrained: (() => void) | undefined

  constructor(id: number, connection: Http2Connection, head: RequestHead, window: number) {
    this.id = id
    this.connection = connection
    this.#sender = connection.sender
    this.method = head.method
    this.url = head.url
    this.path = head.path
    this.headers = head.headers
    this.window = window
    this.incoming = new IncomingBody(id, head.contentLength, connection.streams)
  }

  get body(): Readable {
    return this.incoming.readable
  }

  takeBody(): Uint8Array | undefined {
    return this.incoming.take()
  }

  get isBodyOver(): boolean {
    return this.#isClosed || this.incoming.isOver
  }

  get socket(): { readonly remoteAddress?: string | undefined } {
    return this.connection.socket
  }

  get isGone(): boolean {
    return this.#isClosed
  }

  get isFull(): boolean {
    return this.#unsent >= fullBytes
  }

  onLeft(listener: () => void): void {
    this.#onLeft = listener
  }

  setHeader(name: string, value: string): void {
    this.#early ??= []
    this.#early.push(name, value)
  }

  head(status: number, headers: AnswerHeaders): void {
    this.#status = status
    this.#headers = headers
  }

  write(bytes: Uint8Array): void {
    if (this.#isClosed) return
    this.#isBegun = true
    this.#put(bytes)
    this.#sender.offer(this)
  }

  async drained(): Promise<void> {
    if (!this.isFull) return
    await new Promise<void>((resolve) => {
      this.#onDrained = resolve
    })
  }

  end(bytes: Uint8Array, trailers?: Trailers): void {
    this.#isBegun = true
    this.#isEnded = true
    if (this.#isClosed) return
    this.#trailers = trailers
    this.#put(bytes)
    this.#sender.offer(this)
  }

  left(): Promise<void> | undefined {
    if (this.#isClosed) return undefined
    return this.incoming.isEnded ? this.#closed() : this.#resetUnread()
  }

  cut(): void {
    if (!this.#isClosed) this.connection.streams.reset(this.id, errorCodes.cancel)
  }

  send(most: number): boolean {
    if (this.#isClosed || !this.#isBegun) return false
    this.#sendHead()
    for (let frames = 0; this.#first !== undefined; frames++) {
      if (this.window <= 0) return false
      const room = frames < most ? this.#sender.roomFor(Math.min(this.window, frameMaxBytes, this.#unsent)) : 0
      if (room <= 0) return true
      this.#sendData(this.#first, room)
    }
    if (this.#isEnded && !this.isSent) this.#sendEnd()
    return false
  }

  /** To be called when the stream is closed, by whomever. */
  closed(): void {
    this.#isClosed = true
    this.#drop()
    this.incoming.close()
    if (!this.#isEnded) this.#onLeft?.()
    this.#onClosed?.()
    this.#onDrained?.()
  }

  /** What of the request's body was not read comes first. */
  async #resetUnread(): Promise<void> {
    await throwAway(this.body)
    if (this.#isClosed) return
    // A reset would overtake what is still to be sent; and a body that ended needs none.
    this.#resetsWhenSent = true
    if (this.isSent) this.#sent()
    await this.#closed()
  }

  #closed(): Promise<void> | undefined {
    if (this.#isClosed) return undefined
    return new Promise((resolve) => {
      this.#onClosed = resolve
    })
  }

  #put(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.isSent) return
    if (this.#first === undefined) this.#first = bytes
    else if (this.#later === undefined) this.#later = [bytes]
    else this.#later.push(bytes)
    this.#unsent += bytes.length
    this.#sender.unsent += bytes.length
  }

  #sendHead(): void {
    if (this.#headers === undefined) return
    const { list } = this.#headers
    this.#headers = undefined
    const isAll = this.method === 'HEAD' || bodiless.has(this.#status) || this.#endsNow(0)
    this.#sender.headers.answer(this.id, isAll, this.#status, this.#early ?? none, list)
    if (!isAll) return
    this.#drop()
    this.#trailers = undefined
    this.#sent()
  }

  /** Sends up to `room` bytes of a part, which is the first one. */
  #sendData(part: Uint8Array, room: number): void {
    const { outbox } = this.#sender
    const from = this.#sentOfFirst
    const to = Math.min(part.length, from + room)
    const length = to - from
    const isLast = this.#endsNow(length)
    this.window -= length
    this.#sender.spend(length)
    outbox.frameHead(length, frameTypes.data, isLast ? flags.endStream : 0, this.id)
    outbox.payload(part, from, to)
    this.#unsent -= length
    this.#sentOfFirst = to
    if (to === part.length) {
      this.#first = this.#later?.shift()
      this.#sentOfFirst = 0
    }
    if (isLast) this.#sent()
    else if (this.#unsent < fullBytes) this.#wake()
  }

  /** Whether nothing follows but `bytes` of the body. */
  #endsNow(bytes: number): boolean {
    return this.#isEnded && this.#trailers === undefined && this.#unsent === bytes
  }

  #sendEnd(): void {
    if (this.#trailers === undefined) this.#sender.outbox.frameHead(0, frameTypes.data, flags.endStream, this.id)
    else this.#sender.headers.trailers(this.id, this.#trailers)
    this.#sent()
  }

  /** All of the answer was sent. */
  #sent(): void {
    this.isSent = true
    this.#isEnded = true
    if (this.incoming.isEnded) this.connection.streams.close(this)
    else if (this.#resetsWhenSent) this.connection.streams.reset(this.id, errorCodes.noError)
  }

  #drop(): void {
    this.#sender.unsent -= this.#unsent
    this.#first = undefined
    this.#later = undefined
    this.#unsent = 0
  }

  #wake(): void {
    const wake = this.#onDrained
    this.#onDrained = undefined
    wake?.()
  }
}

/** So much may wait to be sent before whoever writes should. */
const fullBytes = 16_384

const none: readonly string[] = []

/** Their answers end with their headers (RFC 9110, section 6.4.1). */
const bodiless: ReadonlySet<number> = new Set([204, 205, 304])
