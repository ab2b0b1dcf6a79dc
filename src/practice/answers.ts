import type { PracticeRequest } from './requests.ts'
import type { PracticeUsage } from './usage.ts'
import { usageJson } from './usage.ts'

/** Text of an answer: one word a token, at most 256 however many tokens are reported. */
export interface PracticeText {
  readonly words: readonly string[]
  readonly finishReason: 'stop' | 'length'
}

const vocabulary = (
  'the gate counts every token once and writes it down before the answer leaves so that a ledger may be trusted ' +
  'when nobody looks at it any more'
).split(' ')

/** Creation time of every answer, Unix seconds: fixed, so that equal requests get equal bytes. */
const created = 1_767_225_600
const maxWords = 256

/** The text for a request; equal requests get equal texts. */
export function composeText(request: PracticeRequest, usage: PracticeUsage): PracticeText {
  const length = Math.min(maxWords, usage.completionTokens - usage.reasoningTokens)
  const words: string[] = []
  let state = request.hash
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    const word = vocabulary[(state >>> 16) % vocabulary.length] ?? ''
    words.push(index === 0 ? word : ` ${word}`)
  }
  return { words, finishReason: usage.completionTokens >= request.maxTokens ? 'length' : 'stop' }
}

/** The whole unary answer as JSON; without `usage` when it is undefined. */
export function unaryAnswer(request: PracticeRequest, text: PracticeText, usage: PracticeUsage | undefined): string {
  const content = text.words.join('')
  const choice =
    request.kind === 'chat'
      ? `"message":{"role":"assistant","content":"${content}"}`
      : `"text":"${content}","logprobs":null`
  const object = request.kind === 'chat' ? 'chat.completion' : 'text_completion'
  const tail = usage === undefined ? '' : `,"usage":${usageJson(usage)}`
  return `${opening(request, object)},"choices":[{"index":0,${choice},"finish_reason":"${text.finishReason}"}]${tail}}`
}

/** The events of a streamed answer: what comes before the first token, one for each token, and what comes after. */
export interface PracticeEvents {
  readonly head: string
  readonly tokens: readonly string[]
  readonly tail: string
}

/** The events of a streamed answer as server-sent events; usage is in the tail when the caller asked and it is defined. */
export function streamEvents(
  request: PracticeRequest,
  text: PracticeText,
  usage: PracticeUsage | undefined,
): PracticeEvents {
  const chat = request.kind === 'chat'
  const start = `data: ${opening(request, chat ? 'chat.completion.chunk' : 'text_completion')},"choices":[`
  const noUsage = request.includeUsage ? ',"usage":null' : ''
  const event = (choice: string, finish: string) =>
    `${start}{"index":0,${choice},"finish_reason":${finish}}]${noUsage}}\n\n`
  const last = event(chat ? '"delta":{}' : '"text":""', `"${text.finishReason}"`)
  const totals = request.includeUsage && usage !== undefined ? `${start}],"usage":${usageJson(usage)}}\n\n` : ''
  return {
    head: chat ? event('"delta":{"role":"assistant","content":""}', 'null') : '',
    tokens: text.words.map((word) => event(chat ? `"delta":{"content":"${word}"}` : `"text":"${word}"`, 'null')),
    tail: `${last}${totals}data: [DONE]\n\n`,
  }
}

/** The answer to an embeddings request: unit-range vectors from each input's hash, as numbers or base64 of float32. */
export function embeddingsAnswer(request: PracticeRequest, usage: PracticeUsage | undefined): string {
  const data = request.inputs.map((hash, index) => {
    const vector = new Float32Array(request.dimensions)
    let state = hash
    for (let place = 0; place < vector.length; place += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      vector[place] = state / 0x80000000 - 1
    }
    const embedding = request.base64 ? Buffer.from(vector.buffer).toString('base64') : Array.from(vector)
    return { object: 'embedding', index, embedding }
  })
  const counts =
    usage === undefined ? undefined : { prompt_tokens: usage.promptTokens, total_tokens: usage.promptTokens }
  return JSON.stringify({ object: 'list', data, model: request.model, usage: counts })
}

/** An error as OpenAI-compatible servers write it. */
export function errorAnswer(status: number, message: string): string {
  const type = status === 429 ? 'rate_limit_error' : status < 500 ? 'invalid_request_error' : 'server_error'
  return JSON.stringify({ error: { message, type, param: null, code: null } })
}

function opening(request: PracticeRequest, object: string): string {
  const id = `${request.kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${request.hash.toString(16).padStart(8, '0')}`
  return `{"id":"${id}","object":"${object}","created":${created},"model":${JSON.stringify(request.model)}`
}
