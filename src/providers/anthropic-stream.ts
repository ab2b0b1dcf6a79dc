/**
 * Reads the streams of the Messages API (https://platform.claude.com/docs/en/build-with-claude/streaming), and writes them
 * as chunks of the OpenAI API for callers who speak that. Events of unknown types may come at any time and are no error.
 */

import { isObject } from '../is-object.ts'
import { anthropicFinish, anthropicUsage } from './anthropic-answer.ts'
import { ChatWriter, writeCall } from './chat-writer.ts'
import { invalidAnswer, untranslatable } from './failures.ts'
import { asObject, asString, isAbsent, type JsonObject } from './json.ts'
import { readModel } from './openai-request.ts'
import type { ReadRequest } from './provider.ts'
import { hidden, type Interpreter, over, passed, type Reading } from './stream-reader.ts'
import type { Tally } from './tally.ts'

const stopEvent: Uint8Array = Buffer.from('event: message_stop\ndata: {"type":"message_stop"}\n\n')

/** For callers of the Messages API: everything passes. */
export function anthropicStream(): Interpreter {
  let usage: JsonObject = {}
  let isFinished = false

  /** Counts are cumulative, and those that a later event leaves out or null hold. */
  function readUsage(value: unknown, tally: Tally): void {
    if (!isObject(value)) return
    usage = { ...usage, ...Object.fromEntries(Object.entries(value).filter(([, count]) => !isAbsent(count))) }
    tally.usage = anthropicUsage(usage)
  }

  return {
    framing: 'sse',
    endMarker: undefined,
    read(body, tally) {
      switch (body.type) {
        case 'message_start': {
          const message = asObject(body.message) ?? {}
          tally.model = readModel(message)
          readUsage(message.usage, tally)
          return passed
        }
        case 'content_block_start':
          return readBlock(asObject(body.content_block) ?? {}, tally)
        case 'content_block_delta':
          return readDelta(body.delta, tally)
        case 'message_delta': {
          const reason = asString(asObject(body.delta)?.stop_reason)
          if (reason !== '') {
            tally.finishReason = anthropicFinish(reason)
            isFinished = true
          }
          readUsage(body.usage, tally)
          return passed
        }
        case 'message_stop':
          return over
        default:
          return passed
      }
    },
    isFinished: () => isFinished,
    tail: (_, end) => end ?? stopEvent,
  }
}

function readBlock(block: JsonObject, tally: Tally): Reading {
  const text = asString(block.text) + asString(block.name)
  const reasoning = asString(block.thinking)
  tally.addText(text)
  tally.addReasoning(reasoning)
  return { kind: 'pass', hasOutput: text !== '' || reasoning !== '' }
}

function readDelta(delta: unknown, tally: Tally): Reading {
  if (!isObject(delta)) throw invalidAnswer('has a delta that is no object')
  switch (delta.type) {
    case 'text_delta': {
      const text = textOf(delta, 'text')
      tally.addText(text)
      return { kind: 'pass', hasOutput: text !== '', delta: { of: 'text', text } }
    }
    case 'thinking_delta': {
      const text = textOf(delta, 'thinking')
      tally.addReasoning(text)
      return { kind: 'pass', hasOutput: text !== '', delta: { of: 'reasoning', text } }
    }
    case 'input_json_delta': {
      const text = textOf(delta, 'partial_json')
      tally.addText(text)
      return { kind: 'pass', hasOutput: text !== '' }
    }
    default:
      return passed
  }
}

function textOf(delta: JsonObject, name: string): string {
  const text = delta[name]
  if (typeof text !== 'string') throw invalidAnswer(`has ${name} that is no text`)
  return text
}

/** For callers of the OpenAI API. */
export function anthropicChatStream(request: ReadRequest): Interpreter {
  const native = anthropicStream()
  const writer = new ChatWriter(request)
  const calls = new OpenCalls()

  function translate(body: JsonObject, tally: Tally): Uint8Array | undefined {
    switch (body.type) {
      case 'message_start':
        writer.name(asString(asObject(body.message)?.id), tally.model)
        return writer.chunk(0, { role: 'assistant', content: '' })
      case 'content_block_start':
        return write(calls.begin(body.index, asObject(body.content_block) ?? {}))
      case 'content_block_delta':
        return write(writeDelta(calls, body.index, asObject(body.delta) ?? {}))
      case 'content_block_stop':
        return write(calls.end(body.index))
      case 'message_delta': {
        const reason = asString(asObject(body.delta)?.stop_reason)
        return reason === '' ? undefined : writer.chunk(0, {}, anthropicFinish(reason))
      }
      default:
        return undefined
    }
  }

  function write(delta: JsonObject | undefined): Uint8Array | undefined {
    return delta === undefined ? undefined : writer.chunk(0, delta)
  }

  return {
    ...native,
    read(body, tally) {
      const reading = native.read(body, tally)
      if (reading.kind !== 'pass') return reading
      const bytes = translate(body, tally)
      return bytes === undefined ? hidden : { kind: 'write', bytes, hasOutput: reading.hasOutput }
    },
    tail: (tally) => writer.tail(tally),
  }
}

/** The tool calls of a message, by the index of their block; the OpenAI API counts calls alone. */
class OpenCalls {
  readonly #calls = new Map<unknown, { readonly index: number; hasArguments: boolean }>()

  begin(block: unknown, content: JsonObject): JsonObject | undefined {
    switch (content.type) {
      case 'text':
        return content.text === '' ? undefined : { content: asString(content.text) }
      case 'thinking':
        return content.thinking === '' ? undefined : { reasoning_content: asString(content.thinking) }
      case 'redacted_thinking':
        return undefined
      case 'tool_use': {
        const index = this.#calls.size
        const input = isObject(content.input) && Object.keys(content.input).length > 0
        this.#calls.set(block, { index, hasArguments: input })
        const json = input ? JSON.stringify(content.input) : ''
        const call = writeCall({ id: asString(content.id), name: asString(content.name), arguments: json })
        return { tool_calls: [{ index, ...call }] }
      }
      default:
        throw untranslatable()
    }
  }

  add(block: unknown, json: string): JsonObject | undefined {
    const call = this.#calls.get(block)
    if (call === undefined) throw invalidAnswer('continues a tool call that never began')
    if (json === '') return undefined
    call.hasArguments = true
    return { tool_calls: [{ index: call.index, function: { arguments: json } }] }
  }

  /** Arguments are JSON for callers of the OpenAI API also when there are none. */
  end(block: unknown): JsonObject | undefined {
    const call = this.#calls.get(block)
    return call === undefined || call.hasArguments ? undefined : this.add(block, '{}')
  }
}

function writeDelta(calls: OpenCalls, block: unknown, delta: JsonObject): JsonObject | undefined {
  switch (delta.type) {
    case 'text_delta':
      return { content: delta.text }
    case 'thinking_delta':
      return { reasoning_content: delta.thinking }
    case 'input_json_delta':
      return calls.add(block, asString(delta.partial_json))
    case 'signature_delta':
    case 'citations_delta':
      return undefined
    default:
      throw untranslatable()
  }
}
