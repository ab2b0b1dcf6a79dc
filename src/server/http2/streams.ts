import { PassingMap } from '../../passing-map.ts'
import { AnswerHeaders } from '../answer-headers.ts'
import { type Exchange, noBytes } from '../exchange.ts'
import type { Http2Connection } from './connection.ts'
import { ConnectionError, type ErrorCode, errorCodes, protocolError } from './error-codes.ts'
import { ReceiveWindow, widened } from './flow-window.ts'
import { defaultWindow, expectLength, flags, maxWindow, priorityBytes, uint31, unpadded } from './frames.ts'
import { HeaderBlocks } from './header-blocks.ts'
import type { Block } from './header-frames.ts'
import { Http2Exchange } from './http2-exchange.ts'
import type { PeerBudget } from './peer-budget.ts'
import { areTrailers, type RequestHead } from './request-head.ts'

export interface StreamsOptions {
  readonly maxStreamsPerConnection: number
  readonly handle: (exchange: Exchange) => void
}

/**
 * The streams of a connection (RFC 9113, section 5): those that are open, what their peer's frames mean for them, and which frames
 * may come for one that is not open.
 */
export class Streams {
  /** The last stream that the peer began. */
  lastId = 0
  /** With which the peer's streams begin. */
  initialWindow = defaultWindow
  readonly #connection: Http2Connection
  readonly #budget: PeerBudget
  readonly #options: StreamsOptions
  readonly #blocks = new HeaderBlocks()
  readonly #open = new PassingMap<number, Http2Exchange>()
  /** Streams that this side reset last: what their peer sent before it heard is no fault. */
  readonly #reset: number[] = []
  readonly #receiveWindow = new ReceiveWindow(connectionWindowBytes)

  constructor(connection: Http2Connection, budget: PeerBudget, options: StreamsOptions) {
    this.#connection = connection
    this.#budget = budget
    this.#options = options
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size
  }

  /** Tells the peer of room for what was read. */
  given(id: number, bytes: number, ofStream: number): void {
    const ofConnection = this.#receiveWindow.give(bytes)
    const { state, sender } = this.#connection
    if (state === 'over') return
    if (ofConnection > 0) sender.windowUpdate(0, ofConnection)
    if (ofStream > 0) sender.windowUpdate(id, ofStream)
  }

  /** Ends a stream early. */
  reset(id: number, code: ErrorCode): void {
    const exchange = this.#open.get(id)
    if (this.#reset.push(id) > maxResets) this.#reset.shift()
    this.#connection.sender.reset(id, code)
    if (exchange !== undefined) this.close(exchange)
  }

  /** Lets go of a stream on which both sides said all. */
  close(exchange: Http2Exchange): void {
    if (!this.#open.delete(exchange.id)) return
    exchange.closed()
    if (this.#open.size === 0) this.#connection.emptied()
  }

  closeAll(): void {
    for (const exchange of [...this.#open.values()]) this.close(exchange)
  }

  onData(flagBits: number, id: number, bytes: Buffer, start: number, to: number): void {
    const length = to - start
    if (!this.#receiveWindow.take(length)) {
      throw new ConnectionError(errorCodes.flowControlError, 'more was sent than the connection has room for')
    }
    const { from, end } = unpadded(flagBits, bytes, start, to)
    const isLast = (flagBits & flags.endStream) !== 0
    if (from === end && !isLast) this.#budget.spendIdle()
    const exchange = this.#open.get(id)
    const wrong =
      exchange === undefined ? this.#strayed(id) : exchange.incoming.put(bytes.subarray(from, end), length, isLast)
    if (exchange === undefined || wrong !== undefined) this.given(id, length, 0)
    if (wrong !== undefined) this.#fail(id, wrong)
    else if (isLast && exchange?.isSent === true) this.close(exchange)
  }

  onBlock(block: Block, bytes: Buffer, from: number, to: number): void {
    const { id } = block
    const exchange = this.#open.get(id)
    if (exchange !== undefined) return void this.#onTrailers(exchange, block, this.#blocks.list(bytes, from, to))
    if (id % 2 === 0) throw protocolError('a client begins a stream with an even number')
    if (id <= this.lastId) {
      this.#blocks.list(bytes, from, to)
      if (this.#reset.includes(id)) return
      throw new ConnectionError(errorCodes.streamClosed, 'HEADERS are for a stream that is closed')
    }
    this.lastId = id
    const head = this.#blocks.head(bytes, from, to)
    if (block.isWrong || head === 'malformed') this.#fail(id, errorCodes.protocolError)
    else if (head === 'too large') this.#fail(id, errorCodes.enhanceYourCalm)
    else if (!this.#takesMore) this.#fail(id, errorCodes.refusedStream)
    else this.#begin(id, head, block.isLast)
  }

  onPriority(id: number, bytes: Buffer, from: number, to: number): void {
    if (id === 0) throw protocolError('PRIORITY is of no stream')
    this.#budget.spendIdle()
    if (to - from === priorityBytes && uint31(bytes, from) !== id) return
    const code = to - from === priorityBytes ? errorCodes.protocolError : errorCodes.frameSizeError
    if (!this.#open.has(id)) throw new ConnectionError(code, 'PRIORITY is malformed')
    this.#fail(id, code)
  }

  onReset(id: number, length: number): void {
    if (this.#isIdle(id)) throw protocolError('RST_STREAM is for a stream that was not begun')
    expectLength(length, 4)
    const exchange = this.#open.get(id)
    if (exchange === undefined) return
    // With its answer it was served like any other; some reset what they have no more to say on.
    if (!exchange.isSent) this.#budget.spendReset()
    this.close(exchange)
  }

  /** The peer takes `more` bytes of a stream's answer. */
  onWindowUpdate(id: number, more: number): void {
    if (this.#isIdle(id)) throw protocolError('WINDOW_UPDATE is for a stream that was not begun')
    const exchange = this.#open.get(id)
    if (exchange === undefined) return
    if (more === 0) return void this.#fail(id, errorCodes.protocolError)
    if (exchange.window + more > maxWindow) return void this.#fail(id, errorCodes.flowControlError)
    exchange.window += more
    this.#connection.sender.offer(exchange)
  }

  /** Changes the windows of those that are open, which may fall below zero (RFC 9113, section 6.9.2). */
  widen(more: number): void {
    // It costs as much as the frames of so many streams.
    for (let streams = this.#open.size; streams > 0; streams -= streamsAFrame) this.#budget.spendIdle()
    for (const exchange of this.#open.values()) {
      exchange.window = widened(exchange.window, more)
      if (more > 0) this.#connection.sender.offer(exchange)
    }
  }

  #begin(id: number, head: RequestHead, isLast: boolean): void {
    const exchange = new Http2Exchange(id, this.#connection, head, this.initialWindow)
    this.#open.set(id, exchange)
    const wrong = isLast ? exchange.incoming.end() : undefined
    if (wrong !== undefined) return void this.#fail(id, wrong)
    const { expect } = head.headers
    // There are no tunnels here, and who asks may send its body.
    if (head.method === 'CONNECT') return void refuse(exchange, 405)
    if (expect !== undefined && expect !== '100-continue') return void refuse(exchange, 417)
    if (expect !== undefined) this.#connection.sender.goOn(id)
    this.#options.handle(exchange)
  }

  #onTrailers(exchange: Http2Exchange, block: Block, list: readonly string[] | undefined): void {
    const { id, incoming } = exchange
    if (incoming.isEnded) return void this.#fail(id, errorCodes.streamClosed)
    if (list === undefined) return void this.#fail(id, errorCodes.enhanceYourCalm)
    const isGood = block.isLast && !block.isWrong && areTrailers(list)
    const wrong = isGood ? incoming.end() : errorCodes.protocolError
    if (wrong !== undefined) this.#fail(id, wrong)
    else if (exchange.isSent) this.close(exchange)
  }

  /** What is wrong with a frame for a stream that is not open: nothing where this side reset it. */
  #strayed(id: number): ErrorCode | undefined {
    if (this.#isIdle(id)) throw protocolError('a frame is for a stream that was not begun')
    return this.#reset.includes(id) ? undefined : errorCodes.streamClosed
  }

  #isIdle(id: number): boolean {
    return id > this.lastId || id % 2 === 0
  }

  #fail(id: number, code: ErrorCode): void {
    this.#budget.spendReset()
    this.reset(id, code)
  }

  get #takesMore(): boolean {
    const { state, sender } = this.#connection
    const { maxStreamsPerConnection } = this.#options
    return state !== 'leaving' && this.#open.size < maxStreamsPerConnection && sender.unsent <= unsentMaxBytes
  }
}

/** How much of all bodies of a connection may be on its way before it is read. */
export const connectionWindowBytes: number = 8 * 1024 * 1024

/** With more than so much of its answers unsent, a connection gets no new streams. */
const unsentMaxBytes = 128 * 1024 * 1024

/** Streams that were reset and are remembered. */
const maxResets = 1000

/** So many are looked at for the price of a frame. */
const streamsAFrame = 100

function refuse(exchange: Http2Exchange, status: number): void {
  exchange.head(status, new AnswerHeaders())
  exchange.end(noBytes)
  void exchange.left()
}
