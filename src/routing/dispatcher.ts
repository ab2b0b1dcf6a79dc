/**
 * Sends one call to one endpoint of its service: pooled keep-alive connections, the endpoint's breaker, the remaining
 * deadline, and a verdict on every way in which a backend can fail. Bodies pass as bytes.
 */
import { type Attributes, context, propagation, SpanKind } from '@opentelemetry/api'
import { Agent, type Dispatcher as Undici } from 'undici'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { EndpointRecord } from '../registry/records.ts'
import { withSpan } from '../telemetry/tracing.ts'
import { type BreakerState, createBreakers, type Verdict } from './breaker.ts'
import type { Credentials } from './credentials.ts'

export interface DispatcherOptions {
  /** Sockets per backend host; further calls wait for one. */
  readonly connectionsPerHost: number
  readonly connectTimeoutMs: number
  /** Longest answer that is accepted. */
  readonly maxResponseBytes: number
  readonly breaker: { readonly failures: number; readonly windowMs: number; readonly resetMs: number }
  readonly credentials: Credentials
  readonly now: () => number
  readonly onBreakerChange: (endpointId: string, state: BreakerState) => void
}

export interface Dispatcher {
  /**
   * Posts the payload and returns what `attempt.read` makes of the whole answer of a 2xx status. Throws BREAKER_OPEN,
   * BACKEND_UNREACHABLE, BACKEND_FAILED (5xx, 429, broken answer), BACKEND_REJECTED (other 4xx),
   * BACKEND_CREDENTIAL_REFUSED, BACKEND_ANSWER_TOO_LARGE, what `read` throws, or the reason that the call's signal was
   * aborted with.
   */
  dispatch<T>(endpoint: EndpointRecord, attempt: Attempt<T>, call: Call): Promise<T>
  /** Breaker of every endpoint that was called since the start. */
  breakers(): BreakerSample[]
  close(): Promise<void>
}

export interface BreakerSample {
  readonly serviceId: string
  readonly endpointId: string
  readonly state: BreakerState
}

export interface Attempt<T> {
  /** Id of the attempt's usage event; the backend gets it as x-tollgate-attempt-id. */
  readonly id: string
  readonly serviceId: string
  readonly payload: Uint8Array
  /** Reads the answer; an answer that it refuses counts against the backend. */
  readonly read: (answer: Uint8Array) => T
}

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { credentials, now } = options
  const agent = new Agent({
    connections: options.connectionsPerHost,
    pipelining: 1,
    connect: { timeout: options.connectTimeoutMs, noDelay: true },
    headersTimeout: 0,
    bodyTimeout: 0,
    maxResponseSize: options.maxResponseBytes,
  })
  const breakers = createBreakers({ ...options.breaker, judge, now, onChange: options.onBreakerChange })
  /** Service of each endpoint that has a breaker. */
  const services = new Map<string, string>()

  async function post<T>(endpoint: EndpointRecord, attempt: Attempt<T>, call: Call): Promise<T> {
    const remainingMs = call.deadlineMs - now()
    const timeoutMs = Math.min(endpoint.timeoutMs ?? remainingMs, remainingMs)
    const credential = await credentials.resolve(endpoint.credentialRef)
    const headers: Record<string, string> = {
      'content-type': 'application/json',
      accept: 'application/json',
      'x-request-id': call.id,
      'x-tollgate-attempt-id': attempt.id,
      'x-request-timeout-ms': String(Math.max(1, Math.floor(timeoutMs))),
    }
    if (credential !== undefined) headers.authorization = `Bearer ${credential}`
    propagation.inject(context.active(), headers)
    const signal =
      timeoutMs < remainingMs ? AbortSignal.any([call.signal, AbortSignal.timeout(timeoutMs)]) : call.signal
    const { origin, path } = target(endpoint.url)
    try {
      const response = await agent.request({ origin, path, method: 'POST', headers, body: attempt.payload, signal })
      return attempt.read(await accept(response))
    } catch (error) {
      throw call.signal.aborted ? callEnded(call.signal) : asBackendError(error, endpoint, options)
    }
  }

  return {
    dispatch(endpoint, attempt, call) {
      services.set(endpoint.id, attempt.serviceId)
      return breakers.run(endpoint.id, () =>
        withSpan('POST', () => post(endpoint, attempt, call), {
          kind: SpanKind.CLIENT,
          attributes: target(endpoint.url).attributes,
        }),
      )
    },
    breakers: () =>
      [...breakers.states()].map(([endpointId, state]) => ({
        serviceId: services.get(endpointId) ?? '',
        endpointId,
        state,
      })),
    async close() {
      breakers.close()
      await agent.close()
    },
  }
}

async function accept(response: Undici.ResponseData): Promise<Uint8Array> {
  const { statusCode } = response
  if (statusCode >= 200 && statusCode < 300) return response.body.bytes()
  // The error body may hold the gate's own credential or another caller's text: it is read off the wire and dropped.
  await response.body.dump({ limit: 65_536 })
  const metadata = { backendStatus: String(statusCode) }
  if (statusCode === 401 || statusCode === 403) {
    throw new TollgateError('BACKEND_CREDENTIAL_REFUSED', "The service's backend refused the gate's own credential.", {
      metadata,
    })
  }
  if (statusCode >= 400 && statusCode < 500 && statusCode !== 429 && statusCode !== 408) {
    throw new TollgateError(
      'BACKEND_REJECTED',
      `The service's backend rejected the request with HTTP status ${statusCode}.`,
      { metadata },
    )
  }
  const retryAfterMs = retryAfter(response.headers['retry-after'])
  throw new TollgateError('BACKEND_FAILED', `The service's backend failed with HTTP status ${statusCode}.`, {
    metadata,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  })
}

function asBackendError(error: unknown, endpoint: EndpointRecord, options: DispatcherOptions): TollgateError {
  if (error instanceof TollgateError) return error
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (error instanceof Error && error.name === 'TimeoutError') {
    return new TollgateError(
      'BACKEND_FAILED',
      `The service's backend did not answer within the endpoint's ${endpoint.timeoutMs} ms.`,
      { cause: error },
    )
  }
  if (code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') {
    return new TollgateError(
      'BACKEND_ANSWER_TOO_LARGE',
      `The service's backend sent an answer of more than ${options.maxResponseBytes} bytes (setting MAX_RESPONSE_BYTES).`,
      { metadata: { maxResponseBytes: String(options.maxResponseBytes) }, cause: error },
    )
  }
  if (unreachable.has(code)) {
    return new TollgateError('BACKEND_UNREACHABLE', "The service's backend cannot be reached.", { cause: error })
  }
  return new TollgateError('BACKEND_FAILED', "The connection to the service's backend broke before it had answered.", {
    cause: error,
  })
}

const unreachable = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

function callEnded(signal: AbortSignal): TollgateError {
  return signal.reason instanceof TollgateError
    ? signal.reason
    : new TollgateError('CANCELLED', 'The caller went away before the answer.', { cause: signal.reason })
}

/** A backend that answers, if only with a refusal, is healthy; a call that its caller ended says nothing. */
function judge(error: unknown): Verdict {
  if (!(error instanceof TollgateError)) return 'failing'
  if (error.reason === 'BACKEND_REJECTED') return 'healthy'
  if (error.reason === 'DEADLINE_EXCEEDED' || error.reason === 'CANCELLED' || error.reason === 'SHUTTING_DOWN') {
    return 'unknown'
  }
  return 'failing'
}

/** Retry-After in seconds or as an HTTP date (RFC 9110 §10.2.3), in milliseconds; undefined when unreadable. */
function retryAfter(value: string | string[] | undefined): number | undefined {
  if (typeof value !== 'string') return undefined
  if (/^\d{1,7}$/.test(value)) return Number(value) * 1000
  const at = Date.parse(value)
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now())
}

interface Target {
  readonly origin: string
  readonly path: string
  readonly attributes: Attributes
}

/** Endpoint URLs are few and immutable: each is parsed once. */
const targets = new Map<string, Target>()

function target(url: string): Target {
  const known = targets.get(url)
  if (known !== undefined) return known
  if (targets.size >= 10_000) targets.clear()
  const { origin, pathname, search, hostname, port, protocol } = new URL(url)
  const parsed = {
    origin,
    path: pathname + search,
    attributes: {
      'http.request.method': 'POST',
      'server.address': hostname,
      'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
      'url.full': origin + pathname,
    },
  }
  targets.set(url, parsed)
  return parsed
}
