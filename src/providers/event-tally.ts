import { anthropicStream } from './anthropic-stream.ts'
import { geminiStream } from './gemini-stream.ts'
import { asString, type JsonObject, parseObject } from './json.ts'
import { ollamaStream } from './ollama-provider.ts'
import { openaiStream } from './openai-stream.ts'
import type { ReadRequest, StreamReport } from './provider.ts'
import { responsesStream } from './responses-stream.ts'
import type { Interpreter } from './stream-reader.ts'
import { Tally } from './tally.ts'

/**
 * Counts what the events of a stream deliver whose protocol nobody has told, so that a stream that breaks off can be
 * charged for what came. The first event that is of a known protocol says which one it is.
 */
export class EventTally {
  readonly #request: ReadRequest
  readonly #tally = new Tally()
  #interpreter: Interpreter | undefined

  constructor(request: ReadRequest) {
    this.#request = request
  }

  /** Counts one event, by its data. What cannot be read counts nothing: whether it may be there, others have judged. */
  add(data: Uint8Array): void {
    const body = parseObject(data)
    if (body === undefined) return
    this.#interpreter ??= interpreterOf(body, this.#request)
    try {
      this.#interpreter?.read(body, this.#tally)
    } catch {
      // As above.
    }
  }

  /** What a stream that ends now has used. */
  report(): StreamReport {
    return this.#tally.report(this.#request, false)
  }
}

function interpreterOf(body: JsonObject, request: ReadRequest): Interpreter | undefined {
  const type = asString(body.type)
  if ('choices' in body) return openaiStream(request)
  if ('candidates' in body || 'usageMetadata' in body) return geminiStream(request)
  if (type.startsWith('response.')) return responsesStream()
  if (type.startsWith('message_') || type.startsWith('content_block_')) return anthropicStream()
  return 'done' in body ? ollamaStream() : undefined
}
