/**
 * Calls over HTTP/1.1 to one origin, each with a connection for itself; the one that was used last is used first, and kept
 * for the next call. A client of the gate's own: it sends a request as one piece and reads answers where they arrive. undici,
 * which can do much more, takes 5 to 17 µs of CPU a call more (`node bench/dispatch.ts`).
 *
 * A kept connection may be at its end, or hold bytes that nobody asked for, which would be read as the answer. The event loop
 * may have found that out already and come to it later in its turn: so a request on a kept connection goes out at the end of
 * the turn, with all others of that turn, and one that has lost its connection by then goes out on another. What is lost later
 * nobody can tell from a request that was accepted: the attempt has failed, and the retry table says whether there is another.
 */
import { errors } from 'undici'
import { type ConnectionOwner, Exchange, Http1Connection } from './http1-connection.ts'
import { RequestWriter } from './http1-request.ts'
import type { Http1Target } from './http1-socket.ts'
import type { Transport, TransportHandler, TransportRequest } from './transport.ts'

export interface Http1Options {
  /** Scheme, host and port. */
  readonly origin: string
  /** Longest wait for a connection, TLS included. */
  readonly connectTimeoutMs: number
  /** Further calls wait for one. */
  readonly maxConnections: number
}

/** How long a connection is kept without calls, where the other side does not say how long it keeps it. */
const keepMs = 4_000
/** Where it does, it is given up so long before that, to not meet its close, and in any case after the longest time. */
const keepMarginMs = 2_000
const longestKeepMs = 600_000

/** Connections that were kept long enough are looked for in this interval. */
const sweepMs = 1_000

export class Http1Transport implements Transport, ConnectionOwner {
  readonly #target: Http1Target
  readonly #writer: RequestWriter
  readonly #maxConnections: number
  readonly #connections = new Set<Http1Connection>()
  readonly #idle: Http1Connection[] = []
  readonly #waiting: Exchange[] = []
  /** Their requests go out at the end of this turn. */
  #held: Http1Connection[] = []
  #sweep: NodeJS.Timeout | undefined
  readonly #closing = Promise.withResolvers<void>()
  #isClosed = false

  constructor({ origin, connectTimeoutMs, maxConnections }: Http1Options) {
    const { protocol, hostname, port, host } = new URL(origin)
    const isTls = protocol === 'https:'
    this.#target = {
      isTls,
      hostname: hostname.replace(/^\[|\]$/g, ''),
      port: port === '' ? (isTls ? 443 : 80) : Number(port),
      connectTimeoutMs,
      session: undefined,
    }
    this.#writer = new RequestWriter(host)
    this.#maxConnections = maxConnections
  }

  get isFull(): boolean {
    // Where no connection comes about, calls wait as well, but none of them runs.
    let running = 0
    for (const { isRunning } of this.#connections) if (isRunning) running += 1
    return running >= this.#maxConnections
  }

  dispatch(request: TransportRequest, handler: TransportHandler): void {
    let head: string
    try {
      head = this.#writer.head(request)
    } catch (error) {
      handler.onResponseError(null, error instanceof Error ? error : new errors.InvalidArgumentError(String(error)))
      return
    }
    this.#send(new Exchange(head, request.body, handler))
  }

  /** Takes no more calls, and waits for those that run. Calls that wait for a connection fail. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#sweep)
    for (const exchange of this.#waiting.splice(0)) this.#send(exchange)
    for (const connection of this.#idle) connection.close()
    if (this.#connections.size > 0) await this.#closing.promise
  }

  freed(connection: Http1Connection, keepAliveMs: number | undefined): void {
    const ms = keepAliveMs === undefined ? keepMs : Math.min(keepAliveMs - keepMarginMs, longestKeepMs)
    // The call that waits for its place gets it when it is closed.
    if (this.#isClosed || ms <= 0) {
      connection.close()
      return
    }
    const next = this.#waiting.shift()
    if (next !== undefined) {
      this.#hold(connection, next)
      return
    }
    connection.keptUntilMs = performance.now() + ms
    this.#idle.push(connection)
    this.#sweep ??= setTimeout(this.#onSweep, sweepMs).unref()
  }

  unsent(exchange: Exchange): void {
    this.#send(exchange)
  }

  closed(connection: Http1Connection): void {
    this.#connections.delete(connection)
    const at = this.#idle.indexOf(connection)
    if (at >= 0) this.#idle.splice(at, 1)
    const next = this.#waiting.shift()
    if (next !== undefined) this.#send(next)
    if (this.#isClosed && this.#connections.size === 0) this.#closing.resolve()
  }

  #send(exchange: Exchange): void {
    if (this.#isClosed) {
      exchange.handler.onResponseError(null, new errors.ClientClosedError())
      return
    }
    const kept = this.#takeIdle()
    if (kept !== undefined) this.#hold(kept, exchange)
    else if (this.#connections.size >= this.#maxConnections) this.#waiting.push(exchange)
    else this.#connections.add(new Http1Connection(this.#target, this, exchange))
  }

  /** The one that was used last, as others may have been closed since. */
  #takeIdle(): Http1Connection | undefined {
    const nowMs = performance.now()
    for (;;) {
      const connection = this.#idle.pop()
      if (connection === undefined || connection.isKept(nowMs)) return connection
      connection.close()
    }
  }

  #hold(connection: Http1Connection, exchange: Exchange): void {
    connection.hold(exchange)
    if (this.#held.push(connection) === 1) setImmediate(this.#sendHeld)
  }

  readonly #sendHeld = (): void => {
    const held = this.#held
    this.#held = []
    for (const connection of held) connection.send()
  }

  readonly #onSweep = (): void => {
    const nowMs = performance.now()
    for (const connection of this.#idle) if (!connection.isKept(nowMs)) connection.close()
    this.#sweep = this.#idle.length === 0 ? undefined : setTimeout(this.#onSweep, sweepMs).unref()
  }
}
