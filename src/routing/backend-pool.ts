import { SpanKind, type SpanOptions } from '@opentelemetry/api'
import { Http1Transport } from './http1-transport.ts'
import { createHttp2Transport } from './http2-transport.ts'
import type { Transport } from './transport.ts'

export interface BackendPoolOptions {
  /** Sockets per backend host; further calls wait for one. */
  readonly connectionsPerHost: number
  /** For endpoints without a connect deadline of their own. */
  readonly connectTimeoutMs: number
}

/** Pooled keep-alive connections to backends. */
export interface BackendPool {
  /**
   * The connections to an origin with a connect deadline, undefined for the default: over HTTP/1.1, where each call has one for
   * itself, or over HTTP/2, where calls share them.
   */
  transport(version: 'http1' | 'http2', origin: string, connectTimeoutMs: number | undefined): Transport
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

/** By connect deadline, then by origin. Both are few; one without calls keeps no connection. */
type Transports = Map<number, Map<string, Transport>>

/** The connect deadline belongs to the connections. All others are kept by the call itself. */
export function createBackendPool({ connectionsPerHost, connectTimeoutMs }: BackendPoolOptions): BackendPool {
  const http1s: Transports = new Map()
  const http2s: Transports = new Map()
  const targets = new Map<string, Target>()

  return {
    transport(version, origin, deadlineMs = connectTimeoutMs) {
      const transports = version === 'http1' ? http1s : http2s
      const byOrigin = transports.get(deadlineMs) ?? new Map<string, Transport>()
      let known = byOrigin.get(origin)
      if (known === undefined) {
        const options = { origin, connectTimeoutMs: deadlineMs, maxConnections: connectionsPerHost }
        known = version === 'http1' ? new Http1Transport(options) : createHttp2Transport(options)
        transports.set(deadlineMs, byOrigin.set(origin, known))
      }
      return known
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
    connectTimeoutMs,
    async close() {
      const open = [...http1s.values(), ...http2s.values()].flatMap((byOrigin) => [...byOrigin.values()])
      await Promise.all(open.map((transport) => transport.close()))
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
