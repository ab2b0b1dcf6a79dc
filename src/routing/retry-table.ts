/**
 * What may go wrong with an attempt, and whether the call may be tried again. The table is printed in docs/routing.md;
 * a test walks it.
 *
 * A POST to a model is not idempotent by itself (RFC 9110 §9.2.2): what was computed costs, whether its answer arrived or
 * not. It has no other effect, though, so a second attempt that follows a first one without an answer cannot do anything
 * twice for the caller, who pays for what was delivered. That is why the field's own clients retry connection errors, 408,
 * 429 and 5xx of these very requests (the SDKs of OpenAI and Anthropic, twice by default), and Envoy's `retry_on` has
 * `connect-failure`, `reset` and `5xx`. What is at stake is computing for nothing: a backend that is only slow would do all
 * of it twice, so timeouts are not repeated where they happened, and a budget bounds the rest.
 */
import { type Reason, TollgateError } from '../errors.ts'

/** Where the next attempt may go: anywhere (another endpoint is preferred), to another endpoint only, or nowhere. */
export type RetryRule = 'any' | 'other' | 'never'

export interface RetryRow {
  /** Whether bytes of the request may have reached the backend. */
  readonly sent: boolean
  /** For a whole answer; "never" where it cannot happen to one. */
  readonly unary: RetryRule
  /** For a stream of which the caller has seen nothing. Afterwards nothing is ever tried again. */
  readonly stream: RetryRule
  readonly meaning: string
  readonly why: string
}

export const retryTable = {
  no_connection: {
    sent: false,
    unary: 'any',
    stream: 'any',
    meaning: 'refused, unresolved or reset before the request was begun',
    why: 'nothing was accepted',
  },
  connect_timeout: {
    sent: false,
    unary: 'any',
    stream: 'any',
    meaning: 'no connection within the connect deadline',
    why: 'nothing was accepted',
  },
  no_free_connection: {
    sent: false,
    unary: 'other',
    stream: 'other',
    meaning: "all BACKEND_CONNECTIONS_PER_HOST connections were in use for the whole of the endpoint's timeout",
    why: 'nothing was sent; another endpoint may have a free one',
  },
  credential_missing: {
    sent: false,
    unary: 'other',
    stream: 'other',
    meaning: "the gate has no credential for this endpoint (the operator's error)",
    why: 'nothing was sent; another endpoint may have its credential',
  },
  breaker_open: {
    sent: false,
    unary: 'other',
    stream: 'other',
    meaning: "the endpoint's breaker refuses",
    why: 'no attempt was made: the next endpoint is asked at once',
  },
  reset: {
    sent: true,
    unary: 'any',
    stream: 'any',
    meaning: 'the connection broke before the headers of an answer',
    why: 'mostly a kept connection that the backend was closing, or a backend that died; no answer came',
  },
  cut: {
    sent: true,
    unary: 'any',
    stream: 'any',
    meaning: 'the connection or the stream ended within the answer',
    why: 'nothing of it was delivered',
  },
  headers_timeout: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: 'no headers within the deadline for them',
    why: 'a slow endpoint would be slow again, and compute everything twice',
  },
  first_token_timeout: {
    sent: true,
    unary: 'never',
    stream: 'other',
    meaning: 'no output of a stream within the deadline for it',
    why: 'as above',
  },
  idle_timeout: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: 'a silence within the answer longer than the deadline for it',
    why: 'as above',
  },
  total_timeout: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: "no whole answer within the endpoint's timeout",
    why: 'as above',
  },
  busy: {
    sent: true,
    unary: 'any',
    stream: 'any',
    meaning: 'status 429',
    why: 'refused before it was computed; the endpoint rests for its Retry-After',
  },
  unavailable: {
    sent: true,
    unary: 'any',
    stream: 'any',
    meaning: 'status 503 or 529',
    why: 'refused before it was computed; the endpoint rests for its Retry-After',
  },
  server_error: {
    sent: true,
    unary: 'any',
    stream: 'any',
    meaning: 'status 408, 500 or 502',
    why: 'no answer was delivered',
  },
  gateway_timeout: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: 'status 504',
    why: 'a timeout behind the endpoint: as its own timeouts',
  },
  unusable_status: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: 'a redirect, which is never followed, or any other status that is no answer',
    why: 'the endpoint is set up wrongly and would say the same again',
  },
  credential_refused: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: "status 401 or 403: the gate's own credential (the operator's error)",
    why: 'the same credential would be refused again; another endpoint may have its own',
  },
  invalid_answer: {
    sent: true,
    unary: 'other',
    stream: 'other',
    meaning: 'status 2xx with a page of HTML, nothing, or what cannot be read',
    why: 'the endpoint is not what it should be; nothing was delivered',
  },
  rejected: {
    sent: true,
    unary: 'never',
    stream: 'never',
    meaning: 'any other status 4xx',
    why: 'the request itself is refused',
  },
  answer_too_large: {
    sent: true,
    unary: 'never',
    stream: 'never',
    meaning: 'an answer beyond MAX_RESPONSE_BYTES',
    why: 'the next one would be as large',
  },
  call_ended: {
    sent: true,
    unary: 'never',
    stream: 'never',
    meaning: "the caller left, its deadline passed, its key ended, or the gate's drain window",
    why: 'nobody waits for an answer',
  },
  internal: {
    sent: true,
    unary: 'never',
    stream: 'never',
    meaning: 'the gate itself failed',
    why: 'it would fail again',
  },
} as const satisfies Readonly<Record<string, RetryRow>>

/** What went wrong with an attempt. */
export type Failure = keyof typeof retryTable

/** What errors mean that do not say so themselves (in their metadata's `failure`), as those of the readers of answers. */
const byReason: Readonly<Partial<Record<Reason, Failure>>> = {
  BACKEND_UNREACHABLE: 'no_connection',
  BACKEND_FAILED: 'server_error',
  BACKEND_TIMEOUT: 'total_timeout',
  BACKEND_REJECTED: 'rejected',
  BACKEND_CREDENTIAL_REFUSED: 'credential_refused',
  BACKEND_ANSWER_INVALID: 'invalid_answer',
  BACKEND_ANSWER_TOO_LARGE: 'answer_too_large',
  BREAKER_OPEN: 'breaker_open',
  DEADLINE_EXCEEDED: 'call_ended',
  CANCELLED: 'call_ended',
  SHUTTING_DOWN: 'call_ended',
  // Of the caller's own credential: by it a running call ends (Service.on_revoke).
  CREDENTIAL_REVOKED: 'call_ended',
  CREDENTIAL_EXPIRED: 'call_ended',
  CONSUMER_INACTIVE: 'call_ended',
}

/** The same for error objects within an answer, by what their readers say of them (`BackendErrorKind`). */
const bySaid: Readonly<Record<string, Failure>> = { cut: 'cut', rate_limit: 'busy', overloaded: 'unavailable' }

/** The kind of failure that an attempt's error is. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof TollgateError)) return 'internal'
  const { failure, backendError = '' } = error.metadata
  if (failure !== undefined && isFailure(failure)) return failure
  const said = Object.hasOwn(bySaid, backendError) ? bySaid[backendError] : undefined
  return said ?? byReason[error.reason] ?? 'internal'
}

function isFailure(text: string): text is Failure {
  return Object.hasOwn(retryTable, text)
}
