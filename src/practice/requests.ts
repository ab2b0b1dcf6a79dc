import { isObject } from '../is-object.ts'

/** A request that the practice backend does not take; answered with `status` and this text. */
export class PracticeRequestError extends Error {
  readonly status: number

  constructor(message: string, status = 400) {
    super(message)
    this.name = 'PracticeRequestError'
    this.status = status
  }
}

/** What kind of answer is asked for. */
export type PracticeKind = 'chat' | 'text' | 'embeddings'

/** What counts of a request: the answer is computed from this and nothing else. */
export interface PracticeRequest {
  readonly kind: PracticeKind
  readonly model: string
  /** Tokens of the prompt: its UTF-8 bytes / 4, rounded up; prompts given as token ids count themselves. */
  readonly promptTokens: number
  /** 32-bit hash of the prompt. */
  readonly hash: number
  /** Most tokens that the caller wants; Infinity when not said. */
  readonly maxTokens: number
  readonly stream: boolean
  readonly includeUsage: boolean
  /** Hash of each embeddings input; empty for the other kinds. */
  readonly inputs: readonly number[]
  readonly dimensions: number
  readonly base64: boolean
}

const maxInputs = 2_048
const maxNumbers = 1 << 20
const hashedChars = 4_096

/** Reads a request body; throws {@link PracticeRequestError} with what is wrong. */
export function parseRequest(kind: PracticeKind, body: string): PracticeRequest {
  const request = parseObject(body)
  const { model, stream, dimensions = 8 } = request
  if (typeof model !== 'string' || model === '') throw new PracticeRequestError('model must be a string')
  const prompt = new Prompt()
  const inputs: number[] = []
  if (kind === 'chat') addMessages(prompt, request.messages)
  else if (kind === 'text') addInput(prompt, request.prompt)
  else {
    for (const input of listInputs(request.input)) {
      const one = new Prompt()
      addInput(one, input)
      addInput(prompt, input)
      inputs.push(one.hash)
    }
    if (inputs.length > maxInputs) throw new PracticeRequestError(`at most ${maxInputs} inputs`)
    if (typeof dimensions !== 'number' || !Number.isSafeInteger(dimensions) || dimensions < 1)
      throw new PracticeRequestError('dimensions must be a positive integer')
    if (inputs.length * dimensions > maxNumbers)
      throw new PracticeRequestError(`inputs times dimensions: at most ${maxNumbers}`)
  }
  const options = request.stream_options
  return {
    kind,
    model,
    promptTokens: prompt.tokens + Math.ceil(prompt.bytes / 4),
    hash: prompt.hash,
    maxTokens: readMaxTokens(request.max_completion_tokens ?? request.max_tokens),
    stream: stream === true && kind !== 'embeddings',
    includeUsage: isObject(options) && options.include_usage === true,
    inputs,
    dimensions: typeof dimensions === 'number' ? dimensions : 8,
    base64: request.encoding_format === 'base64',
  }
}

/** Parses JSON that must be an object; throws {@link PracticeRequestError} otherwise. */
export function parseObject(body: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    throw new PracticeRequestError('the body is not JSON')
  }
  if (!isObject(value)) throw new PracticeRequestError('the body must be a JSON object')
  return value
}

class Prompt {
  bytes = 0
  tokens = 0
  hash = 0x811c9dc5

  addText(text: string): void {
    this.bytes += Buffer.byteLength(text)
    // FNV-1a over the first characters and the length: a prompt of 16 MiB must not hold up the others.
    const end = Math.min(text.length, hashedChars)
    for (let index = 0; index < end; index += 1) this.#mix(text.charCodeAt(index))
    this.#mix(text.length)
  }

  addTokens(tokens: readonly number[]): void {
    this.tokens += tokens.length
    const end = Math.min(tokens.length, hashedChars)
    for (let index = 0; index < end; index += 1) this.#mix(tokens[index] ?? 0)
  }

  #mix(value: number): void {
    this.hash = Math.imul(this.hash ^ value, 0x01000193) >>> 0
  }
}

function addMessages(prompt: Prompt, messages: unknown): void {
  if (!Array.isArray(messages) || messages.length === 0)
    throw new PracticeRequestError('messages must be a non-empty array')
  for (const message of messages) {
    const content: unknown = isObject(message) ? message.content : undefined
    if (typeof content === 'string') prompt.addText(content)
    else if (Array.isArray(content)) {
      for (const part of content) if (isObject(part) && typeof part.text === 'string') prompt.addText(part.text)
    } else if (content !== null && content !== undefined) {
      throw new PracticeRequestError('content must be a string or an array of parts')
    }
  }
}

function addInput(prompt: Prompt, input: unknown): void {
  if (typeof input === 'string') prompt.addText(input)
  else if (isTokens(input)) prompt.addTokens(input)
  else if (Array.isArray(input)) for (const text of input) addInput(prompt, text)
  else throw new PracticeRequestError('the prompt must be text, token ids, or an array of them')
}

function listInputs(input: unknown): readonly unknown[] {
  return Array.isArray(input) && !isTokens(input) ? input : [input]
}

function isTokens(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'number')
}

function readMaxTokens(value: unknown): number {
  if (value === undefined || value === null) return Number.POSITIVE_INFINITY
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
  throw new PracticeRequestError('max_tokens must be a positive integer')
}
