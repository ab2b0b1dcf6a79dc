import { cors } from '@connectrpc/connect'
import type { Exchange } from './exchange.ts'

/**
 * Lets scripts of the configured origins call over gRPC-Web, Connect and plain HTTP. Origins are compared exactly
 * (scheme, host, port).
 */
export function createCors(origins: readonly string[]): Cors {
  const allowed: ReadonlySet<string> = new Set(origins)
  return {
    apply(exchange) {
      const { origin } = exchange.headers
      const preflight = exchange.method === 'OPTIONS' && exchange.headers['access-control-request-method'] !== undefined
      if (origin === undefined) return preflight ? 'refused' : 'pass'
      exchange.setHeader('vary', 'origin')
      if (!allowed.has(origin)) return preflight ? 'refused' : 'pass'
      exchange.setHeader('access-control-allow-origin', origin)
      if (!preflight) {
        exchange.setHeader('access-control-expose-headers', exposedHeaders)
        return 'pass'
      }
      exchange.setHeader('access-control-allow-methods', allowedMethods)
      exchange.setHeader('access-control-allow-headers', allowedHeaders)
      exchange.setHeader('access-control-max-age', String(preflightMaxAgeS))
      return 'preflight'
    },
  }
}

export interface Cors {
  /**
   * Sets what a browser must see. `preflight`: answer 204 with these headers; `refused`: a preflight from elsewhere,
   * answer 403; `pass`: go on with the request, the browser enforces the rest.
   */
  apply(exchange: Exchange): 'pass' | 'preflight' | 'refused'
}

/** What the official SDK of the OpenAI API sends from a browser, `dangerouslyAllowBrowser` set. */
const openAiHeaders = [
  'openai-organization',
  'openai-project',
  ...[
    'lang',
    'package-version',
    'os',
    'arch',
    'runtime',
    'runtime-version',
    'retry-count',
    'timeout',
    'helper-method',
  ].map((name) => `x-stainless-${name}`),
]

/** Those of gRPC-Web and Connect, and those of HTTP bindings. */
const allowedMethods = [...new Set([...cors.allowedMethods, 'PUT', 'PATCH', 'DELETE'])].join(', ')

const allowedHeaders = [
  ...cors.allowedHeaders,
  ...openAiHeaders,
  'authorization',
  'x-api-key',
  'idempotency-key',
  'x-request-timeout-ms',
  'traceparent',
  'tracestate',
].join(', ')

const exposedHeaders = [
  ...cors.exposedHeaders,
  'x-request-id',
  'retry-after',
  'x-ratelimit-limit',
  'x-ratelimit-remaining',
  'x-ratelimit-reset',
  'retry-after-ms',
  'x-should-retry',
  'x-ratelimit-limit-requests',
  'x-ratelimit-remaining-requests',
  'x-ratelimit-reset-requests',
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-tokens',
  'idempotent-replayed',
  'x-tollgate-cache',
  'deprecation',
  'sunset',
  'x-tollgate-successor',
  'openai-processing-ms',
  'x-tollgate-cost-nanos',
  'x-tollgate-currency',
  'x-tollgate-price-version',
].join(', ')

/** Two hours: the longest that Chromium honours. */
const preflightMaxAgeS = 7200
