/** Reads whole answers of the Gemini API, and writes them as chats of the OpenAI API for callers who speak that. */
import { isObject } from '../is-object.ts'
import type { TokenParts } from '../metering/usage-event.ts'
import { type WrittenCall, type WrittenChoice, writeChat } from './chat-writer.ts'
import { disjoint, estimatedUsage, readCount } from './counts.ts'
import { invalidAnswer, untranslatable } from './failures.ts'
import { madeUpId } from './gemini-request.ts'
import { asArray, asObject, asString, isAbsent, type JsonObject, parseObject } from './json.ts'
import { parseAnswer } from './openai-answer.ts'
import { maxModelLength } from './openai-request.ts'
import type { Answer, ReadRequest } from './provider.ts'
import { parseForFacts } from './skim.ts'

export function readGeminiAnswer(answer: Uint8Array, request: ReadRequest): Answer {
  const body = parseAnswer(answer, request.dialect === 'native' ? parseForFacts : parseObject)
  const candidates = readCandidates(body)
  if (request.kind === 'chat' && candidates.length === 0) throw invalidAnswer('has no candidates')
  const model = geminiModel(body)
  const usage = asObject(body.usageMetadata)
  const tokens =
    usage === undefined
      ? estimatedUsage(request.payloadBytes, answer.length, model || request.model)
      : geminiUsage(usage)
  const choices =
    request.dialect === 'native' ? [] : candidates.map((candidate) => toChoice(candidate, asString(body.responseId)))
  const first = candidates[0]
  return {
    tokens,
    usageSource: usage === undefined ? 'estimated' : 'provider',
    model,
    finishReason: first === undefined ? '' : geminiFinish(first.finishReason, first.parts.some(isCall)),
    body: request.dialect === 'native' ? answer : writeChat(request, asString(body.responseId), model, choices, tokens),
  }
}

/** Model that served, as far as the answer says. */
export function geminiModel(body: JsonObject): string {
  return asString(body.modelVersion).slice(0, maxModelLength)
}

/**
 * `usageMetadata`. Cached tokens are part of the prompt; thoughts are beside the candidates' tokens, and results of tools
 * that the service ran itself beside the prompt. (Gemini API reference, UsageMetadata.)
 */
export function geminiUsage(usage: JsonObject): TokenParts {
  const thoughts = readCount(usage, 'thoughtsTokenCount')
  return disjoint({
    input: readCount(usage, 'promptTokenCount') + readCount(usage, 'toolUsePromptTokenCount'),
    cachedInput: readCount(usage, 'cachedContentTokenCount'),
    cacheWriteInput: 0,
    output: readCount(usage, 'candidatesTokenCount') + thoughts,
    reasoningOutput: thoughts,
  })
}

/** One candidate of an answer or of an event. */
export interface Candidate {
  readonly index: number
  readonly parts: readonly JsonObject[]
  /** Empty while it goes on. */
  readonly finishReason: string
}

/**
 * The candidates of an answer or event. A prompt that was blocked has none, and is one that the filter ended. Throws
 * BACKEND_ANSWER_INVALID for candidates that are not what they must be.
 */
export function readCandidates(body: JsonObject): Candidate[] {
  if (!isAbsent(body.candidates) && !Array.isArray(body.candidates))
    throw invalidAnswer('has candidates that are no list')
  const candidates = asArray(body.candidates)
  const blocked = asString(asObject(body.promptFeedback)?.blockReason)
  if (candidates.length === 0 && blocked !== '') return [{ index: 0, parts: [], finishReason: 'SAFETY' }]
  return candidates.map((candidate) => {
    if (!isObject(candidate)) throw invalidAnswer('has a candidate that is no object')
    const parts = asArray(asObject(candidate.content)?.parts).map((part) => {
      if (!isObject(part)) throw invalidAnswer('has a part that is no object')
      if (!isAbsent(part.text) && typeof part.text !== 'string') throw invalidAnswer('has text that is no text')
      return part
    })
    const index = typeof candidate.index === 'number' ? candidate.index : 0
    return { index, parts, finishReason: asString(candidate.finishReason) }
  })
}

export function isCall(part: JsonObject): boolean {
  return isObject(part.functionCall)
}

/** Finish reasons in the OpenAI API's words; one that it has no word for stays, in lower case. */
export function geminiFinish(finishReason: string, hasCalls: boolean): string {
  if (finishReason === 'STOP') return hasCalls ? 'tool_calls' : 'stop'
  if (finishReason === 'MAX_TOKENS') return 'length'
  return filtered.has(finishReason) ? 'content_filter' : finishReason.toLowerCase()
}

const filtered: ReadonlySet<string> = new Set([
  'SAFETY',
  'RECITATION',
  'BLOCKLIST',
  'PROHIBITED_CONTENT',
  'SPII',
  'IMAGE_SAFETY',
  'IMAGE_PROHIBITED_CONTENT',
  'IMAGE_RECITATION',
])

/**
 * A function call as the OpenAI API has it. `place` makes an id for a call without one, of which a conversation may have
 * several: it must be unique in it.
 */
export function readCall(part: JsonObject, place: string): WrittenCall {
  const call = asObject(part.functionCall) ?? {}
  return {
    id: asString(call.id) || `${madeUpId}${place}`,
    name: asString(call.name),
    arguments: JSON.stringify(asObject(call.args) ?? {}),
    thoughtSignature: asString(part.thoughtSignature),
  }
}

/** Text of a part, which is a thought or belongs to the answer; throws for what the OpenAI API has no place for. */
export function readText(part: JsonObject): { readonly text: string; readonly reasoning: string } {
  const text = asString(part.text)
  if (text === '' && Object.keys(part).some((name) => !textFields.has(name))) throw untranslatable()
  return part.thought === true ? { text: '', reasoning: text } : { text, reasoning: '' }
}

const textFields: ReadonlySet<string> = new Set(['text', 'thought', 'thoughtSignature'])

function toChoice(candidate: Candidate, responseId: string): WrittenChoice {
  const calls = candidate.parts
    .filter(isCall)
    .map((part, index) => readCall(part, `${responseId}_${candidate.index}_${index}`))
  const texts = candidate.parts.filter((part) => !isCall(part)).map(readText)
  return {
    text: texts.map(({ text }) => text).join(''),
    reasoning: texts.map(({ reasoning }) => reasoning).join(''),
    calls,
    finishReason: geminiFinish(candidate.finishReason, calls.length > 0),
  }
}
