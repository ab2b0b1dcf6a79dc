/**
 * One connection of HTTP/2, from its preface to its last byte (RFC 9113): which frames may come, and what those mean that are of no
 * stream. What those of streams mean is streams.ts's; how what is said leaves is sender.ts's.
 *
 * What a peer can make this side do or keep has a bound: streams at once, windows, the length of headers, bytes that wait to be
 * read by it, and how often it may ask for what costs it nothing (peer-budget.ts).
 */
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import { ConnectionError, calmDown, errorCodes, protocolError } from './error-codes.ts'
import { widened } from './flow-window.ts'
import {
  defaultWindow,
  expectLength,
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
import { headerListMaxBytes } from './header-blocks.ts'
import { HeaderFrames } from './header-frames.ts'
import { streamWindowBytes } from './incoming-body.ts'
import { PeerBudget } from './peer-budget.ts'
import { Sender } from './sender.ts'
import { connectionWindowBytes, Streams, type StreamsOptions } from './streams.ts'

export interface Http2ConnectionOptions extends StreamsOptions {
  readonly log: Logger
}

export class Http2Connection {
  readonly socket: Socket
  readonly sender: Sender
  readonly streams: Streams
  readonly #log: Logger
  readonly #budget: PeerBudget
  readonly #reader = new FrameReader(this)
  readonly #headers: HeaderFrames
  #prefaceSeen = 0
  #hasSettings = false
  #isPingOut = false
  #state: ConnectionState = 'open'
  #lingering: NodeJS.Timeout | undefined

  /** Takes over a socket whose peer speaks HTTP/2, before anything was read from it. */
  constructor(socket: Socket, options: Http2ConnectionOptions) {
    this.socket = socket
    this.#log = options.log
    this.sender = new Sender(socket, this)
    this.#budget = new PeerBudget(this.sender)
    this.streams = new Streams(this, this.#budget, options)
    this.#headers = new HeaderFrames(this.streams)
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

  get state(): ConnectionState {
    return this.#state
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

  /** Called by the streams when none is open any more. */
  emptied(): void {
    if (this.#state === 'leaving') this.sender.schedule()
  }

  /** Called by the sender. */
  written(): void {
    if (this.#state !== 'leaving' || this.streams.size > 0) return
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
    if (this.#headers.isInterruptedBy(type, id)) throw protocolError('a header block is interrupted')
    switch (type) {
      case frameTypes.data:
        return void this.streams.onData(flagBits, id, bytes, from, to)
      case frameTypes.headers:
        return void this.#headers.onHeaders(flagBits, id, bytes, from, to)
      case frameTypes.priority:
        return void this.streams.onPriority(id, bytes, from, to)
      case frameTypes.rstStream:
        return void this.streams.onReset(id, to - from)
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
        return void this.#headers.onContinuation(flagBits, bytes, from, to)
      default:
        return void this.#budget.spendIdle()
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

  #onSettings(flagBits: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) throw protocolError('SETTINGS are of a stream')
    this.#hasSettings = true
    if ((flagBits & flags.ack) !== 0) return void expectLength(to - from, 0)
    if ((to - from) % settingBytes !== 0) throw new ConnectionError(errorCodes.frameSizeError, 'SETTINGS are cut')
    if (to - from > maxSettings * settingBytes) throw calmDown('there are too many SETTINGS in a frame')
    this.#budget.spendIdle()
    const before = this.streams.initialWindow
    for (let at = from; at < to; at += settingBytes) this.#set(bytes.readUInt16BE(at), uint32(bytes, at + 2))
    const { initialWindow } = this.streams
    if (initialWindow !== before) this.streams.widen(initialWindow - before)
    this.sender.settingsTaken()
  }

  #set(setting: number, value: number): void {
    if (setting === settingIds.headerTableSize) this.sender.headers.tableChanged()
    else if (setting === settingIds.enablePush && value > 1) throw protocolError('SETTINGS_ENABLE_PUSH is wrong')
    else if (setting === settingIds.initialWindowSize) this.streams.initialWindow = widened(0, value)
    else if (setting === settingIds.maxFrameSize && (value < frameMaxBytes || value > 0xffffff)) {
      throw protocolError('SETTINGS_MAX_FRAME_SIZE is wrong')
    }
  }

  #onPing(flagBits: number, id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) throw protocolError('PING is of a stream')
    expectLength(to - from, pingBytes)
    if ((flagBits & flags.ack) === 0) {
      this.#budget.spendIdle()
      return void this.sender.ping(bytes, from, true)
    }
    if (this.#state === 'draining' && bytes.compare(drainPing, 0, pingBytes, from, to) === 0) this.#leave()
  }

  #onGoAway(id: number, bytes: Buffer, from: number, to: number): void {
    if (id !== 0) throw protocolError('GOAWAY is of a stream')
    if (to - from < 8) throw new ConnectionError(errorCodes.frameSizeError, 'GOAWAY is too short')
    const code = uint32(bytes, from + 4)
    if (code !== errorCodes.noError) this.#log.debug({ code }, 'HTTP/2 peer went away')
    if (this.#state !== 'leaving') this.#leave()
  }

  #onWindowUpdate(id: number, bytes: Buffer, from: number, to: number): void {
    expectLength(to - from, 4)
    const more = uint31(bytes, from)
    if (id !== 0) return void this.streams.onWindowUpdate(id, more)
    if (more === 0) throw protocolError('a window is widened by nothing')
    this.sender.widen(more)
  }

  /** Takes no more requests, and closes when those that are here are answered. */
  #leave(): void {
    if (this.#state === 'over') return
    this.#state = 'leaving'
    this.sender.goAway(this.streams.lastId, errorCodes.noError)
  }

  #fail(err: unknown): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    if (err instanceof ConnectionError) this.#log.debug({ err }, 'HTTP/2 connection failed')
    else this.#log.error({ err }, 'HTTP/2 connection failed')
    this.sender.goAway(this.streams.lastId, err instanceof ConnectionError ? err.code : errorCodes.internalError)
    this.#end()
    this.#linger()
    this.streams.closeAll()
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
    this.streams.closeAll()
  }
}

/** Open; asked to close, with requests still on their way; with no more of them to come; and with nothing more to say. */
export type ConnectionState = 'open' | 'draining' | 'leaving' | 'over'

const settingBytes = 6
const pingBytes = 8
/** More of them are in no frame of those that mean what they say. */
const maxSettings = 32

const keepAlivePing = Buffer.from('tollgate')
const drainPing = Buffer.from('tg-drain')

/** How long a connection that ended may take to close. */
const lingeringMs = 1000
