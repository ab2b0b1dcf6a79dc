import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import type { Exchange } from '../exchange.ts'
import { Http2Connection } from './connection.ts'

export interface Http2Options {
  readonly maxStreamsPerConnection: number
  /** Time that the calls of a connection get when it was asked to close for its age. */
  readonly ageGraceMs: number
  /** Interval of pings. */
  readonly keepAliveMs: number
  readonly log: Logger
}

/** The connections of a listener that speak HTTP/2, in clear or over TLS. */
export interface Http2Server {
  /** Serves a connection whose first bytes are still to be read, and asks it to close when it is so old. */
  serve(socket: Socket, maxAgeMs: number): void
  /** Asks every connection to close, those that come later too. */
  drain(): void
}

/** `handle` is told of each request. To cut connections is their owner's part. */
export function createHttp2Server(options: Http2Options, handle: (exchange: Exchange) => void): Http2Server {
  const connections = new Set<Http2Connection>()
  const connectionOptions = { ...options, handle }
  let draining = false
  return {
    serve(socket, maxAgeMs) {
      const connection = new Http2Connection(socket, connectionOptions)
      connections.add(connection)
      const forget = follow(connection, maxAgeMs, options)
      socket.once('close', () => {
        forget()
        connections.delete(connection)
      })
      if (draining) connection.drain()
    },
    drain() {
      draining = true
      for (const connection of connections) connection.drain()
    },
  }
}

/** Asks a connection now and then whether its peer is there, and at its age to close; until what it returns is called. */
function follow(connection: Http2Connection, maxAgeMs: number, options: Http2Options): () => void {
  const pings = setInterval(() => {
    if (!connection.ping()) connection.destroy()
  }, options.keepAliveMs)
  let grace: NodeJS.Timeout | undefined
  const age = setTimeout(() => {
    connection.drain()
    grace = setTimeout(() => connection.destroy(), options.ageGraceMs)
  }, maxAgeMs)
  return () => {
    clearInterval(pings)
    clearTimeout(age)
    clearTimeout(grace)
  }
}
