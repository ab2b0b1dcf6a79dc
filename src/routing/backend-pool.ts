import { SpanKind, type SpanOptions } from '@opentelemetry/api'
import { Agent } from 'undici'
import { createHttp2Transport, type Http2Transport } from './http2-transport.ts'
import type { Transport } from './transport.ts'

export interface BackendPoolOptions {
  /** Sockets per backend host; further calls wait for one. */
  readonly connectionsPerHost: number
  /** For endpoints without a connect deadline of their own. */
  readonly connectTimeoutMs: number
}

/** Pooled keep-alive connections to backends. */
export interface BackendPool {
  /** The connections for a connect deadline; undefined means the default. */
  agent(connectTimeoutMs: number | undefined): Transport
  /** The same over HTTP/2 to one origin, where calls share connections. */
  http2(origin: string, connectTimeoutMs: number | undefined): Transport
  /** Whether each connection that {@link agent} may have to an origin is in use, so that further calls wait. */
  isFull(origin: string, connectTimeoutMs: number | undefined): boolean
  /** A URL in parts. */
  target(url: string): Target
  readonly connectTimeoutMs: number
  /** Waits for the calls that run. Idempotent. */
  close(): Promise<void>
}

export interface Target {
  readonly origin: string
  readonly path: string
  /** Of a call's span. */
  readonly span: SpanOptions
}

/** URLs of endpoints are few; one that names a model in its path is one of many. */
const maxTargets = 10_000

/**
 * undici's connect deadline belongs to an agent, so there is one for each deadline that endpoints have; they are few. All
 * other deadlines are kept by the call itself, to the millisecond, where undici's timers tick once a second.
 */
export function createBackendPool(options: BackendPoolOptions): BackendPool {
  const agents = new Map<number, Agent>()
  const http2s = new Map<string, Http2Transport>()
  const targets = new Map<string, Target>()

  function agent(connectTimeoutMs = options.connectTimeoutMs): Agent {
    let known = agents.get(connectTimeoutMs)
    if (known === undefined) {
      known = new Agent({
        connections: options.connectionsPerHost,
        pipelining: 1,
        connect: { timeout: connectTimeoutMs, noDelay: true },
        headersTimeout: 0,
        bodyTimeout: 0,
      })
      agents.set(connectTimeoutMs, known)
    }
    return known
  }

  return {
    agent,
    http2(origin, connectTimeoutMs = options.connectTimeoutMs) {
      const key = `${connectTimeoutMs} ${origin}`
      let known = http2s.get(key)
      if (known === undefined) {
        known = createHttp2Transport({ origin, connectTimeoutMs, maxConnections: options.connectionsPerHost })
        http2s.set(key, known)
      }
      return known
    },
    isFull(origin, connectTimeoutMs) {
      // Where no connection comes about, calls wait as well, but none of them runs.
      const { running = 0 } = agent(connectTimeoutMs).stats[origin] ?? {}
      return running >= options.connectionsPerHost
    },
    target(url) {
      let known = targets.get(url)
      if (known === undefined) {
        if (targets.size >= maxTargets) targets.clear()
        known = parse(url)
        targets.set(url, known)
      }
      return known
    },
    connectTimeoutMs: options.connectTimeoutMs,
    async close() {
      const open = [...agents.values(), ...http2s.values()]
      agents.clear()
      http2s.clear()
      await Promise.all(open.map((one) => one.close()))
    },
  }
}

function parse(url: string): Target {
  const { origin, pathname, search, hostname, port, protocol } = new URL(url)
  return {
    origin,
    path: pathname + search,
    span: {
      kind: SpanKind.CLIENT,
      attributes: {
        'http.request.method': 'POST',
        'server.address': hostname,
        'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
        'url.full': origin + pathname,
      },
    },
  }
}
