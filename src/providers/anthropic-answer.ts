/** Reads whole answers of the Messages API, and writes them as chats of the OpenAI API for callers who speak that. */

import { isObject } from '../is-object.ts'
import type { TokenParts } from '../metering/usage-event.ts'
import { type WrittenCall, writeChat } from './chat-writer.ts'
import { estimatedUsage, readCount } from './counts.ts'
import { invalidAnswer, untranslatable } from './failures.ts'
import { asArray, asObject, asString, isAbsent, type JsonObject, parseObject } from './json.ts'
import { parseAnswer } from './openai-answer.ts'
import { readModel } from './openai-request.ts'
import type { Answer, ReadRequest } from './provider.ts'
import { parseForFacts } from './skim.ts'

export function readAnthropicAnswer(answer: Uint8Array, request: ReadRequest): Answer {
  const body = parseAnswer(answer, request.dialect === 'native' ? parseForFacts : parseObject)
  if (request.kind === 'chat' && !Array.isArray(body.content)) throw invalidAnswer('has no content')
  const model = readModel(body)
  const usage = asObject(body.usage)
  const tokens =
    usage === undefined
      ? estimatedUsage(request.payloadBytes, answer.length, model || request.model)
      : anthropicUsage(usage)
  const finishReason = anthropicFinish(asString(body.stop_reason))
  return {
    tokens,
    usageSource: usage === undefined ? 'estimated' : 'provider',
    model,
    finishReason,
    body: request.dialect === 'native' ? answer : toChat(body, request, model, finishReason, tokens),
  }
}

/**
 * `usage` of the Messages API. Cached tokens are not part of `input_tokens`: the three add up. Thinking is part of
 * `output_tokens`. (Messages API reference, `usage`.)
 */
export function anthropicUsage(usage: JsonObject): TokenParts {
  const output = readCount(usage, 'output_tokens')
  const reasoningOutput = readCount(asObject(usage.output_tokens_details) ?? {}, 'thinking_tokens')
  if (reasoningOutput > output) throw invalidAnswer('reports more reasoning tokens than output tokens')
  return {
    input: readCount(usage, 'input_tokens'),
    cachedInput: readCount(usage, 'cache_read_input_tokens'),
    cacheWriteInput: readCount(usage, 'cache_creation_input_tokens'),
    output: output - reasoningOutput,
    reasoningOutput,
  }
}

/** Stop reasons in the OpenAI API's words; one that it has no word for stays. */
export function anthropicFinish(stopReason: string): string {
  return finishReasons[stopReason] ?? stopReason
}

const finishReasons: Readonly<Record<string, string>> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  max_tokens: 'length',
  model_context_window_exceeded: 'length',
  tool_use: 'tool_calls',
  refusal: 'content_filter',
}

function toChat(
  body: JsonObject,
  request: ReadRequest,
  model: string,
  finishReason: string,
  tokens: TokenParts,
): Uint8Array {
  let text = ''
  let reasoning = ''
  const calls: WrittenCall[] = []
  for (const block of asArray(body.content)) {
    if (!isObject(block)) throw invalidAnswer('has a block that is no object')
    if (block.type === 'text') text += asString(block.text)
    else if (block.type === 'thinking') reasoning += asString(block.thinking)
    else if (block.type === 'tool_use') calls.push(writeToolCall(block))
    else if (block.type !== 'redacted_thinking') throw untranslatable()
  }
  return writeChat(request, asString(body.id), model, [{ text, reasoning, calls, finishReason }], tokens)
}

function writeToolCall(block: JsonObject): WrittenCall {
  const { input } = block
  if (!isAbsent(input) && !isObject(input)) throw invalidAnswer('calls a tool with no object')
  return { id: asString(block.id), name: asString(block.name), arguments: JSON.stringify(input ?? {}) }
}
