/**
 * Reads what the gate must know out of OpenAI-compatible bodies: the ceiling of the answer from a request, and usage
 * from an answer. Bodies themselves pass unchanged.
 *
 * Totals include their parts here: cached tokens are part of `prompt_tokens`, reasoning tokens of `completion_tokens`
 * (OpenAI API reference, "usage" of chat.completions).
 */
import { TollgateError } from '../errors.ts'
import type { TokenParts, UsageSource } from '../metering/usage-event.ts'
import { isObject, parseObject } from './json.ts'

/** What a request says about the answer that it wants. */
export interface RequestFacts {
  /** Most output tokens that the request allows, over all its choices; undefined when it sets no limit. */
  readonly maxOutputTokens: number | undefined
  /** Answers that the backend makes for it, `n` or `best_of`; at least 1. */
  readonly choices: number
  /** Model that it names; empty when it names none. */
  readonly model: string
}

export interface ReportedUsage {
  readonly tokens: TokenParts
  readonly source: UsageSource
  /** Model named by the answer; empty when it names none. */
  readonly model: string
}

/** Token counts above this are no counts: an answer that reports one is invalid. */
const maxTokens = 100_000_000

/**
 * Bytes of JSON per token for estimates, by family of models, the first that matches. A token of a vocabulary of 100,000
 * and more is about four bytes of English, of a smaller one about three; JSON's own punctuation makes the estimate err on
 * the high side. Text that is not Latin has fewer bytes a token in old vocabularies and more in new ones.
 */
const bytesPerToken: readonly (readonly [family: RegExp, bytes: number])[] = [
  [/claude|mistral|mixtral|llama-?2|qwen|deepseek|phi-/i, 3],
  [/(?:)/, 4],
]

/** Throws INVALID_ARGUMENT naming `payload` for anything but a JSON object that asks for one whole answer. */
export function readRequest(payload: Uint8Array): RequestFacts {
  const body = parseObject(payload)
  if (body === undefined) throw invalidPayload('must be a JSON object')
  if (body.stream === true) throw invalidPayload('must not ask for a stream: this RPC returns one whole answer')
  const model = typeof body.model === 'string' ? body.model.slice(0, 128) : ''
  const choices = Math.max(choicesOf(body.n, 'n'), choicesOf(body.best_of, 'best_of'))
  // Backends know one name or the other: whichever counts, the larger one is reserved.
  const ceilings = [body.max_completion_tokens, body.max_tokens].filter(
    (value) => value !== undefined && value !== null,
  )
  if (ceilings.length === 0) return { maxOutputTokens: undefined, choices, model }
  let ceiling = 0
  for (const value of ceilings) {
    if (!isCount(value)) throw invalidPayload(`must have max_tokens as an integer from 0 to ${maxTokens}`)
    ceiling = Math.max(ceiling, value)
  }
  return { maxOutputTokens: Math.min(ceiling * choices, maxTokens), choices, model }
}

/** Tokens that so many bytes may be to a model (by default one that nobody knows), before the backend counts them. */
export function estimateTokens(byteLength: number, model = ''): number {
  const [, bytes] = bytesPerToken.find(([family]) => family.test(model)) ?? ['', 4]
  return Math.ceil(byteLength / bytes)
}

/**
 * Usage of a whole answer. An answer without usage is estimated from its bytes and says so.
 * Throws BACKEND_ANSWER_INVALID when the answer is no JSON object or its counts cannot be true.
 */
export function readUsage(answer: Uint8Array, requestBytes: number): ReportedUsage {
  const body = parseObject(answer)
  if (body === undefined) throw invalidAnswer('is not a JSON object')
  const model = typeof body.model === 'string' ? body.model.slice(0, 128) : ''
  const usage = body.usage
  if (!isObject(usage)) return { tokens: estimated(requestBytes, answer.length, model), source: 'estimated', model }
  const input = count(usage.prompt_tokens, 'prompt_tokens')
  const output = count(usage.completion_tokens, 'completion_tokens')
  const cached = detail(usage.prompt_tokens_details, 'cached_tokens')
  const reasoning = detail(usage.completion_tokens_details, 'reasoning_tokens')
  if (cached > input) throw invalidAnswer('reports more cached tokens than prompt tokens')
  if (reasoning > output) throw invalidAnswer('reports more reasoning tokens than completion tokens')
  return {
    tokens: {
      input: input - cached,
      cachedInput: cached,
      cacheWriteInput: 0,
      output: output - reasoning,
      reasoningOutput: reasoning,
    },
    source: 'provider',
    model,
  }
}

function estimated(requestBytes: number, answerBytes: number, model: string): TokenParts {
  return {
    input: estimateTokens(requestBytes, model),
    cachedInput: 0,
    cacheWriteInput: 0,
    output: estimateTokens(answerBytes, model),
    reasoningOutput: 0,
  }
}

function choicesOf(value: unknown, name: string): number {
  if (value === undefined || value === null) return 1
  if (!isCount(value) || value === 0) throw invalidPayload(`must have ${name} as a positive integer`)
  return value
}

function detail(details: unknown, name: string): number {
  return isObject(details) ? count(details[name], name) : 0
}

/** Absent counts are 0: embeddings have no completion_tokens. */
function count(value: unknown, name: string): number {
  if (value === undefined || value === null) return 0
  if (!isCount(value)) throw invalidAnswer(`reports ${name} that is no count`)
  return value
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= maxTokens
}

function invalidPayload(description: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `payload ${description}`, {
    fields: [{ field: 'payload', description }],
    metadata: { field: 'payload' },
  })
}

function invalidAnswer(what: string): TollgateError {
  return new TollgateError('BACKEND_ANSWER_INVALID', `The service's backend sent an answer that ${what}.`)
}
