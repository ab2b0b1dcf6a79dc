/** What can go wrong between the gate and a backend, in the one error vocabulary. No text of a backend is repeated. */
import { type Reason, TollgateError, type TollgateErrorInit } from '../errors.ts'
import { statusError } from '../providers/failures.ts'
import { parseRetryAfter } from './retry-policy.ts'
import type { Failure } from './retry-table.ts'

/** The deadlines of an attempt, by the failure that passing one is. */
export type TimeoutFailure = Extract<Failure, `${string}_timeout`>

const timeoutTexts: Readonly<Record<Exclude<TimeoutFailure, 'gateway_timeout'>, (ms: number) => string>> = {
  connect_timeout: (ms) => `took no connection within ${ms} ms (the endpoint's connect_timeout)`,
  headers_timeout: (ms) => `began no answer within ${ms} ms (the endpoint's headers_timeout)`,
  first_token_timeout: (ms) => `sent no output within ${ms} ms (the endpoint's first_token_timeout)`,
  idle_timeout: (ms) => `fell silent for ${ms} ms within its answer (the endpoint's idle_timeout)`,
  total_timeout: (ms) => `did not answer within ${ms} ms (the endpoint's timeout)`,
}

/** BACKEND_TIMEOUT: a deadline of the endpoint passed, never the caller's own. */
export function timedOut(failure: keyof typeof timeoutTexts, ms: number): TollgateError {
  return backendError('BACKEND_TIMEOUT', failure, timeoutTexts[failure](ms), { metadata: { timeoutMs: String(ms) } })
}

/** The connection failed: BACKEND_UNREACHABLE before anything was sent, BACKEND_FAILED afterwards. */
export function connectionFailed(failure: 'no_connection' | 'reset' | 'cut', cause: unknown): TollgateError {
  return failure === 'no_connection'
    ? backendError('BACKEND_UNREACHABLE', failure, 'cannot be reached', { cause })
    : backendError(
        'BACKEND_FAILED',
        failure,
        failure === 'reset'
          ? 'closed the connection before it had answered'
          : 'closed the connection within its answer',
        { cause },
      )
}

/** BACKEND_UNREACHABLE: all of the gate's connections to the backend were in use for the endpoint's `timeout`. */
export function noFreeConnection(ms: number): TollgateError {
  const what = `had no free connection within ${ms} ms (the endpoint's timeout; setting BACKEND_CONNECTIONS_PER_HOST)`
  return backendError('BACKEND_UNREACHABLE', 'no_free_connection', what, { metadata: { timeoutMs: String(ms) } })
}

/** BACKEND_ANSWER_TOO_LARGE. */
export function answerTooLarge(maxBytes: number): TollgateError {
  const what = `sent an answer of more than ${maxBytes} bytes (setting MAX_RESPONSE_BYTES)`
  return backendError('BACKEND_ANSWER_TOO_LARGE', 'answer_too_large', what, {
    metadata: { maxResponseBytes: String(maxBytes) },
  })
}

/**
 * The error of an answer whose status is none of success. Its body is only searched for known codes; `backendError` in the
 * metadata says what they mean, for rules that ask.
 */
export function statusFailed(
  status: number,
  retryAfter: string | readonly string[] | undefined,
  body: Uint8Array,
  nowMs: number,
): TollgateError {
  const { metadata: said } = statusError(status, body)
  const failure = failureOfStatus(status, said.backendError ?? '')
  const metadata = { ...said, backendStatus: String(status) }
  return answerFailed(failure, `HTTP status ${status}`, metadata, parseRetryAfter(retryAfter, nowMs))
}

/** The error of an answer that says itself that it is none. `status` is what it says, as people read it. */
export function answerFailed(
  failure: Failure,
  status: string,
  metadata: Readonly<Record<string, string>>,
  retryAfterMs: number | undefined,
): TollgateError {
  switch (failure) {
    case 'credential_refused':
      return backendError('BACKEND_CREDENTIAL_REFUSED', failure, "refused the gate's own credential", { metadata })
    case 'rejected':
      return backendError('BACKEND_REJECTED', failure, `rejected the request with ${status}`, { metadata })
    case 'invalid_answer':
      return backendError('BACKEND_ANSWER_INVALID', failure, `had no valid answer: ${status}`, { metadata })
    case 'answer_too_large':
      return backendError('BACKEND_ANSWER_TOO_LARGE', failure, `had too large an answer: ${status}`, { metadata })
    default:
      return backendError('BACKEND_FAILED', failure, `failed with ${status}`, {
        metadata,
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      })
  }
}

function failureOfStatus(status: number, said: string): Failure {
  if (status === 429) return 'busy'
  if (status === 503 || status === 529) return 'unavailable'
  if (status === 408 || status === 500 || status === 502) return 'server_error'
  if (status === 504) return 'gateway_timeout'
  if (status === 401) return 'credential_refused'
  if (status < 400 || status >= 500) return 'unusable_status'
  // Gemini says 400 to a wrong key, and some say 403 to what the request asks for.
  if (status === 403) return said === 'content_filter' || said === 'context_length' ? 'rejected' : 'credential_refused'
  return said === 'credential' ? 'credential_refused' : 'rejected'
}

/** An error of the vocabulary as it is; anything else is a failure of the gate: INTERNAL. */
export function asTollgateError(error: unknown): TollgateError {
  return error instanceof TollgateError
    ? error
    : new TollgateError('INTERNAL', 'The call failed inside the gate.', { cause: error })
}

function backendError(reason: Reason, failure: Failure, what: string, init: TollgateErrorInit): TollgateError {
  return new TollgateError(reason, `The service's backend ${what}.`, {
    ...init,
    metadata: { failure, ...init.metadata },
  })
}
