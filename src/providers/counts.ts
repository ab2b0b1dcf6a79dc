/** Token counts as backends report them, made into disjoint parts, and estimates where nothing was reported. */
import { isObject } from '../is-object.ts'
import type { TokenParts, UsageSource } from '../metering/usage-event.ts'
import { noTokens } from '../metering/usage-event.ts'
import { invalidAnswer } from './failures.ts'
import { isAbsent, type JsonObject } from './json.ts'

/** Token counts above this are no counts: a request that allows or an answer that reports one is invalid. */
export const maxTokens = 100_000_000

export function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= maxTokens
}

/** A count of an answer; 0 when it is absent. Throws BACKEND_ANSWER_INVALID for what is no count. */
export function readCount(counts: JsonObject, name: string): number {
  return checkCount(counts[name], name)
}

/** A value as a count; 0 when it is absent. Throws BACKEND_ANSWER_INVALID, naming it, for what is no count. */
export function checkCount(value: unknown, name: string): number {
  if (isAbsent(value)) return 0
  if (!isCount(value)) throw invalidAnswer(`reports ${name} that is no count`)
  return value
}

/** What a backend says was used. */
export interface Totals {
  /** All input, cached parts included. */
  readonly input: number
  readonly cachedInput: number
  readonly cacheWriteInput: number
  /** All output, reasoning included. */
  readonly output: number
  readonly reasoningOutput: number
}

/** Disjoint parts of totals that include them. Throws BACKEND_ANSWER_INVALID when a part is larger than its whole. */
export function disjoint(totals: Totals): TokenParts {
  const input = totals.input - totals.cachedInput - totals.cacheWriteInput
  const output = totals.output - totals.reasoningOutput
  if (input < 0) throw invalidAnswer('reports more cached tokens than prompt tokens')
  if (output < 0) throw invalidAnswer('reports more reasoning tokens than output tokens')
  return { ...totals, input, output }
}

/**
 * `usage` of chat, completions, embeddings and, with `input_tokens` and `output_tokens`, of the Responses API. Parts are
 * included in the totals. Tokens written to the cache are reported "unadjusted", so they are clipped to what the rest of
 * the prompt leaves. (OpenAI API reference: CompletionUsage, ResponseUsage.)
 */
export function openaiUsage(usage: JsonObject): TokenParts {
  const isResponses = 'input_tokens' in usage || 'output_tokens' in usage
  const input = readCount(usage, isResponses ? 'input_tokens' : 'prompt_tokens')
  const output = readCount(usage, isResponses ? 'output_tokens' : 'completion_tokens')
  const inputDetails = detailsOf(usage[isResponses ? 'input_tokens_details' : 'prompt_tokens_details'])
  const outputDetails = detailsOf(usage[isResponses ? 'output_tokens_details' : 'completion_tokens_details'])
  const cachedInput = readCount(inputDetails, 'cached_tokens')
  const written = readCount(inputDetails, 'cache_write_tokens')
  return disjoint({
    input,
    cachedInput,
    cacheWriteInput: Math.max(0, Math.min(written, input - cachedInput)),
    output,
    reasoningOutput: readCount(outputDetails, 'reasoning_tokens'),
  })
}

/** Parts as the `usage` object of the OpenAI API; {@link openaiUsage} reads the same parts out of it. */
export function toOpenaiUsage(tokens: TokenParts): JsonObject {
  const prompt = tokens.input + tokens.cachedInput + tokens.cacheWriteInput
  const completion = tokens.output + tokens.reasoningOutput
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: tokens.cachedInput, cache_write_tokens: tokens.cacheWriteInput },
    completion_tokens_details: { reasoning_tokens: tokens.reasoningOutput },
  }
}

/**
 * Bytes of JSON per token for estimates, by family of models, the first that matches. A token of a vocabulary of 100,000
 * and more is about four bytes of English, of a smaller one about three; JSON's own punctuation makes the estimate err on
 * the high side. Text that is not Latin has fewer bytes a token in old vocabularies and more in new ones.
 */
const bytesPerToken: readonly (readonly [family: RegExp, bytes: number])[] = [
  [/claude|mistral|mixtral|llama-?2|qwen|deepseek|phi-/i, 3],
  [/(?:)/, 4],
]

/** Tokens that so many bytes may be to a model (by default one that nobody knows), before the backend counts them. */
export function estimateTokens(byteLength: number, model = ''): number {
  const [, bytes] = bytesPerToken.find(([family]) => family.test(model)) ?? ['', 4]
  return Math.ceil(byteLength / bytes)
}

/** Usage of a whole answer that reports none, from the bytes of request and answer. */
export function estimatedUsage(requestBytes: number, answerBytes: number, model: string): TokenParts {
  return { ...noTokens, input: estimateTokens(requestBytes, model), output: estimateTokens(answerBytes, model) }
}

/** What was delivered of a stream. */
export interface Delivered {
  readonly bytes: number
  readonly deltas: number
}

/**
 * Deltas of at most this many bytes on average are taken for one token each, as OpenAI, vLLM, llama.cpp and Ollama send
 * them; longer ones (Anthropic and Gemini send several tokens at a time) are estimated by their bytes.
 */
const maxBytesOfToken = 8

/** Tokens that were delivered, by the number of deltas or their bytes. */
export function estimateDelivered({ bytes, deltas }: Delivered, model: string): number {
  return bytes <= deltas * maxBytesOfToken ? deltas : estimateTokens(bytes, model)
}

export interface CountedUsage {
  readonly tokens: TokenParts
  readonly usageSource: UsageSource
}

/**
 * Usage of a stream that broke off: what the backend has reported of the input, else an estimate of it, and of the output
 * the larger of what it reported and what was delivered, so that counts that come late (Anthropic's first event says 1)
 * do not hide what the caller has. Nothing was used as far as anybody knows when nothing was delivered or reported.
 */
export function partialUsage(
  reported: TokenParts | undefined,
  text: Delivered,
  reasoning: Delivered,
  requestBytes: number,
  model: string,
): CountedUsage {
  if (reported === undefined && text.deltas + reasoning.deltas === 0) return { tokens: noTokens, usageSource: 'none' }
  const input = reported ?? { ...noTokens, input: estimateTokens(requestBytes, model) }
  return {
    tokens: {
      ...input,
      output: Math.max(input.output, estimateDelivered(text, model)),
      reasoningOutput: Math.max(input.reasoningOutput, estimateDelivered(reasoning, model)),
    },
    usageSource: 'partial',
  }
}

function detailsOf(value: unknown): JsonObject {
  return isObject(value) ? value : {}
}
