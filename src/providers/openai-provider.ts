import { readOpenaiAnswer } from './openai-answer.ts'
import { openaiBody, readOpenaiFacts, skimRequest } from './openai-request.ts'
import { openaiStream } from './openai-stream.ts'
import type { Provider, RequestKind } from './provider.ts'
import { responsesStream } from './responses-stream.ts'
import { createStreamReader } from './stream-reader.ts'
import { acceptEvents, acceptJson, bodyFor, operationUrl, requestHeaders } from './target.ts'

export interface OpenaiOptions {
  readonly protocol: 'openai' | 'azure_openai'
  /** False for a backend that refuses `stream_options`: its streams are billed by estimates. */
  readonly asksForUsage: boolean
}

/** Paths of the operations below the base. */
const operations: Readonly<Record<RequestKind, string | undefined>> = {
  chat: '/chat/completions',
  completion: '/completions',
  embedding: '/embeddings',
  responses: '/responses',
  generic: undefined,
}
/** The longer first: one path is the end of another. */
const paths = ['/chat/completions', '/completions', '/embeddings', '/responses']

/**
 * The OpenAI API and what is compatible with it (vLLM, llama.cpp, Ollama's `/v1`, Azure). Both dialects are the same, and
 * everything passes as bytes.
 */
export function createOpenaiProvider(options: OpenaiOptions): Provider {
  const isAzure = options.protocol === 'azure_openai'
  const root = isAzure ? '/openai/v1' : '/v1'
  return {
    protocol: options.protocol,
    framing: 'sse',
    readRequest(request) {
      const body = skimRequest(request)
      const facts = readOpenaiFacts(request, body)
      return { ...facts, body: openaiBody(request, body, facts, options.asksForUsage) }
    },
    prepare(request, target) {
      const accept = request.mode === 'stream' ? acceptEvents : acceptJson
      return {
        url: operationUrl(target.url, operations[request.kind], paths, root),
        headers: requestHeaders(isAzure ? 'api-key' : 'bearer', target, accept),
        body: bodyFor(request, target),
      }
    },
    readAnswer: readOpenaiAnswer,
    openStream: (request) =>
      createStreamReader(request, request.kind === 'responses' ? responsesStream() : openaiStream(request)),
  }
}
