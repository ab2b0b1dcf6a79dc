/**
 * Reads the streams of the Responses API (OpenAI API reference, "Streaming events"): typed events, usage and status in the
 * last of them, no end marker.
 */
import { openaiUsage } from './counts.ts'
import { asObject, asString } from './json.ts'
import { responsesFinish } from './openai-answer.ts'
import { readModel } from './openai-request.ts'
import { type Interpreter, over, passed, type Reading } from './stream-reader.ts'
import type { Tally } from './tally.ts'

/** Events whose `delta` is text of the answer, or of a call's arguments. */
const textEvents: ReadonlySet<string> = new Set([
  'response.output_text.delta',
  'response.refusal.delta',
  'response.function_call_arguments.delta',
  'response.custom_tool_call_input.delta',
])
const reasoningEvents: ReadonlySet<string> = new Set([
  'response.reasoning_text.delta',
  'response.reasoning_summary_text.delta',
])
const lastEvents: ReadonlySet<string> = new Set(['response.completed', 'response.incomplete', 'response.failed'])

export function responsesStream(): Interpreter {
  let isFinished = false
  return {
    framing: 'sse',
    endMarker: undefined,
    read(body, tally) {
      const type = asString(body.type)
      const response = asObject(body.response)
      if (response !== undefined) readResponse(response, tally)
      if (response !== undefined && lastEvents.has(type)) {
        tally.finishReason = responsesFinish(response)
        isFinished = true
        return over
      }
      return readDelta(type, asString(body.delta), tally)
    },
    isFinished: () => isFinished,
    tail: (_, end) => end ?? new Uint8Array(),
  }
}

function readResponse(response: Record<string, unknown>, tally: Tally): void {
  if (tally.model === '') tally.model = readModel(response)
  const usage = asObject(response.usage)
  if (usage !== undefined) tally.usage = openaiUsage(usage)
}

function readDelta(type: string, text: string, tally: Tally): Reading {
  if (text === '') return passed
  const of = textEvents.has(type) ? 'text' : reasoningEvents.has(type) ? 'reasoning' : undefined
  if (of === undefined) return passed
  if (of === 'text') tally.addText(text)
  else tally.addReasoning(text)
  return { kind: 'pass', hasOutput: true, delta: { of, text } }
}
