/**
 * What the trailers of a gRPC backend mean, in the one error vocabulary. A backend that is a gate itself speaks the same
 * one; but what is its caller's affair there (a limit, a credential, a grant) is this gate's affair here, for the caller is
 * this gate. The reason stays as `backendReason` in the metadata. No text of a backend is repeated.
 */
import { fromBinary } from '@bufbuild/protobuf'
import { anyUnpack, durationMs } from '@bufbuild/protobuf/wkt'
import { ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { type Status, StatusSchema } from '../../gen/google/rpc/status_pb.ts'
import { isReason, type Reason, type TollgateError } from '../errors.ts'
import { cutStream, invalidAnswer } from '../providers/failures.ts'
import { answerFailed } from './backend-errors.ts'
import type { Failure } from './retry-table.ts'

/** Headers or trailers, names in lower case. */
export type Trailers = Readonly<Record<string, string | readonly string[] | undefined>>

/** The error that trailers tell; undefined for status OK. An answer that ended without a status was cut. */
export function grpcError(trailers: Trailers): TollgateError | undefined {
  const { 'grpc-status': status, 'grpc-status-details-bin': details } = trailers
  if (status === '0') return undefined
  if (status === undefined) return cutStream()
  const code = Number(status)
  const codeFailure = byCode[code]
  if (codeFailure === undefined) return invalidAnswer('has a gRPC status that is none')
  const { reason, said, retryAfterMs } = readDetails(typeof details === 'string' ? details : '')
  const failure = reason === undefined ? codeFailure : failureOfReason(reason, said)
  const metadata = {
    grpcStatus: String(code),
    ...(failure === 'rejected' ? { backendStatus: '400' } : {}),
    ...(reason === undefined ? {} : { backendReason: reason }),
    ...repeatable(said),
  }
  return answerFailed(failure, `gRPC status ${code}`, metadata, retryAfterMs)
}

/** By google.rpc.Code, of backends that say no more. */
const byCode: Readonly<Record<number, Failure>> = {
  1: 'server_error',
  2: 'server_error',
  3: 'rejected',
  4: 'gateway_timeout',
  5: 'unusable_status',
  6: 'rejected',
  7: 'credential_refused',
  8: 'busy',
  9: 'rejected',
  10: 'server_error',
  11: 'rejected',
  12: 'unusable_status',
  13: 'server_error',
  14: 'unavailable',
  15: 'server_error',
  16: 'credential_refused',
}

/** By the reason of a gate. Whatever it keeps its callers from, it keeps this gate from; only the request is the caller's. */
const byReason: Readonly<Record<Reason, Failure>> = {
  INVALID_ARGUMENT: 'rejected',
  MESSAGE_TOO_LARGE: 'rejected',
  CREDENTIAL_MISSING: 'credential_refused',
  CREDENTIAL_INVALID: 'credential_refused',
  CREDENTIAL_EXPIRED: 'credential_refused',
  CREDENTIAL_REVOKED: 'credential_refused',
  CREDENTIAL_CHECK_BUSY: 'busy',
  TOKEN_MALFORMED: 'credential_refused',
  TOKEN_UNSIGNED: 'credential_refused',
  TOKEN_ALGORITHM: 'credential_refused',
  TOKEN_ISSUER: 'credential_refused',
  TOKEN_KEY_UNKNOWN: 'credential_refused',
  TOKEN_SIGNATURE: 'credential_refused',
  TOKEN_EXPIRED: 'credential_refused',
  TOKEN_NOT_YET_VALID: 'credential_refused',
  TOKEN_AUDIENCE: 'credential_refused',
  TOKEN_SUBJECT: 'credential_refused',
  TOKEN_KEYS_UNAVAILABLE: 'unavailable',
  TOKEN_CONSUMER: 'credential_refused',
  CERTIFICATE_IDENTITY: 'credential_refused',
  CERTIFICATE_EXPIRED: 'credential_refused',
  USER_UNKNOWN: 'credential_refused',
  USER_INACTIVE: 'credential_refused',
  CREDENTIAL_FAILURES: 'busy',
  PERMISSION_MISSING: 'credential_refused',
  CONSUMER_MISMATCH: 'credential_refused',
  ORGANIZATION_MISMATCH: 'credential_refused',
  GRANT_EXCEEDED: 'credential_refused',
  ORGANIZATION_INACTIVE: 'credential_refused',
  PROJECT_INACTIVE: 'credential_refused',
  CONSUMER_INACTIVE: 'credential_refused',
  KEY_SCOPE_MISSING: 'credential_refused',
  KEY_SCOPE_EXCEEDED: 'credential_refused',
  POLICY_DENIED: 'credential_refused',
  RPC_NOT_FOUND: 'unusable_status',
  METHOD_NOT_ALLOWED: 'unusable_status',
  CONTENT_TYPE_UNSUPPORTED: 'unusable_status',
  SERVICE_NOT_FOUND: 'unusable_status',
  SERVICE_INACTIVE: 'unusable_status',
  SERVICE_DOCUMENT_NOT_FOUND: 'unusable_status',
  SERVICE_STATUS_CONFLICT: 'unusable_status',
  SERVICE_OUTSIDE: 'unusable_status',
  CONSUMER_NOT_FOUND: 'credential_refused',
  ORGANIZATION_NOT_FOUND: 'credential_refused',
  PROJECT_NOT_FOUND: 'credential_refused',
  USER_NOT_FOUND: 'credential_refused',
  KEY_NOT_FOUND: 'credential_refused',
  KEY_INACTIVE: 'unusable_status',
  POLICY_NOT_FOUND: 'unusable_status',
  LIMIT_NOT_FOUND: 'unusable_status',
  USAGE_RECORD_NOT_FOUND: 'unusable_status',
  USAGE_RECORD_REVERSED: 'unusable_status',
  EVENT_SINK_NOT_FOUND: 'unusable_status',
  RESOURCE_VERSION_TOO_OLD: 'unusable_status',
  RESOURCE_VERSION_UNKNOWN: 'unusable_status',
  WATCH_TOO_SLOW: 'busy',
  WATCHERS_EXHAUSTED: 'busy',
  ALREADY_EXISTS: 'unusable_status',
  STATUS_FINAL: 'unusable_status',
  ETAG_MISMATCH: 'unusable_status',
  RATE_LIMITED: 'busy',
  QUOTA_EXCEEDED: 'busy',
  PRICE_MISSING: 'unusable_status',
  IDEMPOTENCY_KEY_REUSED: 'unusable_status',
  IDEMPOTENT_ANSWER_NOT_KEPT: 'unusable_status',
  POLICY_UNAVAILABLE: 'unavailable',
  LIMITS_UNAVAILABLE: 'unavailable',
  STORAGE_UNAVAILABLE: 'unavailable',
  BREAKER_OPEN: 'unavailable',
  BACKEND_UNREACHABLE: 'server_error',
  BACKEND_FAILED: 'server_error',
  BACKEND_TIMEOUT: 'gateway_timeout',
  BACKEND_REJECTED: 'rejected',
  BACKEND_CREDENTIAL_REFUSED: 'unusable_status',
  BACKEND_ANSWER_INVALID: 'invalid_answer',
  BACKEND_ANSWER_TOO_LARGE: 'answer_too_large',
  DEADLINE_EXCEEDED: 'gateway_timeout',
  CANCELLED: 'server_error',
  SHUTTING_DOWN: 'unavailable',
  INTERNAL: 'server_error',
}

type Said = Readonly<Record<string, string>>

function failureOfReason(reason: Reason, { failure }: Said): Failure {
  // A gate says so of its own backend, when all its attempts ended there.
  if (reason === 'BACKEND_FAILED' && (failure === 'busy' || failure === 'unavailable')) return failure
  return byReason[reason]
}

/** What of a gate's metadata is neither a text nor about its own affairs. */
const repeatablePatterns: readonly (readonly [name: string, pattern: RegExp])[] = [
  ['backendError', /^[a-z_]{1,32}$/],
  ['backendStatus', /^[1-5]\d\d$/],
  ['param', /^[\w.[\]-]{1,128}$/],
]

function repeatable(said: Said): Said {
  const kept = repeatablePatterns.filter(([name, pattern]) => pattern.test(said[name] ?? ''))
  return Object.fromEntries(kept.map(([name]) => [name, said[name] ?? '']))
}

interface Details {
  /** Undefined of a backend that is no gate. */
  readonly reason: Reason | undefined
  readonly said: Said
  readonly retryAfterMs: number | undefined
}

/** google.rpc.Status in base64; what cannot be read says nothing. */
function readDetails(base64: string): Details {
  let details: Status['details'] = []
  try {
    details = fromBinary(StatusSchema, Buffer.from(base64, 'base64')).details
  } catch {
    // As above.
  }
  let found: Details = { reason: undefined, said: {}, retryAfterMs: undefined }
  for (const detail of details) {
    const info = anyUnpack(detail, ErrorInfoSchema)
    if (info?.domain === 'tollgate' && isReason(info.reason)) {
      found = { ...found, reason: info.reason, said: info.metadata }
    }
    const { retryDelay } = anyUnpack(detail, RetryInfoSchema) ?? {}
    if (retryDelay !== undefined) found = { ...found, retryAfterMs: Math.max(0, durationMs(retryDelay)) }
  }
  return found
}
