/**
 * Calls over HTTP/1.1 to one origin, each with a connection for itself; the one that was used last is used first. Each is an
 * undici Client, which speaks the protocol, keeps its connection alive for the next call and opens another one when it must.
 *
 * undici's own Agent and Pool do the same and take a tenth more of a core for it, a quarter on a busy machine
 * (`node bench/dispatch.ts`): they tell each other of each call's begin and end by events, and look for a free connection.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { buildConnector, Client, type Dispatcher, errors } from 'undici'
import type { Transport, TransportController, TransportHandler, TransportRequest } from './transport.ts'

export interface Http1Options {
  /** Scheme, host and port. */
  readonly origin: string
  /** Longest wait for a connection, TLS included. */
  readonly connectTimeoutMs: number
  /** Further calls wait for one. */
  readonly maxConnections: number
}

export class Http1Transport implements Transport {
  readonly #options: Http1Options
  /** One for all connections: it keeps TLS sessions. */
  readonly #connect: buildConnector.connector
  readonly #clients = new Set<Client>()
  readonly #idle: Client[] = []
  readonly #waiting: Exchange[] = []
  #running = 0
  #isClosed = false

  constructor(options: Http1Options) {
    this.#options = options
    // HTTP/2 is for gRPC; see http2-transport.ts.
    this.#connect = buildConnector({ timeout: options.connectTimeoutMs, noDelay: true, allowH2: false })
  }

  get isFull(): boolean {
    // Where no connection comes about, calls wait as well, but none of them runs.
    return this.#running >= this.#options.maxConnections
  }

  dispatch(request: TransportRequest, handler: TransportHandler): void {
    const exchange = new Exchange(this, request, handler)
    if (this.#isClosed) handler.onResponseError(null, new errors.ClientClosedError())
    else this.#send(exchange)
  }

  /** Takes no more calls, and waits for those that run. Calls that wait for a connection fail. */
  async close(): Promise<void> {
    this.#isClosed = true
    for (const { handler } of this.#waiting.splice(0)) handler.onResponseError(null, new errors.ClientClosedError())
    await Promise.all([...this.#clients].map(closeClient))
  }

  /** A request goes out. */
  begun(): void {
    this.#running += 1
  }

  /** An exchange is over; `client` is as good as before, or not. */
  ended(client: Client, hasBegun: boolean, isGood: boolean): void {
    if (hasBegun) this.#running -= 1
    if (isGood) this.#idle.push(client)
    else this.#drop(client)
    const next = this.#waiting.shift()
    if (next !== undefined) this.#send(next)
  }

  #send(exchange: Exchange): void {
    const client = this.#idle.pop() ?? this.#create()
    if (client === undefined) this.#waiting.push(exchange)
    else exchange.begin(client)
  }

  /** Undefined when there must be no more. */
  #create(): Client | undefined {
    const { origin, maxConnections } = this.#options
    if (this.#clients.size >= maxConnections) return undefined
    const client = new Client(origin, { connect: this.#connect, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 })
    this.#clients.add(client)
    // A call that has it opens another connection; without one it is of no use.
    client.on('disconnect', () => {
      const at = this.#idle.indexOf(client)
      if (at < 0) return
      this.#idle.splice(at, 1)
      this.#drop(client)
    })
    return client
  }

  #drop(client: Client): void {
    this.#clients.delete(client)
    void closeClient(client)
  }
}

/** undici counts it as a failure to close what is closed. */
async function closeClient(client: Client): Promise<void> {
  if (!client.destroyed) await client.close()
}

/** One request on its way: tells its handler of everything, and the transport of its begin and end. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly handler: TransportHandler
  readonly #transport: Http1Transport
  readonly #request: TransportRequest
  #client: Client | undefined
  #hasBegun = false

  constructor(transport: Http1Transport, request: TransportRequest, handler: TransportHandler) {
    this.#transport = transport
    this.#request = request
    this.handler = handler
  }

  begin(client: Client): void {
    this.#client = client
    const { path, method, headers, body } = this.#request
    // With one request at a time on a connection there is nothing to block.
    client.dispatch({ path, method, headers, body, blocking: false }, this)
  }

  onRequestStart(controller: TransportController): void {
    if (!this.#hasBegun) this.#transport.begun()
    this.#hasBegun = true
    this.handler.onRequestStart(controller)
  }

  onResponseStart(controller: TransportController, status: number, headers: IncomingHttpHeaders): void {
    this.handler.onResponseStart(controller, status, headers)
  }

  onResponseData(controller: TransportController, chunk: Buffer): void {
    this.handler.onResponseData(controller, chunk)
  }

  onResponseEnd(controller: TransportController, trailers: IncomingHttpHeaders): void {
    this.#end(true)
    this.handler.onResponseEnd(controller, trailers)
  }

  onResponseError(controller: TransportController | null, error: Error): void {
    this.#end(false)
    this.handler.onResponseError(controller, error)
  }

  #end(isGood: boolean): void {
    const client = this.#client
    this.#client = undefined
    if (client !== undefined) this.#transport.ended(client, this.#hasBegun, isGood)
  }
}
