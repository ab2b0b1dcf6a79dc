import type { Socket } from 'node:net'
import type { Exchange } from '../exchange.ts'
import type { CommonLines } from './answer-text.ts'
import { HeadReader } from './head-reader.ts'
import { type ExchangeOwner, SimpleExchange } from './simple-exchange.ts'
import type { SimpleHead } from './simple-head.ts'

/** Keeps all connections, and knows what they have in common. */
export interface ConnectionOwner {
  readonly lines: CommonLines
  /** Whether the next answer on a connection is to be its last. */
  isLeaving(socket: Socket): boolean
  handle(exchange: Exchange): void
  /** Its next request is not simple: it is no longer one of these. What it sends next is still to be read. */
  handOver(connection: SimpleConnection): void
  /** It ended within a request. */
  broken(socket: Socket): void
  closed(connection: SimpleConnection): void
}

/** A longer request is not simple. As much as one read brings. */
const maxRequestBytes = 65_536
/** Nor is one that comes in more pieces: what came before is copied with each. */
const maxPieces = 64
/** So long the rest of a request is waited for, which comes at once unless the caller sends it piece by piece. */
export const restMs = 250

/**
 * A connection over HTTP/1.1 for one simple request after the other. What is behind a request on its way waits until the answer
 * is out. The first request that is not simple, or not there as a whole in time, or not alone, hands the connection over for
 * good, with all bytes from its first one on: so of each request there is one reader.
 */
export class SimpleConnection implements ExchangeOwner {
  readonly socket: Socket
  readonly #owner: ConnectionOwner
  readonly #heads = new HeadReader()
  #exchange: SimpleExchange | undefined
  /** Came, and was not taken as a request. */
  #bytes: Buffer | undefined
  #pieces = 0
  /** True when it is at its end, or no longer one of these. */
  #isOver = false
  /** By `performance.now`: when the waiting for a request, or for its rest, began. */
  #sinceMs = performance.now()

  constructor(socket: Socket, owner: ConnectionOwner) {
    this.socket = socket
    this.#owner = owner
    socket.on('data', this.#onData)
    socket.on('end', this.#onEnd)
    socket.on('close', this.#onClose)
  }

  get lines(): CommonLines {
    return this.#owner.lines
  }

  get isLeaving(): boolean {
    return this.#owner.isLeaving(this.socket)
  }

  /** True when nothing is on its way, neither request nor answer. */
  get isIdle(): boolean {
    return this.#exchange === undefined && this.#bytes === undefined && !this.#isOver
  }

  /** To be called now and then: ends what has waited too long. */
  look(nowMs: number, keepMs: number): void {
    if (this.#exchange !== undefined || this.#isOver) return
    const waitedMs = nowMs - this.#sinceMs
    if (this.#bytes !== undefined) {
      if (waitedMs >= restMs) this.#handOver(this.#bytes)
    } else if (waitedMs >= keepMs) this.socket.destroy()
  }

  answered(isLast: boolean): void {
    this.#exchange = undefined
    if (this.#isOver) return
    if (isLast || this.isLeaving) {
      this.#isOver = true
      this.socket.destroySoon()
      return
    }
    this.#sinceMs = performance.now()
    if (this.#bytes === undefined) return
    const isPaused = this.socket.isPaused()
    this.#take(this.#bytes)
    if (isPaused && !this.#isOver) this.socket.resume()
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#isOver) return
    const bytes = this.#bytes === undefined ? chunk : Buffer.concat([this.#bytes, chunk])
    if (this.#exchange === undefined) {
      this.#take(bytes)
      return
    }
    this.#bytes = bytes
    this.#pieces += 1
    if (bytes.length > maxRequestBytes || this.#pieces > maxPieces) this.socket.pause()
  }

  /** Node ends what its caller has ended. */
  readonly #onEnd = (): void => {
    this.#isOver = true
    if (this.#exchange === undefined && this.#bytes !== undefined) this.#owner.broken(this.socket)
  }

  readonly #onClose = (): void => {
    this.#isOver = true
    this.#owner.closed(this)
    this.#exchange?.gone()
  }

  /** Handles the request that `bytes` are, keeps them as a part of one, or hands the connection over. */
  #take(bytes: Buffer): void {
    const head = this.#heads.read(bytes)
    if (typeof head === 'object') {
      const length = this.#heads.length + head.bodyLength
      if (bytes.length === length) {
        this.#begin(head, bytes.subarray(this.#heads.length))
        return
      }
      if (bytes.length < length && length <= maxRequestBytes) {
        this.#keep(bytes)
        return
      }
    }
    if (head === 'part') this.#keep(bytes)
    else this.#handOver(bytes)
  }

  #begin(head: SimpleHead, body: Uint8Array): void {
    this.#bytes = undefined
    this.#pieces = 0
    this.#exchange = new SimpleExchange(this, head, body)
    this.#owner.handle(this.#exchange)
  }

  #keep(bytes: Buffer): void {
    if (this.#pieces === 0) this.#sinceMs = performance.now()
    this.#bytes = bytes
    this.#pieces += 1
    if (this.#pieces > maxPieces) this.#handOver(bytes)
  }

  #handOver(bytes: Buffer): void {
    this.#isOver = true
    const { socket } = this
    socket.off('data', this.#onData)
    socket.off('end', this.#onEnd)
    socket.off('close', this.#onClose)
    socket.pause()
    socket.unshift(bytes)
    this.#owner.handOver(this)
    socket.resume()
  }
}
