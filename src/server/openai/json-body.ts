import { isJsonType } from '../../content-type.ts'
import { TollgateError } from '../../errors.ts'
import { type Skimmed, skim } from '../../providers/skim.ts'
import type { Exchange } from '../exchange.ts'
import { readUnframed, type WholeLimits } from '../read-whole.ts'
import type { ServerCall } from '../server-call.ts'

/** A body, and what of it decides where the call goes and what comes back. */
export interface JsonBody {
  /** As it came. */
  readonly payload: Uint8Array
  /** The payload as JSON: nobody has to read it again, unless for a text that was left out. */
  readonly parsed: Skimmed
  readonly model: string
  readonly stream: boolean
}

/** As of a service's id or name in the gate's own API. */
const modelMaxLength = 128

/**
 * Reads a body of `application/json`. Throws INVALID_ARGUMENT with the name of the header or field at fault,
 * MESSAGE_TOO_LARGE (before anything is read when the length is announced), and what ends the waiting for it.
 */
export function readJsonBody(exchange: Exchange, call: ServerCall, options: WholeLimits): JsonBody | Promise<JsonBody> {
  if (!isJsonType(call.header('content-type') ?? '')) {
    throw invalid('content-type', 'must be application/json')
  }
  const encoding = call.header('content-encoding')
  if (encoding !== undefined && !/^(identity)?$/i.test(encoding)) {
    throw invalid('content-encoding', 'must be absent: bodies are taken as they are')
  }
  const coming = readUnframed(exchange, call, options)
  return coming instanceof Uint8Array ? jsonBodyOf(coming) : coming.then(jsonBodyOf)
}

function jsonBodyOf(payload: Uint8Array): JsonBody {
  if (payload.length === 0) throw invalid('', 'The body is empty: it must be a JSON object.')
  const parsed = skim(payload)
  if (parsed === undefined) throw invalid('', 'The body must be a JSON object in UTF-8.')
  const { model, stream } = parsed.object
  if (typeof model !== 'string' || model === '') throw invalid('model', 'is required: name a service')
  if (model.length > modelMaxLength) throw invalid('model', `must have at most ${modelMaxLength} characters`)
  return { payload, parsed, model, stream: stream === true }
}

/** `param` is empty for the body as a whole. */
function invalid(param: string, description: string): TollgateError {
  if (param === '') return new TollgateError('INVALID_ARGUMENT', description)
  return new TollgateError('INVALID_ARGUMENT', `${param} ${description}`, {
    fields: [{ field: param, description }],
    metadata: { param },
  })
}
