import { type Reason, reasons, type TollgateError } from '../../errors.ts'
import type { BackendErrorKind } from '../../providers/failures.ts'
import { boundedText, messageMaxBytes } from '../connect-error.ts'

/**
 * What callers of the OpenAI API get for each reason. Where OpenAI has its own status and code for something, they are
 * taken; else the status is that of the reason, and the code is its name in lower case.
 *
 * The official SDKs raise by status (400 BadRequestError, 401 AuthenticationError, 403 PermissionDeniedError, 404
 * NotFoundError, 409 ConflictError, 422 UnprocessableEntityError, 429 RateLimitError, 5xx InternalServerError) and, left
 * alone, send again after 408, 409, 429 and 5xx. `x-should-retry` overrules that, so every error says it.
 */
export const errorTable = {
  INVALID_ARGUMENT: { status: 400, type: 'invalid_request_error', code: 'invalid_value' },
  MESSAGE_TOO_LARGE: { status: 413, type: 'invalid_request_error', code: 'request_too_large' },
  CREDENTIAL_MISSING: { status: 401, type: 'invalid_request_error', code: 'invalid_api_key' },
  CREDENTIAL_INVALID: { status: 401, type: 'invalid_request_error', code: 'invalid_api_key' },
  CREDENTIAL_EXPIRED: { status: 401, type: 'invalid_request_error', code: 'invalid_api_key' },
  CREDENTIAL_REVOKED: { status: 401, type: 'invalid_request_error', code: 'invalid_api_key' },
  CREDENTIAL_CHECK_BUSY: { status: 429, type: 'rate_limit_error', code: 'credential_check_busy' },
  TOKEN_MALFORMED: { status: 401, type: 'invalid_request_error', code: 'token_malformed' },
  TOKEN_UNSIGNED: { status: 401, type: 'invalid_request_error', code: 'token_unsigned' },
  TOKEN_ALGORITHM: { status: 401, type: 'invalid_request_error', code: 'token_algorithm' },
  TOKEN_ISSUER: { status: 401, type: 'invalid_request_error', code: 'token_issuer' },
  TOKEN_KEY_UNKNOWN: { status: 401, type: 'invalid_request_error', code: 'token_key_unknown' },
  TOKEN_SIGNATURE: { status: 401, type: 'invalid_request_error', code: 'token_signature' },
  TOKEN_EXPIRED: { status: 401, type: 'invalid_request_error', code: 'token_expired' },
  TOKEN_NOT_YET_VALID: { status: 401, type: 'invalid_request_error', code: 'token_not_yet_valid' },
  TOKEN_AUDIENCE: { status: 401, type: 'invalid_request_error', code: 'token_audience' },
  TOKEN_SUBJECT: { status: 401, type: 'invalid_request_error', code: 'token_subject' },
  TOKEN_KEYS_UNAVAILABLE: { status: 503, type: 'server_error', code: 'token_keys_unavailable' },
  TOKEN_CONSUMER: { status: 403, type: 'permission_error', code: 'token_consumer' },
  CERTIFICATE_IDENTITY: { status: 401, type: 'invalid_request_error', code: 'certificate_identity' },
  CERTIFICATE_EXPIRED: { status: 401, type: 'invalid_request_error', code: 'certificate_expired' },
  USER_UNKNOWN: { status: 403, type: 'permission_error', code: 'user_unknown' },
  USER_INACTIVE: { status: 403, type: 'permission_error', code: 'user_inactive' },
  CREDENTIAL_FAILURES: { status: 429, type: 'rate_limit_error', code: 'credential_failures' },
  PERMISSION_MISSING: { status: 403, type: 'permission_error', code: 'permission_missing' },
  CONSUMER_MISMATCH: { status: 403, type: 'permission_error', code: 'consumer_mismatch' },
  ORGANIZATION_MISMATCH: { status: 403, type: 'permission_error', code: 'organization_mismatch' },
  GRANT_EXCEEDED: { status: 403, type: 'permission_error', code: 'grant_exceeded' },
  ORGANIZATION_INACTIVE: { status: 403, type: 'permission_error', code: 'organization_inactive' },
  PROJECT_INACTIVE: { status: 403, type: 'permission_error', code: 'project_inactive' },
  CONSUMER_INACTIVE: { status: 403, type: 'permission_error', code: 'consumer_inactive' },
  KEY_SCOPE_MISSING: { status: 403, type: 'permission_error', code: 'key_scope_missing' },
  KEY_SCOPE_EXCEEDED: { status: 403, type: 'permission_error', code: 'key_scope_exceeded' },
  POLICY_DENIED: { status: 403, type: 'permission_error', code: 'policy_denied' },
  RPC_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'unknown_url' },
  METHOD_NOT_ALLOWED: { status: 405, type: 'invalid_request_error', code: 'method_not_allowed' },
  CONTENT_TYPE_UNSUPPORTED: { status: 415, type: 'invalid_request_error', code: 'content_type_unsupported' },
  SERVICE_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'model_not_found', param: 'model' },
  SERVICE_INACTIVE: { status: 404, type: 'invalid_request_error', code: 'model_not_found', param: 'model' },
  SERVICE_DOCUMENT_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'service_document_not_found' },
  SERVICE_STATUS_CONFLICT: { status: 409, type: 'invalid_request_error', code: 'service_status_conflict' },
  SERVICE_OUTSIDE: { status: 409, type: 'invalid_request_error', code: 'service_outside' },
  CONSUMER_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'consumer_not_found' },
  ORGANIZATION_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'organization_not_found' },
  PROJECT_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'project_not_found' },
  USER_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'user_not_found' },
  KEY_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'key_not_found' },
  KEY_INACTIVE: { status: 409, type: 'invalid_request_error', code: 'key_inactive' },
  POLICY_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'policy_not_found' },
  LIMIT_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'limit_not_found' },
  USAGE_RECORD_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'usage_record_not_found' },
  USAGE_RECORD_REVERSED: { status: 409, type: 'invalid_request_error', code: 'usage_record_reversed' },
  EVENT_SINK_NOT_FOUND: { status: 404, type: 'invalid_request_error', code: 'event_sink_not_found' },
  RESOURCE_VERSION_TOO_OLD: { status: 410, type: 'invalid_request_error', code: 'resource_version_too_old' },
  RESOURCE_VERSION_UNKNOWN: { status: 400, type: 'invalid_request_error', code: 'resource_version_unknown' },
  WATCH_TOO_SLOW: { status: 429, type: 'rate_limit_error', code: 'watch_too_slow' },
  WATCHERS_EXHAUSTED: { status: 429, type: 'rate_limit_error', code: 'watchers_exhausted' },
  ALREADY_EXISTS: { status: 409, type: 'invalid_request_error', code: 'already_exists' },
  STATUS_FINAL: { status: 409, type: 'invalid_request_error', code: 'status_final' },
  ETAG_MISMATCH: { status: 409, type: 'invalid_request_error', code: 'etag_mismatch' },
  RATE_LIMITED: { status: 429, type: 'rate_limit_error', code: 'rate_limit_exceeded' },
  QUOTA_EXCEEDED: { status: 429, type: 'insufficient_quota', code: 'insufficient_quota' },
  PRICE_MISSING: { status: 409, type: 'invalid_request_error', code: 'price_missing' },
  IDEMPOTENCY_KEY_REUSED: { status: 422, type: 'invalid_request_error', code: 'idempotency_key_reused' },
  IDEMPOTENT_ANSWER_NOT_KEPT: { status: 409, type: 'invalid_request_error', code: 'idempotent_answer_not_kept' },
  POLICY_UNAVAILABLE: { status: 503, type: 'server_error', code: 'policy_unavailable' },
  LIMITS_UNAVAILABLE: { status: 503, type: 'server_error', code: 'limits_unavailable' },
  STORAGE_UNAVAILABLE: { status: 503, type: 'server_error', code: 'storage_unavailable' },
  BREAKER_OPEN: { status: 503, type: 'server_error', code: 'breaker_open' },
  BACKEND_UNREACHABLE: { status: 502, type: 'server_error', code: 'backend_unreachable' },
  BACKEND_FAILED: { status: 502, type: 'server_error', code: 'backend_failed' },
  BACKEND_TIMEOUT: { status: 504, type: 'server_error', code: 'backend_timeout' },
  BACKEND_REJECTED: { status: 502, type: 'server_error', code: 'backend_rejected' },
  BACKEND_CREDENTIAL_REFUSED: { status: 502, type: 'server_error', code: 'backend_credential_refused' },
  BACKEND_ANSWER_INVALID: { status: 502, type: 'server_error', code: 'backend_answer_invalid' },
  BACKEND_ANSWER_TOO_LARGE: { status: 502, type: 'server_error', code: 'backend_answer_too_large' },
  DEADLINE_EXCEEDED: { status: 504, type: 'server_error', code: 'deadline_exceeded' },
  CANCELLED: { status: 499, type: 'invalid_request_error', code: 'cancelled' },
  SHUTTING_DOWN: { status: 503, type: 'server_error', code: 'shutting_down' },
  INTERNAL: { status: 500, type: 'server_error', code: 'internal' },
} as const satisfies Record<Reason, ErrorRow>

/** What a backend refused about the request itself is the caller's to mend, whose body it got; by `backendError`. */
const rejections: ReadonlyMap<string, ErrorRow> = new Map<BackendErrorKind, ErrorRow>([
  ['context_length', { status: 400, type: 'invalid_request_error', code: 'context_length_exceeded' }],
  ['content_filter', { status: 400, type: 'invalid_request_error', code: 'content_filter' }],
])

/** Statuses by which a backend says that the body is at fault. */
const bodyAtFault: ReadonlySet<string> = new Set(['400', '413', '422'])

export interface ErrorRow {
  readonly status: number
  readonly type: string
  readonly code: string
  /** The field at fault, where the error itself names none. */
  readonly param?: string
}

/** An error as it goes out. */
export interface OpenAiError {
  readonly status: number
  readonly body: { readonly error: OpenAiErrorObject }
  /** Whether the same call may succeed after a wait that callers can be asked to take. */
  readonly shouldRetry: boolean
}

export interface OpenAiErrorObject {
  readonly message: string
  readonly type: string
  readonly param: string | null
  readonly code: string
}

/** Longest wait that is worth a retry of a library's own: beyond it they give up, or wait less than they must. */
const longestWaitMs = 60_000

export function toOpenAiError(error: TollgateError): OpenAiError {
  const { status, type, code, param } = rowOf(error)
  const message = boundedText(error.message, messageMaxBytes)
  return {
    status,
    body: { error: { message, type, param: paramOf(error) ?? param ?? null, code } },
    shouldRetry: isWorthRetrying(error),
  }
}

export function rowOf(error: TollgateError): ErrorRow {
  const row: ErrorRow = errorTable[error.reason]
  if (error.reason !== 'BACKEND_REJECTED') return row
  const { backendError = '', backendStatus = '' } = error.metadata
  const rejection = rejections.get(backendError)
  if (rejection !== undefined) return rejection
  return bodyAtFault.has(backendStatus) ? { ...row, status: 400, type: 'invalid_request_error' } : row
}

/** A call that no wait helps is refused by RATE_LIMITED too: it is the one that names no time. */
function isWorthRetrying({ reason, retryAfterMs }: TollgateError): boolean {
  if (!reasons[reason].retryable || (retryAfterMs ?? 0) > longestWaitMs) return false
  return reason !== 'RATE_LIMITED' || retryAfterMs !== undefined
}

/** The path within the body, which callers of the gate's own API know as its payload. */
function paramOf({ metadata, fields }: TollgateError): string | undefined {
  const param = metadata.param ?? fields[0]?.field.replace(/^payload\.?/, '')
  return param === '' ? undefined : param
}
