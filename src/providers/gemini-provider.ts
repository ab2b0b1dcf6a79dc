import { maxTokens } from './counts.ts'
import { invalidRequest } from './failures.ts'
import { readGeminiAnswer } from './gemini-answer.ts'
import { toGemini } from './gemini-request.ts'
import { geminiChatStream, geminiStream } from './gemini-stream.ts'
import { asObject, isAbsent, toJsonBytes } from './json.ts'
import { parseRequest, readLimit, readModel, readOpenaiFacts, skimRequest } from './openai-request.ts'
import type { CallerRequest, Mode, Provider, ReadRequest } from './provider.ts'
import { createStreamReader } from './stream-reader.ts'
import { acceptEvents, acceptJson, isHost, requestHeaders, splitUrl } from './target.ts'

/**
 * The Gemini API, and Vertex AI with `auth` bearer, for callers of it and for callers of the OpenAI API's chats. In its own
 * protocol the address says the model and whether it is a stream, and the body neither.
 */
export function createGeminiProvider(): Provider {
  return {
    protocol: 'gemini',
    framing: 'sse',
    readRequest: (request) => (request.dialect === 'native' ? readNative(request) : readTranslated(request)),
    prepare: (request, target) => ({
      url: geminiUrl(target.url, target.model || request.model, request.mode, request.kind === 'chat'),
      headers: requestHeaders('x-goog-api-key', target, request.mode === 'stream' ? acceptEvents : acceptJson),
      body: request.body,
    }),
    readAnswer: readGeminiAnswer,
    openStream: (request) =>
      createStreamReader(request, request.dialect === 'native' ? geminiStream(request) : geminiChatStream(request)),
  }
}

/**
 * The address of a generation.
 *
 * | registered URL | address |
 * |---|---|
 * | no path | `/v1beta/models/MODEL:METHOD` is added |
 * | ends in `/models/NAME` or `/models/NAME:METHOD` | the method is exchanged; the name stays |
 * | ends in anything else, for example `/v1beta` or `/publishers/google` | `/models/MODEL:METHOD` is added |
 *
 * Other calls than generations go to the URL as it stands.
 */
function geminiUrl(url: string, model: string, mode: Mode, isGeneration: boolean): string {
  if (!isGeneration) return url
  const { path, query } = splitUrl(url)
  const named = /^(.*\/models\/[^/:]+)(?::\w+)?$/.exec(path)?.[1]
  const base = isHost(path) ? path.replace(/\/?$/, '/v1beta') : path.replace(/\/$/, '')
  if (named === undefined && model === '') throw invalidRequest('model', 'must name a model')
  const target = named ?? `${base}/models/${encodeURIComponent(model.replace(/^models\//, ''))}`
  if (mode === 'unary') return `${target}:generateContent${query}`
  const others = query.replace(/([?&])alt=[^&]*&?/, '$1').replace(/[?&]$/, '')
  return `${target}:streamGenerateContent${others === '' ? '?' : `${others}&`}alt=sse`
}

function readNative(request: CallerRequest): ReadRequest {
  const { payload, mode, dialect, startMs } = request
  const body = skimRequest(request)
  const kind = 'contents' in body ? 'chat' : 'generic'
  if (kind === 'generic' && mode === 'stream')
    throw invalidRequest('contents', 'must be there: only they have a stream')
  const config = asObject(body.generationConfig) ?? {}
  const choices = readLimit(config, 'candidateCount', 1, 'generationConfig.') ?? 1
  const ceiling = readLimit(config, 'maxOutputTokens', 0, 'generationConfig.')
  return {
    kind,
    mode,
    dialect,
    model: readModel(body),
    maxOutputTokens: ceiling === undefined ? undefined : Math.min(ceiling * choices, maxTokens),
    choices,
    asksStream: mode === 'stream',
    asksUsage: true,
    payloadBytes: payload.length,
    startMs,
    body: payload,
  }
}

function readTranslated(request: CallerRequest): ReadRequest {
  const body = parseRequest(request)
  const facts = readOpenaiFacts(request, body)
  if (facts.kind !== 'chat')
    throw invalidRequest('', 'must be a chat: this service has nothing else for callers of the OpenAI API')
  const { max_completion_tokens: newer, max_tokens: older } = body
  const limit = isAbsent(newer) ? older : newer
  return { ...facts, body: toJsonBytes(toGemini(body, typeof limit === 'number' ? limit : undefined)) }
}
