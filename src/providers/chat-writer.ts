/** Writes answers and streams of the OpenAI API's chats, for answers that came in another protocol. */
import type { TokenParts } from '../metering/usage-event.ts'
import { toOpenaiUsage } from './counts.ts'
import { type JsonObject, toJsonBytes } from './json.ts'
import { doneEvent } from './openai-stream.ts'
import type { ReadRequest } from './provider.ts'
import type { Tally } from './tally.ts'

/** One choice of a whole answer. */
export interface WrittenChoice {
  readonly text: string
  /** In `reasoning_content`, where vLLM and DeepSeek put it; the OpenAI API has no place for it. */
  readonly reasoning: string
  readonly calls: readonly WrittenCall[]
  readonly finishReason: string
}

export interface WrittenCall {
  readonly id: string
  readonly name: string
  /** JSON text. */
  readonly arguments: string
  /** Google's; empty for none. */
  readonly thoughtSignature?: string
}

/** A whole answer. `id` is the backend's own. */
export function writeChat(
  request: ReadRequest,
  id: string,
  model: string,
  choices: readonly WrittenChoice[],
  usage: TokenParts,
): Uint8Array {
  return toJsonBytes({
    id: `chatcmpl-${id}`,
    object: 'chat.completion',
    created: createdOf(request),
    model,
    choices: choices.map((choice, index) => ({
      index,
      message: {
        role: 'assistant',
        content: choice.text === '' && choice.calls.length > 0 ? null : choice.text,
        refusal: null,
        ...(choice.reasoning === '' ? {} : { reasoning_content: choice.reasoning }),
        ...(choice.calls.length === 0 ? {} : { tool_calls: choice.calls.map(writeCall) }),
      },
      logprobs: null,
      finish_reason: choice.finishReason,
    })),
    usage: toOpenaiUsage(usage),
  })
}

/** A tool call as the OpenAI API has it. */
export function writeCall(call: WrittenCall): JsonObject {
  return {
    id: call.id,
    type: 'function',
    function: { name: call.name, arguments: call.arguments },
    ...(call.thoughtSignature ? { extra_content: { google: { thought_signature: call.thoughtSignature } } } : {}),
  }
}

/** Writes the chunks of one stream. */
export class ChatWriter {
  readonly #request: ReadRequest
  #id = ''
  #model = ''

  constructor(request: ReadRequest) {
    this.#request = request
  }

  /** Says whose chunks they are, before the first one. */
  name(id: string, model: string): void {
    this.#id = `chatcmpl-${id}`
    this.#model = model
  }

  chunk(index: number, delta: JsonObject, finishReason: string | null = null): Uint8Array {
    return this.#event([{ index, delta, logprobs: null, finish_reason: finishReason }], null)
  }

  /** Usage, for a caller that asked, and the end marker. */
  tail(tally: Tally): Uint8Array {
    if (!this.#request.asksUsage || tally.usage === undefined) return doneEvent
    return Buffer.concat([this.#event([], toOpenaiUsage(tally.usage)), doneEvent])
  }

  #event(choices: readonly JsonObject[], usage: JsonObject | null): Uint8Array {
    const body = {
      id: this.#id,
      object: 'chat.completion.chunk',
      created: createdOf(this.#request),
      model: this.#model,
      choices,
      ...(this.#request.asksUsage ? { usage } : {}),
    }
    return Buffer.from(`data: ${JSON.stringify(body)}\n\n`)
  }
}

function createdOf(request: ReadRequest): number {
  return Math.floor(request.startMs / 1000)
}
