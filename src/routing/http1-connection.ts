import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import { errors } from 'undici'
import { AnswerReader, type AnswerSink } from './http1-answers.ts'
import { writeRequest } from './http1-request.ts'
import { asConnectTimeout, connectTimeout, type Http1Target, openSocket } from './http1-socket.ts'
import type { TransportController, TransportHandler } from './transport.ts'

/** Told of a connection; it keeps all of them. */
export interface ConnectionOwner {
  /** Its exchange is over, and it may have another one; for how long the other side keeps it, undefined where it does not say so. */
  freed(connection: Http1Connection, keepAliveMs: number | undefined): void
  /** It broke before a byte of its exchange was sent. */
  unsent(exchange: Exchange): void
  /** There is no socket any more. */
  closed(connection: Http1Connection): void
}

/** One request and its answer. */
export class Exchange implements TransportController {
  readonly head: string
  readonly body: Uint8Array
  readonly handler: TransportHandler
  /** The one that it is on, from its begin to its end. */
  connection: Http1Connection | undefined

  constructor(head: string, body: Uint8Array, handler: TransportHandler) {
    this.head = head
    this.body = body
    this.handler = handler
  }

  abort(reason: Error): void {
    this.connection?.abort(reason)
  }

  pause(): void {
    this.connection?.pause()
  }

  resume(): void {
    this.connection?.resume()
  }
}

/** What is read at once, at most. */
const readBytes = 65_536

/**
 * - **connecting**: for an exchange that waits for it.
 * - **idle**: without one.
 * - **held**: with one that goes out at the end of the turn.
 * - **starting**: its handler is told that it goes out.
 * - **running**: it is out.
 * - **over**: there will be no other one.
 */
type State = 'connecting' | 'idle' | 'held' | 'starting' | 'running' | 'over'

/** A connection over HTTP/1.1, for one exchange at a time. */
export class Http1Connection implements AnswerSink {
  /** By `performance.now`: so long it waits for its next exchange. */
  keptUntilMs = 0
  readonly #owner: ConnectionOwner
  readonly #socket: Socket
  readonly #answers = new AnswerReader(this)
  /** All that is read goes through it. */
  readonly #buffer = Buffer.allocUnsafeSlow(readBytes)
  #state: State = 'connecting'
  #exchange: Exchange | undefined
  #isPaused = false

  /** Connects, and sends the exchange. */
  constructor(target: Http1Target, owner: ConnectionOwner, exchange: Exchange) {
    this.#owner = owner
    this.#exchange = exchange
    const socket = openSocket(target, { buffer: this.#buffer, callback: this.#onRead })
    this.#socket = socket
    const late = setTimeout(() => this.#break(connectTimeout(target)), target.connectTimeoutMs)
    socket.once(target.isTls ? 'secureConnect' : 'connect', () => {
      clearTimeout(late)
      this.send()
    })
    socket.on('end', this.#onEnd)
    socket.on('error', (error) => this.#break(asConnectTimeout(error, target)))
    socket.once('close', () => {
      clearTimeout(late)
      this.#break(new errors.SocketError('the connection was closed'))
      owner.closed(this)
    })
  }

  /** Whether a call runs on it. */
  get isRunning(): boolean {
    return this.#state === 'running'
  }

  /** Whether it waits for an exchange. */
  isKept(nowMs: number): boolean {
    return this.#state === 'idle' && this.keptUntilMs > nowMs
  }

  /** Gives an idle one its next exchange, to be sent at the end of the turn. */
  hold(exchange: Exchange): void {
    this.#exchange = exchange
    this.#state = 'held'
  }

  /** Sends the exchange, if it still has it. */
  send(): void {
    const exchange = this.#exchange
    if (exchange === undefined) return
    this.#state = 'starting'
    exchange.connection = this
    exchange.handler.onRequestStart(exchange)
    if (this.#exchange !== exchange) return
    this.#state = 'running'
    this.#answers.begin()
    writeRequest(this.#socket, exchange.head, exchange.body)
  }

  /** Ends the exchange, and with it the connection: what the other side still sends would be read as the next answer. */
  abort(reason: Error): void {
    if (this.#state !== 'starting') {
      this.#break(reason)
      return
    }
    const exchange = this.#leave()
    this.#state = 'idle'
    this.#owner.freed(this, undefined)
    exchange?.handler.onResponseError(exchange, reason)
  }

  pause(): void {
    this.#isPaused = true
    this.#socket.pause()
  }

  resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#socket.resume()
  }

  /** Closes one without an exchange. */
  close(): void {
    this.#state = 'over'
    this.#socket.destroy()
  }

  onHead(status: number, headers: IncomingHttpHeaders): void {
    const exchange = this.#exchange
    exchange?.handler.onResponseStart(exchange, status, headers)
  }

  onBody(chunk: Buffer): void {
    const exchange = this.#exchange
    exchange?.handler.onResponseData(exchange, chunk)
  }

  onEnd(trailers: IncomingHttpHeaders, isReusable: boolean, keepAliveMs: number | undefined): void {
    const exchange = this.#leave()
    if (exchange === undefined) return
    this.resume()
    // An answer that comes before the request is out leaves a body that the other side does not want.
    if (isReusable && this.#socket.writableLength === 0) {
      this.#state = 'idle'
      this.#owner.freed(this, keepAliveMs)
    } else this.close()
    exchange.handler.onResponseEnd(exchange, trailers)
  }

  onBroken(error: Error): void {
    this.#break(error)
  }

  readonly #onRead = (bytes: number): boolean => {
    if (this.#state === 'running') this.#answers.push(this.#buffer, bytes)
    // Nobody asked for it.
    else if (this.#state !== 'over') this.#break(new errors.SocketError('the other side sent more than its answer'))
    return true
  }

  readonly #onEnd = (): void => {
    if (this.#state === 'running') this.#answers.finish()
    this.#break(new errors.SocketError('the other side closed the connection'))
  }

  /** Of several reasons the first one counts. */
  #break(error: Error): void {
    const state = this.#state
    if (state === 'over') return
    const exchange = this.#leave()
    this.close()
    if (exchange === undefined) return
    if (state === 'held') this.#owner.unsent(exchange)
    else exchange.handler.onResponseError(state === 'connecting' ? null : exchange, error)
  }

  #leave(): Exchange | undefined {
    const exchange = this.#exchange
    this.#exchange = undefined
    if (exchange !== undefined) exchange.connection = undefined
    return exchange
  }
}
