import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import type { Exchange } from '../exchange.ts'
import { Http1Exchange } from '../http1-exchange.ts'
import { CommonLines } from './answer-text.ts'
import { type ConnectionOwner, restMs, SimpleConnection } from './simple-connection.ts'

export interface Http1Options {
  /** Time for the headers of a request. */
  readonly headersTimeoutMs: number
  /** Time for its body. */
  readonly bodyTimeoutMs: number
  /** How long an idle connection is kept. */
  readonly keepAliveMs: number
  readonly log: Logger
}

/** The connections of a listener that speak HTTP/1.1, in clear or over TLS. */
export interface Http1Server {
  /** Begins what it does by the clock, until it is closed. */
  start(): void
  /** Serves a connection whose first bytes are still to be read. */
  serve(socket: Socket): void
  /** Closes connections without a request; a request that is on its way there is lost. */
  closeIdle(): void
  /** Connections are their owner's to close. */
  close(): void
}

/**
 * Simple requests are read and answered on their bare sockets, which takes about half of the CPU that Node's server takes for
 * them; the first request of a connection that is not simple goes to Node's server with all that follows it.
 *
 * @param isLeaving whether the next answer on a connection is to be its last.
 */
export function createHttp1Server(
  options: Http1Options,
  isLeaving: (socket: Socket) => boolean,
  handle: (exchange: Exchange) => void,
): Http1Server {
  const node = nodeServer(options, isLeaving, handle)
  const connections = new Set<SimpleConnection>()
  let clock: NodeJS.Timeout | undefined
  const owner: ConnectionOwner = {
    lines: new CommonLines(options.keepAliveMs),
    isLeaving,
    handle,
    handOver(connection) {
      connections.delete(connection)
      node.emit('connection', connection.socket)
    },
    broken: (socket) => void node.emit('clientError', new Error('the connection ended within a request'), socket),
    closed: (connection) => void connections.delete(connection),
  }
  const look = (): void => {
    const nowMs = performance.now()
    for (const connection of connections) connection.look(nowMs, options.keepAliveMs + keepMarginMs)
  }
  const close = (): void => {
    node.close()
    clearInterval(clock)
  }
  return {
    start() {
      // Without it Node's server, which does not listen itself, never checks its header timeouts.
      node.emit('listening')
      clock = setInterval(look, restMs).unref()
    },
    serve: (socket) => void connections.add(new SimpleConnection(socket, owner)),
    closeIdle() {
      node.close()
      node.closeIdleConnections()
      for (const { isIdle, socket } of connections) if (isIdle) socket.destroy()
    },
    close,
  }
}

/** So much longer than it says an idle connection is kept, as Node does: a request may be on its way. */
const keepMarginMs = 1_000

function nodeServer(
  options: Http1Options,
  isLeaving: (socket: Socket) => boolean,
  handle: (exchange: Exchange) => void,
): Server {
  const server = createServer(
    {
      headersTimeout: options.headersTimeoutMs,
      requestTimeout: options.headersTimeoutMs + options.bodyTimeoutMs,
      connectionsCheckingInterval: Math.min(options.headersTimeoutMs, 5000),
      keepAliveTimeout: options.keepAliveMs,
    },
    (request, response) => {
      if (isLeaving(request.socket)) response.setHeader('connection', 'close')
      handle(new Http1Exchange(request, response))
    },
  )
  server.on('clientError', (err: NodeJS.ErrnoException, socket) => {
    options.log.debug({ err }, 'request is not HTTP/1.1')
    const status = clientErrors[err.code ?? ''] ?? '400 Bad Request'
    if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\n\r\n`)
    else socket.destroy()
  })
  return server
}

/** What callers are told by Node's code; everything else is a request that cannot be parsed. */
const clientErrors: Readonly<Record<string, string>> = {
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
}
