import { readAnthropicAnswer } from './anthropic-answer.ts'
import { toAnthropic } from './anthropic-request.ts'
import { anthropicChatStream, anthropicStream } from './anthropic-stream.ts'
import { invalidRequest } from './failures.ts'
import { toJsonBytes } from './json.ts'
import { setMember } from './json-edit.ts'
import { parseRequest, readLimit, readModel, readOpenaiFacts, readStream, skimRequest } from './openai-request.ts'
import type { CallerRequest, Provider, ReadRequest } from './provider.ts'
import { createStreamReader } from './stream-reader.ts'
import { acceptEvents, acceptJson, bodyFor, operationUrl, requestHeaders } from './target.ts'

export interface AnthropicOptions {
  /** What a translated request asks for that sets no limit: the Messages API requires one. */
  readonly defaultMaxOutputTokens: number
}

/** The version of the API that this adapter was written for (https://platform.claude.com/docs/en/api/versioning). */
const apiVersion = '2023-06-01'
const messages = '/messages'

/** Anthropic's Messages API, for callers of it and for callers of the OpenAI API's chats. */
export function createAnthropicProvider(options: AnthropicOptions): Provider {
  return {
    protocol: 'anthropic',
    framing: 'sse',
    readRequest: (request) =>
      request.dialect === 'native' ? readNative(request) : readTranslated(request, options.defaultMaxOutputTokens),
    prepare(request, target) {
      const accept = request.mode === 'stream' ? acceptEvents : acceptJson
      const operation = request.kind === 'chat' ? messages : undefined
      return {
        url: operationUrl(target.url, operation, [messages], '/v1'),
        headers: { ...requestHeaders('x-api-key', target, accept), 'anthropic-version': apiVersion },
        body: bodyFor(request, target),
      }
    },
    readAnswer: readAnthropicAnswer,
    openStream: (request) =>
      createStreamReader(request, request.dialect === 'native' ? anthropicStream() : anthropicChatStream(request)),
  }
}

function readNative(request: CallerRequest): ReadRequest {
  const { payload, mode, dialect, startMs } = request
  const body = skimRequest(request)
  const asksStream = readStream(request, body)
  return {
    kind: 'messages' in body ? 'chat' : 'generic',
    mode,
    dialect,
    model: readModel(body),
    maxOutputTokens: readLimit(body, 'max_tokens'),
    choices: 1,
    asksStream,
    asksUsage: true,
    payloadBytes: payload.length,
    startMs,
    body: mode === 'unary' || asksStream ? payload : setMember(payload, ['stream'], 'true'),
  }
}

function readTranslated(request: CallerRequest, defaultMaxTokens: number): ReadRequest {
  const body = parseRequest(request)
  const facts = readOpenaiFacts(request, body)
  if (facts.kind !== 'chat')
    throw invalidRequest('', 'must be a chat: this service has nothing else for callers of the OpenAI API')
  const maxOutputTokens = facts.maxOutputTokens ?? defaultMaxTokens
  const translated = toAnthropic(body, maxOutputTokens, request.mode === 'stream')
  return { ...facts, maxOutputTokens, body: toJsonBytes(translated) }
}
