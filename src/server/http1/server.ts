import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import type { Exchange } from '../exchange.ts'
import { Http1Exchange } from '../http1-exchange.ts'

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

/** @param isLeaving whether the next answer on a connection is to be its last. */
export function createHttp1Server(
  options: Http1Options,
  isLeaving: (socket: Socket) => boolean,
  handle: (exchange: Exchange) => void,
): Http1Server {
  const node = nodeServer(options, isLeaving, handle)
  return {
    // Without it Node's server, which does not listen itself, never checks its header timeouts.
    start: () => void node.emit('listening'),
    serve: (socket) => void node.emit('connection', socket),
    closeIdle() {
      node.close()
      node.closeIdleConnections()
    },
    close: () => void node.close(),
  }
}

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
