/**
 * The one error vocabulary. Every refusal and failure that a caller may see is a {@link TollgateError} with a reason from
 * {@link reasons}; `server/` turns it into a status of the caller's protocol with `google.rpc` details. Anything else
 * that is thrown is answered as INTERNAL, and its text goes to the log only.
 */

/** One row: what callers of each protocol get for a reason. `grpc` is the number from google.rpc.Code. */
export interface ReasonInfo {
  readonly grpc: number
  readonly http: number
  /** True when the same call may succeed later without a change. */
  readonly retryable: boolean
}

export const reasons = {
  INVALID_ARGUMENT: { grpc: 3, http: 400, retryable: false },
  MESSAGE_TOO_LARGE: { grpc: 8, http: 413, retryable: false },
  CREDENTIAL_MISSING: { grpc: 16, http: 401, retryable: false },
  CREDENTIAL_INVALID: { grpc: 16, http: 401, retryable: false },
  CREDENTIAL_EXPIRED: { grpc: 16, http: 401, retryable: false },
  CREDENTIAL_REVOKED: { grpc: 16, http: 401, retryable: false },
  CREDENTIAL_CHECK_BUSY: { grpc: 8, http: 429, retryable: true },
  TOKEN_MALFORMED: { grpc: 16, http: 401, retryable: false },
  TOKEN_UNSIGNED: { grpc: 16, http: 401, retryable: false },
  TOKEN_ALGORITHM: { grpc: 16, http: 401, retryable: false },
  TOKEN_ISSUER: { grpc: 16, http: 401, retryable: false },
  TOKEN_KEY_UNKNOWN: { grpc: 16, http: 401, retryable: false },
  TOKEN_SIGNATURE: { grpc: 16, http: 401, retryable: false },
  TOKEN_EXPIRED: { grpc: 16, http: 401, retryable: false },
  TOKEN_NOT_YET_VALID: { grpc: 16, http: 401, retryable: false },
  TOKEN_AUDIENCE: { grpc: 16, http: 401, retryable: false },
  TOKEN_SUBJECT: { grpc: 16, http: 401, retryable: false },
  TOKEN_KEYS_UNAVAILABLE: { grpc: 14, http: 503, retryable: true },
  TOKEN_CONSUMER: { grpc: 7, http: 403, retryable: false },
  CERTIFICATE_IDENTITY: { grpc: 16, http: 401, retryable: false },
  CERTIFICATE_EXPIRED: { grpc: 16, http: 401, retryable: false },
  USER_UNKNOWN: { grpc: 7, http: 403, retryable: false },
  USER_INACTIVE: { grpc: 7, http: 403, retryable: false },
  CREDENTIAL_FAILURES: { grpc: 8, http: 429, retryable: true },
  PERMISSION_MISSING: { grpc: 7, http: 403, retryable: false },
  CONSUMER_MISMATCH: { grpc: 7, http: 403, retryable: false },
  ORGANIZATION_MISMATCH: { grpc: 7, http: 403, retryable: false },
  GRANT_EXCEEDED: { grpc: 7, http: 403, retryable: false },
  ORGANIZATION_INACTIVE: { grpc: 7, http: 403, retryable: false },
  PROJECT_INACTIVE: { grpc: 7, http: 403, retryable: false },
  CONSUMER_INACTIVE: { grpc: 7, http: 403, retryable: false },
  KEY_SCOPE_MISSING: { grpc: 7, http: 403, retryable: false },
  KEY_SCOPE_EXCEEDED: { grpc: 7, http: 403, retryable: false },
  POLICY_DENIED: { grpc: 7, http: 403, retryable: false },
  RPC_NOT_FOUND: { grpc: 12, http: 404, retryable: false },
  METHOD_NOT_ALLOWED: { grpc: 12, http: 405, retryable: false },
  CONTENT_TYPE_UNSUPPORTED: { grpc: 3, http: 415, retryable: false },
  SERVICE_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  SERVICE_INACTIVE: { grpc: 9, http: 409, retryable: false },
  SERVICE_DOCUMENT_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  SERVICE_STATUS_CONFLICT: { grpc: 9, http: 409, retryable: false },
  SERVICE_OUTSIDE: { grpc: 9, http: 409, retryable: false },
  CONSUMER_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  ORGANIZATION_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  PROJECT_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  USER_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  KEY_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  KEY_INACTIVE: { grpc: 9, http: 409, retryable: false },
  POLICY_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  LIMIT_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  USAGE_RECORD_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  USAGE_RECORD_REVERSED: { grpc: 9, http: 409, retryable: false },
  EVENT_SINK_NOT_FOUND: { grpc: 5, http: 404, retryable: false },
  RESOURCE_VERSION_TOO_OLD: { grpc: 11, http: 410, retryable: false },
  RESOURCE_VERSION_UNKNOWN: { grpc: 11, http: 400, retryable: false },
  WATCH_TOO_SLOW: { grpc: 8, http: 429, retryable: true },
  WATCHERS_EXHAUSTED: { grpc: 8, http: 429, retryable: true },
  ALREADY_EXISTS: { grpc: 6, http: 409, retryable: false },
  STATUS_FINAL: { grpc: 9, http: 409, retryable: false },
  ETAG_MISMATCH: { grpc: 10, http: 409, retryable: false },
  RATE_LIMITED: { grpc: 8, http: 429, retryable: true },
  QUOTA_EXCEEDED: { grpc: 8, http: 402, retryable: false },
  PRICE_MISSING: { grpc: 9, http: 409, retryable: false },
  IDEMPOTENCY_KEY_REUSED: { grpc: 3, http: 422, retryable: false },
  IDEMPOTENT_ANSWER_NOT_KEPT: { grpc: 9, http: 409, retryable: false },
  POLICY_UNAVAILABLE: { grpc: 14, http: 503, retryable: true },
  LIMITS_UNAVAILABLE: { grpc: 14, http: 503, retryable: true },
  STORAGE_UNAVAILABLE: { grpc: 14, http: 503, retryable: true },
  BREAKER_OPEN: { grpc: 14, http: 503, retryable: true },
  BACKEND_UNREACHABLE: { grpc: 14, http: 502, retryable: true },
  BACKEND_FAILED: { grpc: 14, http: 502, retryable: true },
  BACKEND_TIMEOUT: { grpc: 14, http: 504, retryable: true },
  BACKEND_REJECTED: { grpc: 9, http: 502, retryable: false },
  BACKEND_CREDENTIAL_REFUSED: { grpc: 13, http: 502, retryable: false },
  BACKEND_ANSWER_INVALID: { grpc: 14, http: 502, retryable: true },
  BACKEND_ANSWER_TOO_LARGE: { grpc: 8, http: 502, retryable: false },
  DEADLINE_EXCEEDED: { grpc: 4, http: 504, retryable: true },
  CANCELLED: { grpc: 1, http: 499, retryable: false },
  SHUTTING_DOWN: { grpc: 14, http: 503, retryable: true },
  INTERNAL: { grpc: 13, http: 500, retryable: false },
} as const satisfies Record<string, ReasonInfo>

export type Reason = keyof typeof reasons

/** A request field that broke a rule; becomes google.rpc.BadRequest.FieldViolation. */
export interface FieldViolation {
  /** Path of the field as in the proto, for example "metadata[\"a\"]". */
  readonly field: string
  /** What is wrong, with the limit. */
  readonly description: string
  /** Id of the broken rule, for example "string.max_len". */
  readonly rule?: string
}

/** A limit that refused a call; becomes google.rpc.QuotaFailure.Violation and rate limit headers. */
export interface LimitViolation {
  /** Whose limit: "consumer:<id>", "organization:<id>", … */
  readonly subject: string
  /** Name of the limit, for example "requests_per_second". */
  readonly limit: string
  /** Capacity of the limit, in `unit`. */
  readonly capacity: number
  /** What is left, in `unit`; never below 0. */
  readonly remaining: number
  /** As people read it: "requests", "tokens", "nano-USD", "calls at once". */
  readonly unit: string
  /** Unix milliseconds at which the limit is whole again. */
  readonly resetAtMs: number
}

export interface TollgateErrorInit {
  /** Dynamic values of the message, repeated in ErrorInfo.metadata; keys in lowerCamelCase. */
  readonly metadata?: Readonly<Record<string, string>>
  /** Earliest sensible retry; becomes google.rpc.RetryInfo and Retry-After. */
  readonly retryAfterMs?: number
  readonly fields?: readonly FieldViolation[]
  readonly limits?: readonly LimitViolation[]
  /** What went wrong inside; logged, never answered. */
  readonly cause?: unknown
  /** Who was refused, where that is before the call knows its caller; for the audit log, never answered. */
  readonly subject?: string
}

/** An error that its caller may see. `message` is public: no secret, no prompt, no text of a backend. */
export class TollgateError extends Error {
  override readonly name = 'TollgateError'
  readonly reason: Reason
  readonly metadata: Readonly<Record<string, string>>
  readonly retryAfterMs: number | undefined
  readonly fields: readonly FieldViolation[]
  readonly limits: readonly LimitViolation[]
  readonly subject: string | undefined

  constructor(reason: Reason, message: string, init: TollgateErrorInit = {}) {
    super(message, init.cause === undefined ? undefined : { cause: init.cause })
    this.reason = reason
    this.metadata = init.metadata ?? {}
    this.retryAfterMs = init.retryAfterMs
    this.fields = init.fields ?? []
    this.limits = init.limits ?? []
    this.subject = init.subject
  }

  /** The same error with more facts. */
  withMetadata(metadata: Readonly<Record<string, string>>): TollgateError {
    return this.#with({ metadata: { ...this.metadata, ...metadata } })
  }

  /** The same error, of somebody. */
  withSubject(subject: string): TollgateError {
    return this.#with({ subject })
  }

  #with(changes: Pick<TollgateErrorInit, 'metadata' | 'subject'>): TollgateError {
    const { reason, message, metadata, retryAfterMs, fields, limits, cause, subject } = this
    return new TollgateError(reason, message, {
      metadata,
      ...(subject === undefined ? {} : { subject }),
      ...changes,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      fields,
      limits,
      cause,
    })
  }
}

export function isReason(text: string): text is Reason {
  return Object.hasOwn(reasons, text)
}
