import { create, toBinary } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from '../../gen/google/rpc/error_details_pb.ts'
import { type Reason, reasons, TollgateError } from '../errors.ts'
import { limitHeaders } from '../limits/limit-headers.ts'
import type { ServerCall } from './server-call.ts'

/**
 * The one place that turns an error into what callers see: the status of its reason with `google.rpc` details.
 *
 * gRPC sends message and details as trailers, and clients drop trailers beyond about 8 KiB: then the caller sees
 * INTERNAL and nothing else. So the message is cut at 1 KiB as encoded, each metadata value at 256 bytes, and field
 * violations are left out from the end until all details fit into 3 KiB.
 */
export function toConnectError(error: TollgateError): ConnectError {
  return new ConnectError(
    boundedText(error.message, messageMaxBytes),
    reasons[error.reason].grpc,
    undefined,
    detailsOf(error),
    error.cause,
  )
}

/**
 * Notes why the call failed, sets the headers of a refusal, and returns what the wire shall send. Only the first failure
 * of a call is noted: later ones are consequences.
 */
export function failCall(call: ServerCall, thrown: unknown): ConnectError {
  if (call.error === undefined) {
    call.error = toTollgateError(thrown)
    for (const [name, value] of refusalHeaders(call.error, Date.now())) call.setResponseHeader(name, value)
  }
  return toConnectError(call.error)
}

/** Any thrown value in the one vocabulary. What is not meant for callers becomes INTERNAL with a neutral text. */
export function toTollgateError(error: unknown): TollgateError {
  if (error instanceof TollgateError) return error
  if (error instanceof ConnectError) {
    return new TollgateError(reasonOfCode(error.code), error.rawMessage, { cause: error.cause })
  }
  return new TollgateError('INTERNAL', 'internal error', { cause: error })
}

/** The reason that stands for a status which no TollgateError caused, such as a message that cannot be decoded. */
export function reasonOfCode(code: number): Reason {
  switch (code) {
    case Code.Canceled:
    case Code.Aborted:
      return 'CANCELLED'
    case Code.InvalidArgument:
      return 'INVALID_ARGUMENT'
    case Code.DeadlineExceeded:
      return 'DEADLINE_EXCEEDED'
    case Code.ResourceExhausted:
      return 'MESSAGE_TOO_LARGE'
    case Code.Unimplemented:
      return 'RPC_NOT_FOUND'
    default:
      return 'INTERNAL'
  }
}

/** A request or a message in it is larger than the setting MAX_MESSAGE_BYTES. `bytes` when its size is known. */
export function messageTooLarge(maxMessageBytes: number, bytes?: number): TollgateError {
  const size = bytes === undefined ? 'the message' : `the message of ${bytes} bytes`
  return new TollgateError(
    'MESSAGE_TOO_LARGE',
    `${size} is larger than the limit of ${maxMessageBytes} bytes (setting MAX_MESSAGE_BYTES)`,
    {
      metadata: { limitBytes: String(maxMessageBytes), ...(bytes !== undefined && { messageBytes: String(bytes) }) },
    },
  )
}

/**
 * Response headers of a refusal: `retry-after` in whole seconds, and for the first limit those of {@link limitHeaders}.
 */
export function refusalHeaders(error: TollgateError, nowMs: number): [name: string, value: string][] {
  const headers: [string, string][] = []
  if (error.retryAfterMs !== undefined) headers.push(['retry-after', String(Math.ceil(error.retryAfterMs / 1000))])
  const limit = error.limits[0]
  if (limit !== undefined) headers.push(...limitHeaders(limit, nowMs))
  return headers
}

/** Cuts a text so that it takes at most `maxBytes` percent-encoded, and makes it well-formed Unicode. */
export function boundedText(text: string, maxBytes: number): string {
  // A prefix first: encoding a message of megabytes only to cut it would be a gift to whoever sent it.
  const prefix = text.slice(0, maxBytes).toWellFormed()
  if (prefix.length === text.length && encodeURIComponent(prefix).length <= maxBytes) return prefix
  let used = encodeURIComponent('…').length
  let kept = ''
  for (const character of prefix) {
    used += encodeURIComponent(character).length
    if (used > maxBytes) break
    kept += character
  }
  return `${kept}…`
}

/** Largest error message on any wire, in percent-encoded bytes. */
export const messageMaxBytes = 1024

const detailsMaxBytes = 3072
const metadataValueMaxBytes = 256

function detailsOf(error: TollgateError): NonNullable<ConstructorParameters<typeof ConnectError>[3]> {
  const metadata = Object.entries(error.metadata).map(([key, value]) => [
    key,
    boundedText(value, metadataValueMaxBytes),
  ])
  const errorInfo = { reason: error.reason, domain: 'tollgate', metadata: Object.fromEntries(metadata) }
  const details: NonNullable<ConstructorParameters<typeof ConnectError>[3]> = [
    { desc: ErrorInfoSchema, value: errorInfo },
  ]
  if (error.retryAfterMs !== undefined) {
    details.push({ desc: RetryInfoSchema, value: { retryDelay: durationOf(error.retryAfterMs) } })
  }
  if (error.limits.length > 0) {
    const violations = error.limits.map((limit) => ({
      subject: boundedText(limit.subject, metadataValueMaxBytes),
      description: `${limit.limit}: ${limit.remaining} of ${limit.capacity} ${limit.unit} left`,
      quotaId: limit.limit,
      quotaValue: BigInt(limit.capacity),
    }))
    details.push({ desc: QuotaFailureSchema, value: { violations } })
  }
  if (error.fields.length > 0)
    details.push({ desc: BadRequestSchema, value: { fieldViolations: fieldsThatFit(error) } })
  return details
}

function fieldsThatFit(error: TollgateError): { field: string; description: string; reason: string }[] {
  const kept = []
  let used = 0
  for (const { field, description, rule } of error.fields) {
    const violation = {
      field: boundedText(field, metadataValueMaxBytes),
      description: boundedText(description, metadataValueMaxBytes),
      reason: rule ?? '',
    }
    used += toBinary(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [violation] })).length
    if (used > detailsMaxBytes) break
    kept.push(violation)
  }
  return kept
}

function durationOf(ms: number): { seconds: bigint; nanos: number } {
  const whole = Math.ceil(ms)
  return { seconds: BigInt(Math.floor(whole / 1000)), nanos: (whole % 1000) * 1_000_000 }
}
