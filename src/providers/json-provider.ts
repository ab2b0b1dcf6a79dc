import { TollgateError } from '../errors.ts'
import { checkCount, disjoint, estimatedUsage, isCount, maxTokens } from './counts.ts'
import { invalidRequest } from './failures.ts'
import { asString, isAbsent } from './json.ts'
import { type JsonPointer, parsePointer, resolvePointer } from './json-pointer.ts'
import { parseAnswer } from './openai-answer.ts'
import { maxModelLength, parseRequest } from './openai-request.ts'
import type { Answer, CallerRequest, Provider, ReadRequest } from './provider.ts'
import { acceptJson, requestHeaders } from './target.ts'

/** Where the bodies of a service tell what matters, each as a JSON Pointer; undefined where they do not. */
export interface JsonPointers {
  /** In the answer: all input tokens, and the part of them that was cached. */
  readonly inputTokens?: string
  readonly cachedInputTokens?: string
  /** In the answer: all output tokens, and the part of them that was reasoning. */
  readonly outputTokens?: string
  readonly reasoningOutputTokens?: string
  readonly answerModel?: string
  readonly finishReason?: string
  /** In the request. */
  readonly maxOutputTokens?: string
  readonly requestModel?: string
}

/**
 * Any JSON over HTTP that answers as a whole: bodies pass as bytes to the URL as it stands, and usage is read where the
 * pointers say. Throws INVALID_ARGUMENT, naming it, for a pointer that is none.
 */
export function createJsonProvider(texts: JsonPointers): Provider {
  const pointers = parsePointers(texts)
  return {
    protocol: 'json',
    framing: undefined,
    readRequest: (request) => readJsonRequest(request, pointers),
    prepare: (request, target) => ({
      url: target.url,
      headers: requestHeaders('bearer', target, acceptJson),
      body: request.body,
    }),
    readAnswer: (answer, request) => readJsonAnswer(answer, request, pointers),
    openStream() {
      throw new TollgateError('INTERNAL', 'A service that speaks plain JSON has no streams.')
    },
  }
}

type Pointers = { readonly [K in keyof JsonPointers]?: JsonPointer }

function parsePointers(texts: JsonPointers): Pointers {
  const parsed = Object.entries(texts).map(([name, text]) => {
    const pointer = parsePointer(text)
    if (pointer === undefined) {
      throw new TollgateError('INVALID_ARGUMENT', `${name} must be a JSON Pointer`, {
        fields: [{ field: name, description: 'must be a JSON Pointer (RFC 6901)' }],
        metadata: { field: name },
      })
    }
    return [name, pointer] as const
  })
  return Object.fromEntries(parsed)
}

function readJsonRequest(request: CallerRequest, pointers: Pointers): ReadRequest {
  const { payload, mode, dialect, startMs } = request
  if (dialect !== 'native') throw invalidRequest('', "must be of the service's own API: it is no OpenAI API")
  if (mode === 'stream') throw invalidRequest('', 'cannot have a stream: this service answers as a whole')
  const body = parseRequest(request)
  const limit = at(pointers.maxOutputTokens, body)
  if (!isAbsent(limit) && !isCount(limit)) {
    const param = (pointers.maxOutputTokens ?? []).join('.')
    throw invalidRequest(param, `must be an integer from 0 to ${maxTokens}`)
  }
  return {
    kind: 'generic',
    mode,
    dialect,
    model: asString(at(pointers.requestModel, body)).slice(0, maxModelLength),
    maxOutputTokens: limit ?? undefined,
    choices: 1,
    asksStream: false,
    asksUsage: false,
    payloadBytes: payload.length,
    startMs,
    body: payload,
  }
}

function readJsonAnswer(answer: Uint8Array, request: ReadRequest, pointers: Pointers): Answer {
  const body = parseAnswer(answer)
  const input = at(pointers.inputTokens, body)
  const output = at(pointers.outputTokens, body)
  const model = asString(at(pointers.answerModel, body)).slice(0, maxModelLength)
  const isReported = !isAbsent(input) || !isAbsent(output)
  return {
    tokens: isReported
      ? disjoint({
          input: checkCount(input, 'input tokens'),
          cachedInput: checkCount(at(pointers.cachedInputTokens, body), 'cached tokens'),
          cacheWriteInput: 0,
          output: checkCount(output, 'output tokens'),
          reasoningOutput: checkCount(at(pointers.reasoningOutputTokens, body), 'reasoning tokens'),
        })
      : estimatedUsage(request.payloadBytes, answer.length, model || request.model),
    usageSource: isReported ? 'provider' : 'estimated',
    model,
    finishReason: asString(at(pointers.finishReason, body)),
    body: answer,
  }
}

function at(pointer: JsonPointer | undefined, document: unknown): unknown {
  return pointer === undefined ? undefined : resolvePointer(pointer, document)
}
