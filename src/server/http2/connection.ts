/**
 * One connection of HTTP/2, from its preface to its last byte (RFC 9113): what its peer's frames mean, and what is wrong with them.
 * Each request becomes an exchange; how its answer leaves is sender.ts's.
 *
 * What a peer can make this side do or keep has a bound: streams at once, windows, the length of headers, bytes that wait to be
 * read by it, and how often it may ask for what costs it nothing (frame-budget.ts).
 */
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import { PassingMap } from '../../passing-map.ts'
import { AnswerHeaders } from '../answer-headers.ts'
import { type Exchange, noBytes } from '../exchange.ts'
import { ConnectionError, type ErrorCode, errorCodes } from './error-codes.ts'
import { ReceiveWindow, widened } from './flow-window.ts'
import { FrameBudget } from './frame-budget.ts'
import {
  defaultWindow,
  FrameReader,
  flags,
  frameMaxBytes,
  frameTypes,
  maxWindow,
  preface,
  settingIds,
  uint31,
  uint32,
} from './frames.ts'
import { HeaderBlocks, headerListMaxBytes } from './header-blocks.ts'
import { Http2Exchange } from './http2-exchange.ts'
import { streamWindowBytes } from './incoming-body.ts'
import { areTrailers, type RequestHead } from './request-head.ts'
import { Sender } from './sender.ts'

export interface Http2ConnectionOptions {
  readonly maxStreamsPerConnection: number
  readonly handle: (exchange: Exchange) => void
  readonly log: Logger
}

export class Http2Connection {
  readonly socket: Socket
  readonly sender: Sender
  readonly #options: Http2ConnectionOptions
  readonly #reader = new FrameReader(this)
  readonly #blocks = new HeaderBlocks()
  readonly #streams = new PassingMap<number, Http2Exchange>()
  /** The last stream that the peer began. */
  #lastId = 0
  /** Streams that this side reset last: what their peer sent before it heard is no fault. */
  readonly #reset: number[] = []
  #prefaceSeen = 0
  #hasSettings = false
  /** The header block that is being continued. */
  #open: OpenBlock | undefined
  readonly #receiveWindow = new ReceiveWindow(connectionWindowBytes)
  /** With which the peer's streams begin. */
  #streamWindow = defaultWindow
  readonly #resets = new FrameBudget(1000, 100)
  readonly #idle = new FrameBudget(10_000, 1000)
  #isPingOut = false
  #state: 'open' | 'draining' | 'leaving' | 'over' = 'open'
  #lingering: NodeJS.Timeout | undefined

  /** Takes over a socket whose peer speaks HTTP/2, before anything was read from it. */
  constructor(socket: Socket, options: Http2ConnectionOptions) {
    this.socket = socket
    this.#options = options
    this.sender = new Sender(socket, this)
    this.sender.settings([
      [settingIds.maxConcurrentStreams, options.maxStreamsPerConnection],
      [settingIds.initialWindowSize, streamWindowBytes],
      [settingIds.maxHeaderListSize, headerListMaxBytes],
    ])
    this.sender.windowUpdate(0, connectionWindowBytes - defaultWindow)
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.once('close', () => this.#closed())
    socket.resume()
  }

  /** Asks the peer to send no more requests, and closes when those that are here are answered. Idempotent. */
  drain(): void {
    if (this.#state !== 'open') return
    this.#state = 'draining'
    // What is on its way is still answered: the last stream is named when the peer has heard (section 6.8).
    this.sender.goAway(maxWindow, errorCodes.noError)
    this.sender.ping(drainPing, 0, false)
  }

  /** Asks the peer whether it is there; false when nothing came from it since the last time. */
  ping(): boolean {
    if (this.#isPingOut) return false
    this.#isPingOut = true
    // One that ended has as long to take what is left for it.
    if (this.#state !== 'over') this.sender.ping(keepAlivePing, 0, false)
    return true
  }

  destroy(): void {
    this.socket.destroy()
  }

  /** Tells the peer of room for what was read. */
  given(id: number, bytes: number, ofStream: number): void {
    const ofConnection = this.#receiveWindow.give(bytes)
    if (this.#state === 'over') return
    if (ofConnection > 0) this.sender.windowUpdate(0, ofConnection)
    if (ofStream > 0) this.sender.windowUpdate(id, ofStream)
  }

  /** Ends a stream early. */
  reset(id: number, code: ErrorCode): void {
    const exchange = this.#streams.get(id)
    if (this.#reset.push(id) > maxResets) this.#reset.shift()
    this.sender.reset(id, code)
    if (exchange !== undefined) this.close(exchange)
  }

  /** Lets go of a stream on which both sides said all. */
  close(exchange: Http2Exchange): void {
    if (!this.#streams.delete(exchange.id)) return
    exchange.closed()
    if (this.#streams.size === 0 && this.#state === 'leaving') this.sender.schedule()
  }

  /** Called by the sender. */
  written(): void {
    if (this.#state !== 'leaving' || this.#streams.size > 0) return
    // The system may not have taken all of it yet.
    this.socket.once('finish', this.#linger)
    this.#end()
  }

  /** Called by the sender. */
  overflowed(): void {
    this.#fail(calmDown('what is sent is not read'))
  }

  /** Called by the reader. */
  frame(type: number, flagBits: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (this.#state === 'over') return
    this.#isPingOut = false
    if (!this.#hasSettings && (type !== frameTypes.settings || (flagBits & flags.ack) !== 0)) {
      throw protocolError('the first frame is not SETTINGS')
    }
    if (this.#open !== undefined && (type !== frameTypes.continuation || id !== this.#open.id)) {
      throw protocolError('a header block is interrupted')
    }
    switch (type) {
      case frameTypes.data:
        return void this.#onData(flagBits, id, bytes, from, to)
      case frameTypes.headers:
        return void this.#onHeaders(flagBits, id, bytes, from, to)
      case frameTypes.priority:
        return void this.#onPriority(id, bytes, from, to)
      case frameTypes.rstStream:
        return void this.#onReset(id, to - from)
      case frameTypes.settings:
        return void this.#onSettings(flagBits, id, bytes, from, to)
      case frameTypes.pushPromise:
        throw protocolError('a client promises a push')
      case frameTypes.ping:
        return void this.#onPing(flagBits, id, bytes, from, to)
      case frameTypes.goAway:
        return void this.#onGoAway(id, bytes, from, to)
      case frameTypes.windowUpdate:
        return void this.#onWindowUpdate(id, bytes, from, to)
      case frameTypes.continuation:
        return void this.#onContinuation(flagBits, bytes, from, to)
      default:
        return void this.#spendIdle()
    }
  }

  #take(chunk: Buffer): void {
    if (this.#state === 'over') return
    try {
      const at = this.#prefaceSeen < preface.length ? this.#takePreface(chunk) : 0
      this.#reader.read(at === 0 ? chunk : chunk.subarray(at))
    } catch (err) {
      this.#fail(err)
    }
  }

  #takePreface(chunk: Buffer): number {
    const length = Math.min(chunk.length, preface.length - this.#prefaceSeen)
    if (preface.compare(chunk, 0, length, this.#prefaceSeen, this.#prefaceSeen + length) !== 0) {
      throw protocolError('the connection does not begin as one of HTTP/2')
    }
    this.#prefaceSeen += length
    return length
  }

  #onData(flagBits: number, id: number, bytes: Buffer, start: number, to: number): void {
    const length = to - start
    if (!this.#receiveWindow.take(length)) {
      throw new ConnectionError(errorCodes.flowControlError, 'more was sent than the connection has room for')
    }
    const { from, end } = unpadded(flagBits, bytes, start, to)
    const isLast = (flagBits & flags.endStream) !== 0
    if (from === end && !isLast) this.#spendIdle()
    const exchange = this.#streams.get(id)
    const wrong =
      exchange === undefined ? this.#strayed(id) : exchange.incoming.put(bytes.subarray(from, end), length, isLast)
    if (exchange === undefined || wrong !== undefined) this.given(id, length, 0)
    if (wrong !== undefined) this.#streamError(id, wrong)
    else if (isLast && exchange?.isSent === true) this.close(exchange)
  }

  /** What is wrong with a frame for a stream that is not open: nothing where this side reset it. */
  #strayed(id: number): ErrorCode | undefined {
    if (this.#isIdle(id)) throw protocolError('a frame is for a stream that was not begun')
    return this.#reset.includes(id) ? undefined : errorCodes.streamClosed
  }

  #onHeaders(flagBits: number, id: number, bytes: Buffer, start: number, to: number): void {
    if (id === 0) throw protocolError('HEADERS are for no stream')
    let { from, end } = unpadded(flagBits, bytes, start, to)
    let isWrong = false
    if ((flagBits & flags.priority) !== 0) {
      if (end - from < priorityBytes) throw new ConnectionError(errorCodes.frameSizeError, 'HEADERS are too short')
      isWrong = uint31(bytes, from) === id
      from += priorityBytes
    }
    const isLast = (flagBits & flags.endStream) !== 0
    if ((flagBits & flags.endHeaders) !== 0) return void this.#onBlock({ id, isLast, isWrong }, bytes, from, end)
    this.#open = { id, isLast, isWrong, parts: [Buffer.from(bytes.subarray(from, end))], length: end - from }
  }

  #onContinuation(flagBits: number, bytes: Buffer, from: number, to: number): void {
    const open = this.#open
    if (open === undefined) throw protocolError('CONTINUATION continues nothing')
    open.parts.push(Buffer.from(bytes.subarray(from, to)))
    open.length += to - from
    if (open.length > blockMaxBytes || open.parts.length > blockMaxFrames) {
      throw calmDown('a header block is too long')
    }
    if ((flagBits & flags.endHeaders) === 0) return
    this.#open = undefined
    this.#onBlock(open, Buffer.concat(open.parts), 0, open.length)
  }

  #onBlock(block: Block, bytes: Buffer, from: number, to: number): void {
    const { id } = block
    const exchange = this.#streams.get(id)
    if (exchange !== undefined) return void this.#onTrailers(exchange, block, this.#blocks.list(bytes, from, to))
    if (id % 2 === 0) throw protocolError('a client begins a stream with an even number')
    if (id <= this.#lastId) {
      this.#blocks.list(bytes, from, to)
      if (this.#reset.includes(id)) return
      throw new ConnectionError(errorCodes.streamClosed, 'HEADERS are for a stream that is closed')
    }
    this.#lastId = id
    const head = this.#blocks.head(bytes, from, to)
    if (block.isWrong || head === 'malformed') this.#streamError(id, errorCodes.protocolError)
    else if (head === 'too large') this.#streamError(id, errorCodes.enhanceYourCalm)
    else if (!this.#takesStreams) this.#streamError(id, errorCodes.refusedStream)
    else this.#begin(id, head, block.isLast)
  }

  #begin(id: number, head: RequestHead, isLast: boolean): void {
    const exchange = new Http2Exchange(id, this, head, this.#streamWindow)
    this.#streams.set(id, exchange)
    const wrong = isLast ? exchange.incoming.end() : undefined
    if (wrong !== undefined) return void this.#streamError(id, wrong)
    const { expect } = head.headers
    // There are no tunnels here, and who asks may send its body.
    if (head.method === 'CONNECT') return void refuse(exchange, 405)
    if (expect !== undefined && expect !== '100-continue') return void refuse(exchange, 417)
    if (expect !== undefined) this.sender.goOn(id)
    this.#options.handle(exchange)
  }

  #onTrailers(exchange: Http2Exchange, block: Block, list: readonly string[] | undefined): void {
    const { id, incoming } = exchange
    if (incoming.isEnded) return void this.#streamError(id, errorCodes.streamClosed)
    if (list === undefined) return void this.#streamError(id, errorCodes.enhanceYourCalm)
    const isGood = block.isLast && !block.isWrong && areTrailers(list)
    const wrong = isGood ? incoming.end() : errorCodes.protocolError
    if (wrong !== undefined) this.#streamError(id, wrong)
    else if (exchange.isSent) this.close(exchange)
  }

  #onPriority(id: number, bytes: Buffer, from: number, to: number): void {
    if (id === 0) throw protocolError('PRIORITY is of no stream')
    this.#spendIdle()
    if (to - from === priorityBytes && uint31(bytes, from) !== id) return
    const code = to - from === priorityBytes ? errorCodes.protocolError : errorCodes.frameSizeError
    if (!this.#streams.has(id)) throw new ConnectionError(code, 'PRIORITY is malformed')
    this.#streamError(id, code)
  }

  #onReset(id: number, length: number): void {
    if (this.#isIdle(id)) throw protocolError('RST_STREAM is for a stream that was not begun')
    expectLength(length, 4)
    const exchange = this.#streams.get(id)
    if (exchange === undefined) return
    // With its answer it was served like any other; some reset what they have no more to say on.
    if (!exchange.isSent) this.#spendReset()
    this.close(exchange)
  }

  #onSettings(flagBits: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) throw protocolError('SETTINGS are of a stream')
    this.#hasSettings = true
    if ((flagBits & flags.ack) !== 0) return void expectLength(to - from, 0)
    if ((to - from) % settingBytes !== 0) throw new ConnectionError(errorCodes.frameSizeError, 'SETTINGS are cut')
    if (to - from > maxSettings * settingBytes) throw calmDown('there are too many SETTINGS in a frame')
    this.#spendIdle()
    const before = this.#streamWindow
    for (let at = from; at < to; at += settingBytes) this.#set(bytes.readUInt16BE(at), uint32(bytes, at + 2))
    if (this.#streamWindow !== before) this.#widenStreams(this.#streamWindow - before)
    this.sender.settingsTaken()
  }

  #set(setting: number, value: number): void {
    if (setting === settingIds.headerTableSize) this.sender.headers.tableChanged()
    else if (setting === settingIds.enablePush && value > 1) throw protocolError('SETTINGS_ENABLE_PUSH is wrong')
    else if (setting === settingIds.initialWindowSize) this.#streamWindow = widened(0, value)
    else if (setting === settingIds.maxFrameSize && (value < frameMaxBytes || value > 0xffffff)) {
      throw protocolError('SETTINGS_MAX_FRAME_SIZE is wrong')
    }
  }

  /** Of the streams that are open, too: their windows may fall below zero (RFC 9113, section 6.9.2). */
  #widenStreams(more: number): void {
    // It costs as much as the frames of so many streams.
    for (let streams = this.#streams.size; streams > 0; streams -= streamsAFrame) this.#spendIdle()
    for (const exchange of this.#streams.values()) {
      exchange.window = widened(exchange.window, more)
      if (more > 0) this.sender.offer(exchange)
    }
  }

  #onPing(flagBits: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) throw protocolError('PING is of a stream')
    expectLength(to - from, pingBytes)
    if ((flagBits & flags.ack) === 0) {
      this.#spendIdle()
      return void this.sender.ping(bytes, from, true)
    }
    if (this.#state === 'draining' && bytes.compare(drainPing, 0, pingBytes, from, to) === 0) this.#leave()
  }

  #onGoAway(id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) throw protocolError('GOAWAY is of a stream')
    if (to - from < 8) throw new ConnectionError(errorCodes.frameSizeError, 'GOAWAY is too short')
    const code = uint32(bytes, from + 4)
    if (code !== errorCodes.noError) this.#options.log.debug({ code }, 'HTTP/2 peer went away')
    if (this.#state !== 'leaving') this.#leave()
  }

  #onWindowUpdate(id: number, bytes: Buffer, from: number, to: number): void {
    expectLength(to - from, 4)
    const more = uint31(bytes, from)
    if (id === 0) {
      if (more === 0) throw protocolError('a window is widened by nothing')
      return void this.sender.widen(more)
    }
    if (this.#isIdle(id)) throw protocolError('WINDOW_UPDATE is for a stream that was not begun')
    const exchange = this.#streams.get(id)
    if (exchange === undefined) return
    if (more === 0) return void this.#streamError(id, errorCodes.protocolError)
    if (exchange.window + more > maxWindow) return void this.#streamError(id, errorCodes.flowControlError)
    exchange.window += more
    this.sender.offer(exchange)
  }

  #isIdle(id: number): boolean {
    return id > this.#lastId || id % 2 === 0
  }

  #streamError(id: number, code: ErrorCode): void {
    this.#spendReset()
    this.reset(id, code)
  }

  /** Each stream that ends early may have cost a call. */
  #spendReset(): void {
    if (!this.#resets.spend()) throw calmDown('too many streams were reset')
  }

  /** For frames that bring nothing. Some clients measure the way with a PING for each part of an answer: each earns them one. */
  #spendIdle(): void {
    this.#idle.earn(this.sender.uncounted)
    this.sender.uncounted = 0
    if (!this.#idle.spend()) throw calmDown('too many frames brought nothing')
  }

  get #takesStreams(): boolean {
    const { maxStreamsPerConnection } = this.#options
    return (
      this.#state !== 'leaving' && this.#streams.size < maxStreamsPerConnection && this.sender.unsent <= unsentMaxBytes
    )
  }

  /** Takes no more requests, and closes when those that are here are answered. */
  #leave(): void {
    if (this.#state === 'over') return
    this.#state = 'leaving'
    this.sender.goAway(this.#lastId, errorCodes.noError)
  }

  #fail(err: unknown): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    const { log } = this.#options
    if (err instanceof ConnectionError) log.debug({ err }, 'HTTP/2 connection failed')
    else log.error({ err }, 'HTTP/2 connection failed')
    this.sender.goAway(this.#lastId, err instanceof ConnectionError ? err.code : errorCodes.internalError)
    this.#end()
    this.#linger()
    this.#closeStreams()
  }

  /** Ends this side. */
  #end(): void {
    this.#state = 'over'
    this.sender.end()
  }

  /** Throws away for a moment what the peer still sends: closed at once, it might not get to read what it was told. */
  readonly #linger = (): void => {
    this.#lingering = setTimeout(() => this.socket.destroy(), lingeringMs)
  }

  #closed(): void {
    this.#state = 'over'
    clearTimeout(this.#lingering)
    this.#closeStreams()
  }

  #closeStreams(): void {
    for (const exchange of [...this.#streams.values()]) this.close(exchange)
  }
}

interface Block {
  readonly id: number
  /** Whether the request ends with it. */
  readonly isLast: boolean
  /** Whether it says that it depends on itself. */
  readonly isWrong: boolean
}

/** A block that is not there as a whole. */
interface OpenBlock extends Block {
  readonly parts: Buffer[]
  length: number
}

/** How much of all bodies of a connection may be on its way before it is read. */
const connectionWindowBytes = 8 * 1024 * 1024

/** With more than so much of its answers unsent, a connection gets no new streams. */
const unsentMaxBytes = 128 * 1024 * 1024

/** A header block, compressed: Huffman may make it longer than its list. */
const blockMaxBytes = 2 * headerListMaxBytes
const blockMaxFrames = 32

/** Streams that were reset and are remembered. */
const maxResets = 1000

const priorityBytes = 5
const settingBytes = 6
const pingBytes = 8
/** More of them are in no frame of those that mean what they say; and so many streams are looked at for the price of a frame. */
const maxSettings = 32
const streamsAFrame = 100

const keepAlivePing = Buffer.from('tollgate')
const drainPing = Buffer.from('tg-drain')

/** How long a connection that ended may take to close. */
const lingeringMs = 1000

/** The part of a payload that is not padding. */
function unpadded(flagBits: number, bytes: Buffer, from: number, to: number): { from: number; end: number } {
  if ((flagBits & flags.padded) === 0) return { from, end: to }
  const padding = bytes[from] ?? 0
  if (padding >= to - from) throw protocolError('a frame is nothing but padding')
  return { from: from + 1, end: to - padding }
}

function refuse(exchange: Http2Exchange, status: number): void {
  exchange.head(status, new AnswerHeaders())
  exchange.end(noBytes)
  void exchange.left()
}

function expectLength(length: number, expected: number): void {
  if (length !== expected) throw new ConnectionError(errorCodes.frameSizeError, 'a frame has the wrong length')
}

function protocolError(message: string): ConnectionError {
  return new ConnectionError(errorCodes.protocolError, message)
}

function calmDown(message: string): ConnectionError {
  return new ConnectionError(errorCodes.enhanceYourCalm, message)
}
