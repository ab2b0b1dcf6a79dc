/**
 * Ollama's own API (https://github.com/ollama/ollama/blob/main/docs/api.md), for callers of it. Callers of the OpenAI API
 * reach an Ollama by its `/v1`, with protocol `openai`. Its streams are one JSON object a line, and a request that does not
 * say `stream` asks for one.
 */
import type { TokenParts } from '../metering/usage-event.ts'
import { noTokens } from '../metering/usage-event.ts'
import { estimatedUsage, readCount } from './counts.ts'
import { invalidAnswer, invalidRequest } from './failures.ts'
import { asArray, asObject, asString, isAbsent, type JsonObject } from './json.ts'
import { setMember } from './json-edit.ts'
import { parseAnswer } from './openai-answer.ts'
import { readLimit, readModel, readStream, skimRequest } from './openai-request.ts'
import type { Answer, CallerRequest, Provider, ReadRequest, RequestKind } from './provider.ts'
import { parseForFacts } from './skim.ts'
import { createStreamReader, type Interpreter, over, type Reading } from './stream-reader.ts'
import type { Tally } from './tally.ts'
import { acceptJson, acceptLines, bodyFor, operationUrl, requestHeaders } from './target.ts'

const operations: Readonly<Partial<Record<RequestKind, string>>> = {
  chat: '/chat',
  completion: '/generate',
  embedding: '/embed',
}
const paths = Object.values(operations)

export function createOllamaProvider(): Provider {
  return {
    protocol: 'ollama',
    framing: 'lines',
    readRequest: readOllamaRequest,
    prepare(request, target) {
      return {
        url: operationUrl(target.url, operations[request.kind], paths, '/api'),
        headers: requestHeaders('bearer', target, request.mode === 'stream' ? acceptLines : acceptJson),
        body: bodyFor(request, target),
      }
    },
    readAnswer: readOllamaAnswer,
    openStream: (request) => createStreamReader(request, ollamaStream()),
  }
}

function readOllamaRequest(request: CallerRequest): ReadRequest {
  const { payload, mode, dialect, startMs } = request
  if (dialect !== 'native') {
    throw invalidRequest('', "must be of Ollama's own API, which this service speaks; it is no OpenAI API")
  }
  const body = skimRequest(request)
  const asksStream = readStream(request, body)
  const kind = kindOf(body)
  const isStream = mode === 'stream'
  // Nothing else knows `stream`.
  const canStream = kind === 'chat' || kind === 'completion'
  if (isStream && !canStream) throw invalidRequest('', 'asks for what has no stream')
  const needsEdit = canStream && (isStream ? body.stream === false : body.stream !== false)
  return {
    kind,
    mode,
    dialect,
    model: readModel(body),
    maxOutputTokens: kind === 'embedding' ? 0 : readCeiling(asObject(body.options)),
    choices: 1,
    asksStream: asksStream || isStream,
    asksUsage: true,
    payloadBytes: payload.length,
    startMs,
    body: needsEdit ? setMember(payload, ['stream'], String(isStream)) : payload,
  }
}

function kindOf(body: JsonObject): RequestKind {
  if ('messages' in body) return 'chat'
  if ('prompt' in body) return 'completion'
  return 'input' in body ? 'embedding' : 'generic'
}

/** `num_predict` below 0 sets no limit. */
function readCeiling(options: JsonObject | undefined): number | undefined {
  const limit = options?.num_predict
  if (options === undefined || (typeof limit === 'number' && limit < 0)) return undefined
  return readLimit(options, 'num_predict', 0, 'options.')
}

function readOllamaAnswer(answer: Uint8Array, request: ReadRequest): Answer {
  const body = parseAnswer(answer, parseForFacts)
  const { kind } = request
  if (kind === 'embedding' && !Array.isArray(body.embeddings)) throw invalidAnswer('has no embeddings')
  if ((kind === 'chat' || kind === 'completion') && body.done !== true) throw invalidAnswer('is not done')
  const usage = kind === 'embedding' ? embeddingUsage(body) : ollamaUsage(body)
  const model = readModel(body)
  return {
    tokens: usage ?? estimatedUsage(request.payloadBytes, answer.length, model || request.model),
    usageSource: usage === undefined ? 'estimated' : 'provider',
    model,
    finishReason: finishOf(body),
    body: answer,
  }
}

/** An Ollama that found the whole prompt in its cache has left `prompt_eval_count` out: then nothing is sure. */
function ollamaUsage(body: JsonObject): TokenParts | undefined {
  if (isAbsent(body.prompt_eval_count) || isAbsent(body.eval_count)) return undefined
  return { ...noTokens, input: readCount(body, 'prompt_eval_count'), output: readCount(body, 'eval_count') }
}

function embeddingUsage(body: JsonObject): TokenParts | undefined {
  return isAbsent(body.prompt_eval_count) ? undefined : { ...noTokens, input: readCount(body, 'prompt_eval_count') }
}

/** The reasons are the OpenAI API's own words, but for calls of tools. */
function finishOf(body: JsonObject): string {
  const reason = asString(body.done_reason) || (body.done === true ? 'stop' : '')
  return reason === 'stop' && asArray(asObject(body.message)?.tool_calls).length > 0 ? 'tool_calls' : reason
}

/** For callers of Ollama's own API: everything passes. */
export function ollamaStream(): Interpreter {
  let isFinished = false
  let hasCalls = false
  return {
    framing: 'lines',
    endMarker: undefined,
    read(body, tally) {
      if (tally.model === '') tally.model = readModel(body)
      const reading = readDelta(body, tally)
      hasCalls ||= asArray(asObject(body.message)?.tool_calls).length > 0
      if (body.done !== true) return reading
      isFinished = true
      tally.usage = ollamaUsage(body)
      const reason = finishOf(body)
      tally.finishReason = reason === 'stop' && hasCalls ? 'tool_calls' : reason
      return over
    },
    isFinished: () => isFinished,
    tail: (_, end) => end ?? new Uint8Array(),
  }
}

function readDelta(body: JsonObject, tally: Tally): Reading {
  const message = asObject(body.message) ?? {}
  const text = textOf(message.content) + textOf(body.response)
  const reasoning = textOf(message.thinking) + textOf(body.thinking)
  tally.addText(text)
  tally.addReasoning(reasoning)
  for (const call of asArray(message.tool_calls)) {
    const called = asObject(asObject(call)?.function)
    tally.addText(asString(called?.name) + JSON.stringify(called?.arguments ?? {}))
  }
  return { kind: 'pass', hasOutput: text !== '' || reasoning !== '' || asArray(message.tool_calls).length > 0 }
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (isAbsent(value)) return ''
  throw invalidAnswer('has content that is no text')
}
