/**
 * Calls over HTTP/2 to one origin, where many share a connection; without TLS it is spoken at once ("prior knowledge").
 *
 * undici speaks it, too, and was the first choice. But when a server retires a connection (GOAWAY, as every gate does with
 * old ones) undici 8.12 lets all later calls wait until the last stream on it is over, and a stream may last for minutes.
 */
import { errors } from 'undici'
import { Http2Connection } from './http2-connection.ts'
import type { Transport, TransportHandler, TransportRequest } from './transport.ts'

export interface Http2Options {
  /** Scheme, host and port. */
  readonly origin: string
  /** Longest wait for a connection, TLS included. */
  readonly connectTimeoutMs: number
  /** Connections at most; beyond what these take at once, calls wait in them. */
  readonly maxConnections: number
  /** A connection is asked by a PING in this interval whether it is there; default 20,000. */
  readonly pingMs?: number
  /** One that does not answer for so long is given up, with all its calls; default 5,000. */
  readonly pingTimeoutMs?: number
  /** One without calls is kept so long; default 60,000. */
  readonly idleMs?: number
}

export function createHttp2Transport(options: Http2Options): Transport {
  const { origin, connectTimeoutMs, maxConnections, pingMs = 20_000, pingTimeoutMs = 5_000, idleMs = 60_000 } = options
  const connections = new Set<Http2Connection>()

  /** The one with the fewest calls, or a new one when that has no room. */
  function choose(): Http2Connection {
    let best: Http2Connection | undefined
    let usable = 0
    for (const connection of connections) {
      if (!connection.takesCalls) continue
      usable += 1
      if (best === undefined || connection.calls < best.calls) best = connection
    }
    if (best !== undefined && (best.hasRoom || usable >= maxConnections)) return best
    const made = new Http2Connection({ origin, connectTimeoutMs, pingMs, pingTimeoutMs, idleMs })
    connections.add(made)
    void made.closed.then(() => connections.delete(made))
    return made
  }

  /** RFC 9113 §8.7: what proved unprocessed may go out again, which is done once. */
  async function send(request: TransportRequest, handler: TransportHandler): Promise<void> {
    for (let repetitions = 0; repetitions < 2; repetitions += 1) {
      if ((await choose().send(request, handler)) === 'told') return
    }
    handler.onResponseError(null, new errors.SocketError('the other side takes no calls'))
  }

  return {
    dispatch(request, handler) {
      void send(request, handler)
    },
    // Beyond what its connections take at once, calls share them.
    isFull: false,
    async close() {
      await Promise.all([...connections].map((connection) => connection.close()))
    },
  }
}
