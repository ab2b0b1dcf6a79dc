/**
 * Reads the streams of chats and completions (OpenAI API reference, "chat.completion.chunk"), as OpenAI, Azure, vLLM,
 * llama.cpp and Ollama send them. Their particulars:
 *
 * - OpenAI tells usage in one chunk with empty `choices` before `[DONE]`; vLLM, asked for it, in each chunk, cumulative;
 *   llama.cpp also in the last chunk of a choice. The last one counts.
 * - Azure begins with a chunk with empty `choices` and no usage (filter results): it passes.
 * - Reasoning comes as `reasoning_content` (vLLM, llama.cpp, DeepSeek) or `reasoning` (Ollama, newer vLLM).
 * - Some do not know `n`, and some send no `[DONE]`.
 */
import { isObject } from '../is-object.ts'
import { openaiUsage } from './counts.ts'
import { invalidAnswer } from './failures.ts'
import { asArray, asObject, isAbsent, type JsonObject } from './json.ts'
import { readModel } from './openai-request.ts'
import type { ReadRequest } from './provider.ts'
import { hidden, type Interpreter, passed, type Reading } from './stream-reader.ts'
import type { Tally } from './tally.ts'

export const doneMarker = '[DONE]'
export const doneEvent: Uint8Array = Buffer.from(`data: ${doneMarker}\n\n`)

export function openaiStream(request: ReadRequest): Interpreter {
  const choices = new Choices(request.choices)
  return {
    framing: 'sse',
    endMarker: doneMarker,
    read(body, tally) {
      if (tally.model === '') tally.model = readModel(body)
      const usage = asObject(body.usage)
      if (usage !== undefined) tally.usage = openaiUsage(usage)
      if (isAbsent(body.choices)) return passed
      if (!Array.isArray(body.choices)) throw invalidAnswer('has choices that are no list')
      if (body.choices.length === 0) return usage === undefined || request.asksUsage ? passed : hidden
      return readChoices(body.choices, choices, tally)
    },
    isFinished: (sawEnd) => choices.areFinished(sawEnd),
    tail: () => doneEvent,
  }
}

/** Which choices of a stream have begun, and which have their finish reason. */
export class Choices {
  readonly #expected: number
  readonly #begun = new Set<number>()
  readonly #finished = new Set<number>()

  constructor(expected: number) {
    this.#expected = expected
  }

  begin(index: number): void {
    this.#begun.add(index)
  }

  finish(index: number): void {
    this.#begun.add(index)
    this.#finished.add(index)
  }

  /**
   * Every choice that began has finished. Fewer than were asked for are enough only when the end marker came: some
   * servers do not know `n`, but a stream without its end may as well have lost a choice.
   */
  areFinished(sawEnd: boolean): boolean {
    const { size } = this.#finished
    return size > 0 && size === this.#begun.size && (sawEnd || size >= this.#expected)
  }
}

const outputPassed: Reading = { kind: 'pass', hasOutput: true }

function readChoices(list: readonly unknown[], choices: Choices, tally: Tally): Reading {
  const { text, reasoning } = tally
  const before = text.deltas + reasoning.deltas
  let only: Extract<Reading, { kind: 'pass' }>['delta']
  for (const choice of list) {
    if (!isObject(choice)) throw invalidAnswer('has a choice that is no object')
    only = readChoice(choice, choices, tally)
  }
  const added = text.deltas + reasoning.deltas - before
  if (added === 0) return passed
  return added === 1 && only !== undefined ? { kind: 'pass', hasOutput: true, delta: only } : outputPassed
}

function readChoice(choice: JsonObject, choices: Choices, tally: Tally): Extract<Reading, { kind: 'pass' }>['delta'] {
  const index = typeof choice.index === 'number' ? choice.index : 0
  choices.begin(index)
  if (typeof choice.finish_reason === 'string') {
    choices.finish(index)
    tally.finishReason = choice.finish_reason
  } else if (!isAbsent(choice.finish_reason)) throw invalidAnswer('has a finish reason that is no text')
  const { delta } = choice
  if (!isAbsent(delta) && !isObject(delta)) throw invalidAnswer('has a delta that is no object')
  const text = textOf(delta?.content, 'content') + textOf(choice.text, 'text')
  const reasoning = textOf(delta?.reasoning_content, 'reasoning_content') || textOf(delta?.reasoning, 'reasoning')
  tally.addText(text)
  tally.addReasoning(reasoning)
  tally.addText(textOf(delta?.refusal, 'refusal'))
  for (const call of asArray(delta?.tool_calls)) {
    const called = asObject(asObject(call)?.function)
    tally.addText(textOf(called?.name, 'name') + textOf(called?.arguments, 'arguments'))
  }
  if (text !== '') return { of: 'text', text }
  return reasoning === '' ? undefined : { of: 'reasoning', text: reasoning }
}

/** A text; parts with texts are joined, as Mistral sends reasoning. Throws BACKEND_ANSWER_INVALID for anything else. */
function textOf(value: unknown, name: string): string {
  if (typeof value === 'string') return value
  if (isAbsent(value)) return ''
  if (!Array.isArray(value)) throw invalidAnswer(`has ${name} that is no text`)
  return value.map((part) => partText(asObject(part))).join('')
}

function partText(part: JsonObject | undefined): string {
  if (typeof part?.text === 'string') return part.text
  return Array.isArray(part?.thinking) ? part.thinking.map((inner) => partText(asObject(inner))).join('') : ''
}
