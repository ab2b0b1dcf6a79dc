import type { HttpBody } from '../../gen/google/api/httpbody_pb.ts'
import type { RouteRequestResponse } from '../../gen/marketplace/v1/consumption_pb.ts'
import { isJsonType } from '../content-type.ts'
import { TollgateError } from '../errors.ts'
import { isObject } from '../is-object.ts'
import { parseObject, toJsonBytes } from '../providers/json.ts'
import { withoutMember } from '../providers/json-edit.ts'

/** A call as its HTTP body says it. */
export interface Consumption {
  /** What the backend gets: the body without its "metadata", and else as it came. */
  readonly payload: Uint8Array
  readonly metadata: Readonly<Record<string, string>>
}

/** Throws CONTENT_TYPE_UNSUPPORTED, and INVALID_ARGUMENT for a body that is no JSON object or has no labels as metadata. */
export function consumptionOf(body: HttpBody | undefined): Consumption {
  if (body === undefined || body.data.length === 0) throw invalid('payload', 'must be a JSON object')
  if (!isJsonType(body.contentType)) {
    throw new TollgateError('CONTENT_TYPE_UNSUPPORTED', 'content-type must be application/json', {
      fields: [{ field: 'content-type', description: 'must be application/json' }],
    })
  }
  const object = parseObject(body.data)
  if (object === undefined) throw invalid('payload', 'must be a JSON object in UTF-8')
  return { payload: withoutMember(body.data, 'metadata'), metadata: labelsOf(object.metadata) }
}

/**
 * The answer as reference 001 has it, around the backend's own bytes: a number in them may be one that JavaScript cannot
 * hold. What is no JSON is told as a text.
 */
export function consumptionAnswer(answer: RouteRequestResponse): Uint8Array {
  const { requestId, responseData, usage, cost, latencyMs } = answer
  const counts = {
    prompt_tokens: Number(usage?.inputTokens ?? 0),
    completion_tokens: Number(usage?.outputTokens ?? 0),
    total_tokens: Number(usage?.totalTokens ?? 0),
  }
  const rate = counts.total_tokens === 0 ? 0 : Number(cost?.amountNanos ?? 0) / counts.total_tokens / 1e9
  const tail = JSON.stringify({
    usage: counts,
    cost: {
      amount: cost?.amount ?? 0,
      currency: cost?.currency ?? '',
      breakdown: { ...counts, rate_per_token: rate },
    },
    latency_ms: Number(latencyMs),
  })
  const head = `{"request_id":${JSON.stringify(requestId)},"response":`
  return Buffer.concat([Buffer.from(head), asJson(responseData), Buffer.from(`,${tail.slice(1)}`)])
}

function asJson(bytes: Uint8Array): Uint8Array {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')
  try {
    JSON.parse(text)
    return bytes
  } catch {
    return toJsonBytes(text)
  }
}

/** How many and how long is a rule of RouteRequestRequest. */
function labelsOf(metadata: unknown): Record<string, string> {
  if (metadata === undefined || metadata === null) return {}
  if (!isObject(metadata)) throw invalid('metadata', 'must be an object of texts')
  const labels: [string, string][] = []
  for (const [name, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') throw invalid(`metadata[${JSON.stringify(name.slice(0, 64))}]`, 'must be a text')
    labels.push([name, value])
  }
  return Object.fromEntries(labels)
}

function invalid(field: string, description: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `${field} ${description}`, { fields: [{ field, description }] })
}
