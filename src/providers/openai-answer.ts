/** Reads whole answers of the OpenAI API: usage, model, finish reason. The body stays as it is. */
import { isObject } from '../is-object.ts'
import { estimatedUsage, openaiUsage } from './counts.ts'
import { backendError, invalidAnswer, isErrorObject } from './failures.ts'
import { asArray, asObject, asString, type JsonObject, parseObject } from './json.ts'
import { readModel } from './openai-request.ts'
import type { Answer, ReadRequest } from './provider.ts'
import { parseForFacts } from './skim.ts'

/**
 * The answer as a JSON object that is no error, by default with all that is in it. Throws what {@link backendError} says, or
 * BACKEND_ANSWER_INVALID.
 */
export function parseAnswer(answer: Uint8Array, parse = parseObject): Record<string, unknown> {
  if (answer.length === 0) throw invalidAnswer('is empty')
  const body = parse(answer)
  if (body === undefined) throw invalidAnswer('is not a JSON object')
  if (isErrorObject(body)) throw backendError(body)
  return body
}

export function readOpenaiAnswer(answer: Uint8Array, request: ReadRequest): Answer {
  const body = parseAnswer(answer, parseForFacts)
  checkContent(request, body)
  const usage = asObject(body.usage)
  const model = readModel(body)
  return {
    tokens:
      usage === undefined
        ? estimatedUsage(request.payloadBytes, answer.length, model || request.model)
        : openaiUsage(usage),
    usageSource: usage === undefined ? 'estimated' : 'provider',
    model,
    finishReason: request.kind === 'responses' ? responsesFinish(body) : finishOf(body),
    body: answer,
  }
}

/** An answer without anything in it is none. */
function checkContent({ kind }: ReadRequest, body: JsonObject): void {
  if (kind === 'embedding' && !Array.isArray(body.data)) throw invalidAnswer('has no embeddings')
  if (kind === 'responses') checkFinished(body)
  if (kind !== 'chat' && kind !== 'completion') return
  const choices = asArray(body.choices)
  if (choices.length === 0 || !choices.every(isObject)) throw invalidAnswer('has no choices')
  const isWhole = (choice: JsonObject): boolean =>
    kind === 'chat' ? isObject(choice.message) : typeof choice.text === 'string'
  if (!choices.every(isWhole)) throw invalidAnswer('has a choice with nothing in it')
}

function checkFinished({ status, output }: JsonObject): void {
  if (status === 'failed') return
  if (status !== 'completed' && status !== 'incomplete') throw invalidAnswer('is not finished')
  if (!Array.isArray(output)) throw invalidAnswer('has no output')
}

function finishOf(body: JsonObject): string {
  return asString(asObject(asArray(body.choices)[0])?.finish_reason)
}

/**
 * The finish reason of a response of the Responses API, in the words of chats; throws what {@link backendError} says of a
 * failed one. (OpenAI API reference, Response: `status`, `incomplete_details`.)
 */
export function responsesFinish(response: JsonObject): string {
  if (response.status === 'failed') throw backendError(response)
  if (response.status === 'completed') return 'stop'
  const reason = asString(asObject(response.incomplete_details)?.reason)
  return reason === 'max_output_tokens' ? 'length' : reason || asString(response.status)
}
