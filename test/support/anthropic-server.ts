/**
 * A server of Anthropic's Messages API, after its public documentation:
 * - https://platform.claude.com/docs/en/api/messages (fields, headers, `usage`, stop reasons)
 * - https://platform.claude.com/docs/en/build-with-claude/streaming (events)
 * - https://platform.claude.com/docs/en/api/errors (error objects and their statuses)
 */
import { at, everywhere, has, type Json, list, member } from './json.ts'
import {
  countWords,
  type ProviderAnswer,
  type ProviderFault,
  type ProviderRequest,
  type ProviderServer,
  startProviderServer,
  type Turn,
  turnOf,
} from './provider-server.ts'

export const anthropicModel = 'claude-test-5'

/** Refuses every key but `key`. */
export function startAnthropicServer(key: string): Promise<ProviderServer> {
  let messages = 0
  return startProviderServer((request, fault) => refusal(request, key, fault) ?? answer(request, `msg_${++messages}`))
}

function refusal(
  { path, headers, body }: ProviderRequest,
  key: string,
  fault: ProviderFault,
): ProviderAnswer | undefined {
  if (headers['x-api-key'] !== key) return failed(401, 'authentication_error', 'invalid x-api-key')
  if (path !== '/v1/messages') return failed(404, 'not_found_error', 'Not found')
  if (headers['anthropic-version'] === undefined) {
    return failed(400, 'invalid_request_error', 'anthropic-version: header is required')
  }
  for (const name of ['model', 'max_tokens', 'messages']) {
    if (!has(body, name)) return failed(400, 'invalid_request_error', `${name}: Field required`)
  }
  if (at(body, 'model') !== anthropicModel) return failed(404, 'not_found_error', `model: ${at(body, 'model')}`)
  if (fault === 'overloaded') return failed(529, 'overloaded_error', 'Overloaded')
  if (fault === 'too_long') {
    return failed(400, 'invalid_request_error', 'prompt is too long: 209153 tokens > 200000 maximum')
  }
  return undefined
}

function failed(status: number, type: string, message: string): ProviderAnswer {
  return { status, body: { type: 'error', error: { type, message }, request_id: 'req_1' } }
}

function answer({ body }: ProviderRequest, id: string): ProviderAnswer {
  const turn = turnOf(has(body, 'tools'), everywhere(body, 'tool_use_id').length > 0)
  // A system prompt counts as read from the cache, tools as written to it.
  const usage = {
    input_tokens: countWords(at(body, 'messages')),
    cache_creation_input_tokens: countWords(member(body, 'tools')),
    cache_read_input_tokens: countWords(member(body, 'system')),
    output_tokens: countWords([...turn.texts]) + (turn.call === undefined ? 0 : 12),
  }
  const stopReason = turn.call === undefined ? 'end_turn' : 'tool_use'
  const message = { id, type: 'message', role: 'assistant', model: anthropicModel }
  if (member(body, 'stream') === true) return streamed(message, turn, stopReason, usage)
  const content = [{ type: 'text', text: turn.texts.join('') }, ...callsOf(turn)]
  return { status: 200, body: { ...message, content, stop_reason: stopReason, stop_sequence: null, usage } }
}

function callsOf({ call }: Turn): Json[] {
  return call === undefined ? [] : [{ type: 'tool_use', id: 'toolu_1', name: call.name, input: { city: call.city } }]
}

function streamed(
  message: { readonly [name: string]: Json },
  { texts, call }: Turn,
  stopReason: string,
  usage: { readonly output_tokens: number; readonly [name: string]: number },
): ProviderAnswer {
  const empty = { content: [], stop_reason: null, stop_sequence: null, usage: { ...usage, output_tokens: 1 } }
  const events = [
    event('message_start', { message: { ...message, ...empty } }),
    event('content_block_start', { index: 0, content_block: { type: 'text', text: '' } }),
    event('ping', {}),
    ...texts.map((text) => event('content_block_delta', { index: 0, delta: { type: 'text_delta', text } })),
    event('content_block_stop', { index: 0 }),
  ]
  if (call !== undefined) {
    const block = { type: 'tool_use', id: 'toolu_1', name: call.name, input: {} }
    events.push(event('content_block_start', { index: 1, content_block: block }))
    for (const part of ['', '{"city": "Zür', 'ich"}']) {
      events.push(event('content_block_delta', { index: 1, delta: { type: 'input_json_delta', partial_json: part } }))
    }
    events.push(event('content_block_stop', { index: 1 }))
  }
  const ended = {
    delta: { stop_reason: stopReason, stop_sequence: null },
    usage: { output_tokens: usage.output_tokens },
  }
  events.push(event('message_delta', ended), event('message_stop', {}))
  const error = { type: 'overloaded_error', message: 'Overloaded' }
  return { events, failure: event('error', { error }), delivered: 4 }
}

function event(type: string, fields: { readonly [name: string]: Json }): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`
}

/** Text and tool calls of an answer's blocks, or of a stream's events. */
export function readAnthropic(documents: readonly Json[]): { text: string; calls: Json[] } {
  let text = ''
  const calls: { name: Json; json: string }[] = []
  for (const document of documents) {
    const blocks = has(document, 'content') ? list(at(document, 'content')) : []
    for (const block of [...blocks, ...(has(document, 'content_block') ? [at(document, 'content_block')] : [])]) {
      if (at(block, 'type') === 'text') text += at(block, 'text')
      else
        calls.push({
          name: at(block, 'name'),
          json: has(document, 'content') ? JSON.stringify(at(block, 'input')) : '',
        })
    }
    if (member(document, 'type') !== 'content_block_delta') continue
    const delta = at(document, 'delta')
    if (at(delta, 'type') === 'text_delta') text += at(delta, 'text')
    const last = calls.at(-1)
    if (last !== undefined && at(delta, 'type') === 'input_json_delta') last.json += at(delta, 'partial_json')
  }
  return { text, calls: calls.map(({ name, json }) => ({ name, arguments: JSON.parse(json) })) }
}
