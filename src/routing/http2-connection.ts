import type { IncomingHttpHeaders } from 'node:http'
import { type ClientHttp2Session, connect, constants } from 'node:http2'
import { errors } from 'undici'
import type { TransportController, TransportHandler, TransportRequest } from './transport.ts'

export interface Http2ConnectionOptions {
  readonly origin: string
  readonly connectTimeoutMs: number
  readonly pingMs: number
  readonly pingTimeoutMs: number
  readonly idleMs: number
}

const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = constants

/** Calls on one connection at once, unless the server allows fewer: beyond, another one is opened. */
const maxCalls = 100

/** Bytes that may be under way in one stream, and in all of them together. */
const streamWindowBytes = 262_144
const connectionWindowBytes = 1_048_576

/** What became of a call: its handler was told, or it proved unprocessed and its handler knows of no end. */
export type Sent = 'told' | 'unprocessed'

/** One connection, with the calls on it. */
export class Http2Connection {
  readonly closed: Promise<void>
  /** Calls that run or wait for the connection. */
  calls = 0
  readonly #options: Http2ConnectionOptions
  readonly #session: ClientHttp2Session
  /** Rejects when there will be no connection. */
  readonly #ready: Promise<void>
  #isRetired = false
  #probe: NodeJS.Timeout | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(options: Http2ConnectionOptions) {
    this.#options = options
    const { origin, connectTimeoutMs, pingMs } = options
    const session = connect(origin, { settings: { enablePush: false, initialWindowSize: streamWindowBytes } })
    this.#session = session
    const ready = Promise.withResolvers<void>()
    const closed = Promise.withResolvers<void>()
    this.#ready = ready.promise
    this.closed = closed.promise
    ready.promise.catch(() => {})
    const late = setTimeout(() => session.destroy(new errors.ConnectTimeoutError()), connectTimeoutMs)
    const pings = setInterval(() => this.#ask(), pingMs).unref()
    session.once('connect', () => {
      clearTimeout(late)
      session.setLocalWindowSize(connectionWindowBytes)
      ready.resolve()
    })
    session.on('goaway', () => {
      this.#isRetired = true
    })
    session.on('error', ready.reject)
    session.once('close', () => {
      for (const timer of [late, pings, this.#probe, this.#idle]) clearTimeout(timer)
      ready.reject(new errors.SocketError('the connection was closed'))
      closed.resolve()
    })
  }

  /** False once either side has begun to close it: the calls on it go on, new ones go elsewhere. */
  get takesCalls(): boolean {
    return !this.#isRetired && !this.#session.closed && !this.#session.destroyed
  }

  get hasRoom(): boolean {
    const { maxConcurrentStreams = maxCalls } = this.#session.remoteSettings ?? {}
    return this.calls < Math.min(maxCalls, maxConcurrentStreams)
  }

  /** Sends a call when the connection is there, and resolves at its end. Never rejects. */
  async send(request: TransportRequest, handler: TransportHandler): Promise<Sent> {
    this.calls += 1
    clearTimeout(this.#idle)
    try {
      await this.#ready
      if (!this.takesCalls) return 'unprocessed'
      return await this.#exchange(request, handler)
    } catch (error) {
      handler.onResponseError(null, error instanceof Error ? error : new errors.SocketError(String(error)))
      return 'told'
    } finally {
      this.calls -= 1
      if (this.calls === 0) this.#idle = setTimeout(() => this.#session.close(), this.#options.idleMs).unref()
    }
  }

  /** Takes no more calls, and waits for those that run. */
  async close(): Promise<void> {
    this.#session.close()
    await this.closed
  }

  #exchange({ path, method, headers, body }: TransportRequest, handler: TransportHandler): Promise<Sent> {
    const stream = this.#session.request({ ...headers, ':method': method, ':path': path })
    const over = Promise.withResolvers<Sent>()
    let state: 'asked' | 'answered' | 'ended' | 'over' = 'asked'
    let trailers: IncomingHttpHeaders | undefined
    let failure: Error | undefined

    const controller: TransportController = {
      abort: () => {
        if (state === 'over') return
        state = 'over'
        stream.close(NGHTTP2_CANCEL)
        stream.destroy()
        // Perhaps it waited in vain because nobody is there any more.
        this.#ask()
        over.resolve('told')
      },
      pause: () => stream.pause(),
      resume: () => stream.resume(),
    }
    const end = (): void => {
      state = 'over'
      handler.onResponseEnd(controller, trailers ?? {})
      over.resolve('told')
    }

    stream.on('response', ({ ':status': status = 0, ...answered }) => {
      if (state !== 'asked') return
      state = 'answered'
      handler.onResponseStart(controller, status, answered)
      stream.on('data', (chunk: Buffer) => {
        if (state === 'answered') handler.onResponseData(controller, chunk)
      })
    })
    stream.on('trailers', (received) => {
      trailers = received
      if (state === 'ended') end()
    })
    stream.on('end', () => {
      if (state !== 'answered') return
      state = 'ended'
      if (trailers !== undefined) end()
    })
    stream.on('error', (error) => {
      failure = error
    })
    stream.on('close', () => {
      if (state === 'over') return
      const { rstCode } = stream
      if (state === 'ended' && rstCode === NGHTTP2_NO_ERROR) end()
      else if (state === 'asked' && rstCode === NGHTTP2_REFUSED_STREAM) over.resolve('unprocessed')
      else {
        state = 'over'
        handler.onResponseError(controller, failure ?? new errors.SocketError(`reset with HTTP/2 code ${rstCode}`))
        over.resolve('told')
      }
    })
    handler.onRequestStart(controller)
    if (!stream.destroyed) stream.end(body)
    return over.promise
  }

  /** Asks the other side whether it is there; all calls on the connection fail when it does not say so. */
  #ask(): void {
    const session = this.#session
    if (this.#probe !== undefined || session.connecting || session.destroyed) return
    this.#probe = setTimeout(() => {
      session.destroy(new errors.SocketError('the other side does not answer'))
    }, this.#options.pingTimeoutMs).unref()
    session.ping(() => {
      clearTimeout(this.#probe)
      this.#probe = undefined
    })
  }
}
