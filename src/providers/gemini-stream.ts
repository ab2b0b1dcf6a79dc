/**
 * Reads the streams of the Gemini API (`streamGenerateContent?alt=sse`, https://ai.google.dev/api/generate-content), and
 * writes them as chunks of the OpenAI API for callers who speak that. Each event is an answer of its own with the next
 * parts; usage is cumulative, the last one counts; there is no end marker.
 */
import { ChatWriter, writeCall } from './chat-writer.ts'
import {
  type Candidate,
  geminiFinish,
  geminiModel,
  geminiUsage,
  isCall,
  readCall,
  readCandidates,
  readText,
} from './gemini-answer.ts'
import { asObject, asString, type JsonObject } from './json.ts'
import { Choices } from './openai-stream.ts'
import type { ReadRequest } from './provider.ts'
import { hidden, type Interpreter, type Reading } from './stream-reader.ts'
import type { Tally } from './tally.ts'

const nothing = new Uint8Array()

/** For callers of the Gemini API: everything passes. */
export function geminiStream(request: ReadRequest): Interpreter {
  return interpreter(request, undefined)
}

/** For callers of the OpenAI API. */
export function geminiChatStream(request: ReadRequest): Interpreter {
  const writer = new ChatWriter(request)
  return { ...interpreter(request, new Translation(writer)), tail: (tally) => writer.tail(tally) }
}

function interpreter(request: ReadRequest, translation: Translation | undefined): Interpreter {
  const choices = new Choices(request.choices)
  /** Choices that called a function: that is why they stopped, though the reason says STOP. */
  const callers = new Set<number>()
  return {
    framing: 'sse',
    endMarker: undefined,
    read(body, tally) {
      const candidates = readCandidates(body)
      if (tally.model === '') tally.model = geminiModel(body)
      const usage = asObject(body.usageMetadata)
      if (usage !== undefined) tally.usage = geminiUsage(usage)
      const written = translation?.write(body, candidates, tally)
      const before = tally.text.deltas + tally.reasoning.deltas
      for (const candidate of candidates) count(candidate, choices, callers, tally)
      const hasOutput = tally.text.deltas + tally.reasoning.deltas > before
      return reading(written, hasOutput)
    },
    isFinished: (sawEnd) => choices.areFinished(sawEnd),
    tail: () => nothing,
  }
}

function reading(written: Uint8Array | undefined, hasOutput: boolean): Reading {
  if (written === undefined) return { kind: 'pass', hasOutput }
  return written.length === 0 ? hidden : { kind: 'write', bytes: written, hasOutput }
}

function count(candidate: Candidate, choices: Choices, callers: Set<number>, tally: Tally): void {
  const { index, parts, finishReason } = candidate
  choices.begin(index)
  for (const part of parts) {
    const call = asObject(part.functionCall)
    if (call !== undefined) {
      callers.add(index)
      tally.addText(asString(call.name) + JSON.stringify(asObject(call.args) ?? {}))
    } else if (part.thought === true) tally.addReasoning(asString(part.text))
    else tally.addText(asString(part.text))
  }
  if (finishReason === '') return
  choices.finish(index)
  tally.finishReason = geminiFinish(finishReason, callers.has(index))
}

/** What was already said of each choice of a stream. */
class Translation {
  readonly #writer: ChatWriter
  readonly #begun = new Set<number>()
  readonly #calls = new Map<number, number>()

  constructor(writer: ChatWriter) {
    this.#writer = writer
  }

  write(body: JsonObject, candidates: readonly Candidate[], tally: Tally): Uint8Array {
    const responseId = asString(body.responseId)
    if (this.#begun.size === 0) this.#writer.name(responseId, tally.model)
    return Buffer.concat(candidates.flatMap((candidate) => this.#writeCandidate(candidate, responseId)))
  }

  #writeCandidate({ index, parts, finishReason }: Candidate, responseId: string): Uint8Array[] {
    const chunks: Uint8Array[] = []
    if (!this.#begun.has(index)) chunks.push(this.#writer.chunk(index, { role: 'assistant', content: '' }))
    this.#begun.add(index)
    for (const part of parts) {
      const delta = isCall(part) ? this.#writeCall(part, index, responseId) : writeText(part)
      if (delta !== undefined) chunks.push(this.#writer.chunk(index, delta))
    }
    if (finishReason !== '') {
      chunks.push(this.#writer.chunk(index, {}, geminiFinish(finishReason, this.#calls.has(index))))
    }
    return chunks
  }

  #writeCall(part: JsonObject, choice: number, responseId: string): JsonObject {
    const index = this.#calls.get(choice) ?? 0
    this.#calls.set(choice, index + 1)
    return { tool_calls: [{ index, ...writeCall(readCall(part, `${responseId}_${choice}_${index}`)) }] }
  }
}

function writeText(part: JsonObject): JsonObject | undefined {
  const { text, reasoning } = readText(part)
  if (reasoning !== '') return { reasoning_content: reasoning }
  return text === '' ? undefined : { content: text }
}
