/** What adapters refuse and what they find wrong, in the one error vocabulary. No text of a caller or backend is repeated. */
import { TollgateError } from '../errors.ts'
import { asArray, asObject, asString, isAbsent, type JsonObject, parseObject } from './json.ts'

/**
 * INVALID_ARGUMENT for a field of the request's body. `param` is its path in the body (`messages[2].content[0]`), empty
 * for the body as a whole; it is metadata as well, for protocols that name it.
 */
export function invalidRequest(param: string, description: string): TollgateError {
  const field = param === '' ? 'payload' : `payload.${param}`
  return new TollgateError('INVALID_ARGUMENT', `${field} ${description}`, {
    fields: [{ field, description }],
    metadata: { field: 'payload', param },
  })
}

/** BACKEND_ANSWER_INVALID: "an answer that …". */
export function invalidAnswer(what: string): TollgateError {
  return new TollgateError('BACKEND_ANSWER_INVALID', `The service's backend sent an answer that ${what}.`)
}

/** What only the backend's own protocol has a place for; a translated request cannot have asked for it. */
export function untranslatable(): TollgateError {
  return invalidAnswer('holds what the OpenAI API has no place for')
}

/** A stream that ended, however cleanly, before its answer was finished. */
export function cutStream(): TollgateError {
  return new TollgateError('BACKEND_FAILED', "The service's backend ended its stream before the answer was finished.", {
    metadata: { backendError: 'cut' },
  })
}

/**
 * What a backend's error object is about, from a closed list, so that rules for fallback can name it.
 *
 * - `context_length`: the request does not fit the model; `content_filter`: it was refused for what it says.
 * - `rate_limit`, `overloaded`, `failed`: the backend's own trouble, which may pass.
 * - `credential`: the gate's own credential; `rejected`: anything else about the request.
 */
export type BackendErrorKind =
  | 'context_length'
  | 'content_filter'
  | 'rate_limit'
  | 'overloaded'
  | 'failed'
  | 'credential'
  | 'rejected'

/** True for a body or an event that is an error object, whatever its HTTP status. */
export function isErrorObject(body: JsonObject): boolean {
  return !isAbsent(body.error) || body.type === 'error' || body.object === 'error'
}

/**
 * The error of an answer or event that is an error object, by its codes alone: BACKEND_FAILED when it may pass,
 * BACKEND_CREDENTIAL_REFUSED, or BACKEND_REJECTED. `status` is the HTTP status when that says something.
 */
export function backendError(body: JsonObject, status?: number): TollgateError {
  const kind = classify(body, status)
  const metadata: Record<string, string> = { backendError: kind }
  if (status !== undefined) metadata.backendStatus = String(status)
  switch (kind) {
    case 'credential':
      return new TollgateError(
        'BACKEND_CREDENTIAL_REFUSED',
        "The service's backend refused the gate's own credential.",
        {
          metadata,
        },
      )
    case 'context_length':
    case 'content_filter':
    case 'rejected':
      return new TollgateError('BACKEND_REJECTED', `The service's backend rejected the request (${kind}).`, {
        metadata,
      })
    default:
      return new TollgateError('BACKEND_FAILED', `The service's backend reported an error (${kind}).`, { metadata })
  }
}

/** {@link backendError} for the body of an answer whose status is an error; the body may be anything. */
export function statusError(status: number, body: Uint8Array): TollgateError {
  return backendError(parseObject(body) ?? {}, status)
}

/**
 * The first that matches decides. The words are the codes, types and status names that OpenAI, Azure, vLLM, llama.cpp,
 * Ollama, Anthropic and Gemini document; only for a context that is too long must the message be looked at, because
 * Anthropic, Gemini and vLLM have no code for it.
 */
const words: readonly (readonly [BackendErrorKind, RegExp])[] = [
  ['context_length', /context_length|exceed_context_size|string_above_max_length/],
  ['content_filter', /content_filter|content_policy|responsible_ai|prohibited_content/],
  [
    'credential',
    /authentication|permission|unauthenticated|invalid_api_key|api_key_invalid|unauthorized|access_denied/,
  ],
  ['rate_limit', /rate_limit|resource_exhausted|insufficient_quota|too_many_requests|billing/],
  ['overloaded', /overloaded|unavailable|capacity/],
  ['failed', /server_error|internal|api_error|timeout|deadline|engine/],
  ['rejected', /invalid|not_found|badrequest|bad_request|failed_precondition|too_large/],
]

const tooLong =
  /prompt is too long|maximum context length|exceeds the maximum number of tokens|context (size|window|length)|input token count/i

function classify(body: JsonObject, status: number | undefined): BackendErrorKind {
  const error = asObject(body.error) ?? body
  const message = asString(body.error) || asString(error.message)
  // Azure says more in `innererror`, Gemini in `details` (a wrong key is INVALID_ARGUMENT with reason API_KEY_INVALID).
  const inner = asObject(error.innererror)?.code
  const reasons = asArray(error.details).map((detail) => asObject(detail)?.reason)
  const codes = [error.code, error.type, error.status, inner, ...reasons].map(asString).join(' ').toLowerCase()
  if (tooLong.test(message)) return 'context_length'
  for (const [kind, pattern] of words) if (pattern.test(codes)) return kind
  return byStatus(status ?? (typeof error.code === 'number' ? error.code : undefined))
}

function byStatus(status: number | undefined): BackendErrorKind {
  if (status === undefined || status >= 500) return status === 529 || status === 503 ? 'overloaded' : 'failed'
  if (status === 401 || status === 403) return 'credential'
  if (status === 429) return 'rate_limit'
  if (status === 408) return 'failed'
  return status >= 400 ? 'rejected' : 'failed'
}
