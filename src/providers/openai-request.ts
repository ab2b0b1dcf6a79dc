/** Reads requests of the OpenAI API (and of servers that are compatible with it) and asks for usage in their streams. */
import { isCount, maxTokens } from './counts.ts'
import { invalidRequest } from './failures.ts'
import { asObject, asString, isAbsent, type JsonObject, parseObject } from './json.ts'
import { setKnownMember, setMember } from './json-edit.ts'
import type { CallerRequest, ReadRequest, RequestKind } from './provider.ts'
import { parseForFacts } from './skim.ts'

/** The facts of a request, before there is a body for the backend. */
export type RequestFacts = Omit<ReadRequest, 'body'>

/** A request's whole body, parsed here unless all of it was before; throws INVALID_ARGUMENT for anything but a JSON object. */
export function parseRequest({ payload, parsed }: CallerRequest): JsonObject {
  return mustBeObject(parsed?.isWhole ? parsed.object : parseObject(payload))
}

/** The same for who reads its facts and passes its bytes on: a long body comes without its texts. */
export function skimRequest({ payload, parsed }: CallerRequest): JsonObject {
  return mustBeObject(parsed?.object ?? parseForFacts(payload))
}

function mustBeObject(body: JsonObject | undefined): JsonObject {
  if (body === undefined) throw invalidRequest('', 'must be a JSON object')
  return body
}

/** Reads the facts; throws INVALID_ARGUMENT naming the field for counts that are none and for the wrong mode. */
export function readOpenaiFacts(request: CallerRequest, body: JsonObject): RequestFacts {
  const kind = request.kind ?? kindOf(body)
  if (kind === 'embedding' && request.mode === 'stream')
    throw invalidRequest('', 'asks for embeddings, which have no stream')
  if (kind === 'responses' && body.background === true)
    throw invalidRequest('background', 'must not be true: usage is known when the answer is')
  const choices = readChoices(kind, body)
  const ceiling = readCeiling(kind, body)
  return {
    kind,
    mode: request.mode,
    dialect: request.dialect,
    model: readModel(body),
    maxOutputTokens: ceiling === undefined ? undefined : Math.min(ceiling * candidates(body, choices), maxTokens),
    choices,
    asksStream: readStream(request, body),
    asksUsage: readsUsage(body),
    payloadBytes: request.payload.length,
    startMs: request.startMs,
  }
}

/** At most this much of a model's name goes into records. */
export const maxModelLength = 128

export function readModel(body: JsonObject): string {
  return asString(body.model).slice(0, maxModelLength)
}

/**
 * Whether the body asks for a stream. Throws INVALID_ARGUMENT when it asks for one where one whole answer is given: the
 * caller would read a stream as an answer. The reverse is no contradiction: a stream is asked for by its RPC.
 */
export function readStream(request: CallerRequest, body: JsonObject): boolean {
  if (!isAbsent(body.stream) && typeof body.stream !== 'boolean') throw invalidRequest('stream', 'must be a boolean')
  if (body.stream === true && request.mode === 'unary')
    throw invalidRequest('stream', 'must not be true here: one whole answer is returned')
  return body.stream === true
}

/** A count of the request; undefined when it is absent. Throws INVALID_ARGUMENT naming the field, below `parent`. */
export function readLimit(body: JsonObject, name: string, least = 0, parent = ''): number | undefined {
  const value = body[name]
  if (isAbsent(value)) return undefined
  if (isCount(value) && value >= least) return value
  throw invalidRequest(`${parent}${name}`, `must be an integer from ${least} to ${maxTokens}`)
}

/**
 * The body for an OpenAI-compatible backend: untouched for one whole answer; for a stream with `stream` set, and with
 * usage asked for in chats and completions, whose streams tell it only then.
 */
export function openaiBody(
  { payload }: CallerRequest,
  body: JsonObject,
  facts: RequestFacts,
  asksForUsage: boolean,
): Uint8Array {
  if (facts.mode === 'unary') return payload
  const streamed = facts.asksStream ? payload : setKnownMember(payload, 'stream', 'true', 'stream' in body)
  const needsUsage = asksForUsage && (facts.kind === 'chat' || facts.kind === 'completion')
  if (!needsUsage || facts.asksUsage) return streamed
  return 'stream_options' in body
    ? setMember(streamed, ['stream_options', 'include_usage'], 'true')
    : setKnownMember(streamed, 'stream_options', '{"include_usage":true}', false)
}

function kindOf(body: JsonObject): RequestKind {
  if ('messages' in body) return 'chat'
  if ('prompt' in body) return 'completion'
  if ('input' in body) return responsesFields.some((field) => field in body) ? 'responses' : 'embedding'
  return 'generic'
}

/** Fields by which a request with `input` is one to the Responses API; without any it asks for embeddings. */
const responsesFields = [
  'instructions',
  'max_output_tokens',
  'previous_response_id',
  'tools',
  'text',
  'reasoning',
  'stream',
]

function readCeiling(kind: RequestKind, body: JsonObject): number | undefined {
  if (kind === 'embedding') return 0
  if (kind === 'responses') return readLimit(body, 'max_output_tokens')
  const ceilings = [readLimit(body, 'max_completion_tokens'), readLimit(body, 'max_tokens')]
  const stated = ceilings.filter((ceiling) => ceiling !== undefined)
  return stated.length === 0 ? undefined : Math.max(...stated)
}

/** `n` for each prompt; completions take several prompts at once, as texts or as arrays of tokens. */
function readChoices(kind: RequestKind, body: JsonObject): number {
  const each = readLimit(body, 'n', 1) ?? 1
  const { prompt } = body
  const isList = kind === 'completion' && Array.isArray(prompt) && typeof prompt[0] !== 'number'
  return isList ? each * Math.max(1, prompt.length) : each
}

/** Answers that are generated, and paid for: with `best_of`, more than are returned. */
function candidates(body: JsonObject, choices: number): number {
  const each = readLimit(body, 'n', 1) ?? 1
  return (choices / each) * Math.max(each, readLimit(body, 'best_of', 1) ?? 1)
}

function readsUsage(body: JsonObject): boolean {
  return asObject(body.stream_options)?.include_usage === true
}
