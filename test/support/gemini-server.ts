/**
 * A server of the Gemini API, after its public documentation:
 * - https://ai.google.dev/api/generate-content (methods, GenerateContentResponse, UsageMetadata)
 * - https://ai.google.dev/gemini-api/docs/thought-signatures (a call's signature must come back with it)
 * - https://ai.google.dev/gemini-api/docs/troubleshooting (statuses)
 */
import { at, everywhere, has, type Json, list, member } from './json.ts'
import {
  countWords,
  type ProviderAnswer,
  type ProviderFault,
  type ProviderRequest,
  type ProviderServer,
  startProviderServer,
  type Turn,
  turnOf,
} from './provider-server.ts'

export const geminiModel = 'gemini-test-3'

const signature = 'c2lnbmF0dXJl'
const whole = `/v1beta/models/${geminiModel}:generateContent`
const stream = `/v1beta/models/${geminiModel}:streamGenerateContent?alt=sse`

/** Refuses every key but `key`. */
export function startGeminiServer(key: string): Promise<ProviderServer> {
  let responses = 0
  return startProviderServer((request, fault) => refusal(request, key, fault) ?? answer(request, `r${++responses}`))
}

function refusal(
  { path, headers, body }: ProviderRequest,
  key: string,
  fault: ProviderFault,
): ProviderAnswer | undefined {
  if (headers['x-goog-api-key'] !== key) {
    const info = {
      '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
      reason: 'API_KEY_INVALID',
      domain: 'googleapis.com',
    }
    return failed(400, 'INVALID_ARGUMENT', 'API key not valid. Please pass a valid API key.', [info])
  }
  if (path !== whole && path !== stream) return failed(404, 'NOT_FOUND', `${path} is not found for API version v1beta`)
  if (!has(body, 'contents')) return failed(400, 'INVALID_ARGUMENT', 'contents is not specified')
  const parts = everywhere(at(body, 'contents'), 'parts').flatMap(list)
  if (parts.some((part) => has(part, 'functionCall') && !has(part, 'thoughtSignature'))) {
    return failed(400, 'INVALID_ARGUMENT', 'Function call is missing a thought_signature in functionCall parts.')
  }
  if (fault === 'overloaded') return failed(503, 'UNAVAILABLE', 'The model is overloaded. Please try again later.')
  if (fault === 'too_long') {
    const message = 'The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).'
    return failed(400, 'INVALID_ARGUMENT', message)
  }
  return undefined
}

function failed(code: number, status: string, message: string, details: readonly Json[] = []): ProviderAnswer {
  return { status: code, body: { error: { code, message, status, ...(details.length > 0 && { details }) } } }
}

function answer({ path, body }: ProviderRequest, responseId: string): ProviderAnswer {
  const turn = turnOf(has(body, 'tools'), everywhere(body, 'functionResponse').length > 0)
  const promptTokenCount = countWords(at(body, 'contents')) + countWords(member(body, 'systemInstruction'))
  const candidatesTokenCount = countWords([...turn.texts]) + (turn.call === undefined ? 0 : 12)
  const usage = {
    promptTokenCount,
    // A system instruction counts as read from the cache.
    cachedContentTokenCount: countWords(member(body, 'systemInstruction')),
    candidatesTokenCount,
    thoughtsTokenCount: 5,
    totalTokenCount: promptTokenCount + candidatesTokenCount + 5,
  }
  const respond = (parts: readonly Json[], more: { readonly [name: string]: Json }, counts: Json = usage): Json => ({
    candidates: [{ content: { parts, role: 'model' }, index: 0, ...more }],
    usageMetadata: counts,
    modelVersion: geminiModel,
    responseId,
  })
  const calls = callsOf(turn)
  const finish = { finishReason: 'STOP' }
  if (path === whole) return { status: 200, body: respond([{ text: turn.texts.join('') }, ...calls], finish) }
  const documents = [
    ...turn.texts.map((text) => respond([{ text }], {}, { promptTokenCount, totalTokenCount: promptTokenCount })),
    ...calls.map((call) => respond([call], {})),
    respond([{ text: '' }], finish),
  ]
  const error = { error: { code: 503, message: 'The model is overloaded.', status: 'UNAVAILABLE' } }
  return { events: documents.map(event), failure: event(error), delivered: 1 }
}

function callsOf({ call }: Turn): Json[] {
  if (call === undefined) return []
  return [{ functionCall: { name: call.name, args: { city: call.city } }, thoughtSignature: signature }]
}

function event(document: Json): string {
  return `data: ${JSON.stringify(document)}\r\n\r\n`
}

/** Text and function calls of answers, or of a stream's events. */
export function readGemini(documents: readonly Json[]): { text: string; calls: Json[] } {
  const parts = documents.flatMap((document) => everywhere(document, 'parts').flatMap(list))
  const called = parts.flatMap((part) => (has(part, 'functionCall') ? [at(part, 'functionCall')] : []))
  return {
    text: parts.map((part) => member(part, 'text') ?? '').join(''),
    calls: called.map((call) => ({ name: at(call, 'name'), arguments: at(call, 'args') })),
  }
}
