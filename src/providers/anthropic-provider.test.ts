import { describe, expect, it, test } from 'vitest'
import { anthropicAnswer, anthropicStreams } from './fixtures/anthropic.ts'
import { conversation } from './fixtures/conversation.ts'
import { errorOf, jsonOf, readStream, streamRequest } from './fixtures/stream-fixture.ts'
import type { Dialect, Mode, ReadRequest } from './provider.ts'
import { createProvider } from './providers.ts'

const anthropic = createProvider({ protocol: 'anthropic', defaultMaxOutputTokens: 1024 })
const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })

function read(body: unknown, dialect: Dialect = 'openai', mode: Mode = 'unary'): ReadRequest {
  return anthropic.readRequest({ payload: Buffer.from(JSON.stringify(body)), mode, dialect, startMs: 0 })
}

const turn = { messages: [{ role: 'user', content: 'hi' }] }

describe('a chat of the OpenAI API', () => {
  it('is said in the Messages API with nothing lost', () => {
    const request = read(conversation)
    expect(request).toMatchObject({ kind: 'chat', model: 'my-service', maxOutputTokens: 300 })
    expect(jsonOf(request.body)).toEqual({
      model: 'my-service',
      max_tokens: 300,
      system: [
        { type: 'text', text: 'You are brief.' },
        { type: 'text', text: 'Answer in German.' },
      ],
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is the weather here?' },
            { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'aGk=' } },
            { type: 'image', source: { type: 'url', url: 'https://pictures.test/a.webp?size=1' } },
          ],
        },
        {
          role: 'assistant',
          content: [
            { type: 'tool_use', id: 'call_a', name: 'get_weather', input: { city: 'Bern' } },
            { type: 'tool_use', id: 'call_b', name: 'get_time', input: {} },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'call_a', content: '{"celsius":21}' },
            { type: 'tool_result', tool_use_id: 'call_b', content: 'noon' },
            { type: 'text', text: 'And now?' },
          ],
        },
      ],
      tools: [
        {
          name: 'get_weather',
          description: 'Weather of a city.',
          input_schema: conversation.tools[0]?.function.parameters,
          strict: true,
        },
        { name: 'get_time', input_schema: { type: 'object', properties: {} } },
      ],
      tool_choice: { type: 'auto' },
      stop_sequences: ['END'],
      temperature: 0.5,
      top_p: 0.9,
    })
  })

  const tools = [{ type: 'function', function: { name: 'f' } }]
  const schema = { type: 'object', properties: {} }
  test.each([
    ['a limit that is not set', {}, { max_tokens: 1024 }],
    ['max_tokens', { max_tokens: 5 }, { max_tokens: 5 }],
    ['a stop text', { stop: 'x' }, { stop_sequences: ['x'] }],
    ['tool choice none', { tools, tool_choice: 'none' }, { tool_choice: { type: 'none' } }],
    ['tool choice required', { tools, tool_choice: 'required' }, { tool_choice: { type: 'any' } }],
    [
      'one tool, one at a time',
      { tools, tool_choice: { type: 'function', function: { name: 'f' } }, parallel_tool_calls: false },
      { tool_choice: { type: 'tool', name: 'f', disable_parallel_tool_use: true } },
    ],
    [
      'one call at a time',
      { tools, parallel_tool_calls: false },
      { tool_choice: { type: 'auto', disable_parallel_tool_use: true } },
    ],
    [
      'a schema',
      { response_format: { type: 'json_schema', json_schema: { name: 'n', strict: true, schema } } },
      { output_config: { format: { type: 'json_schema', schema } } },
    ],
    ['effort', { reasoning_effort: 'high' }, { output_config: { effort: 'high' } }],
    ['the user', { user: 'u1' }, { metadata: { user_id: 'u1' } }],
    ['the service tier', { service_tier: 'default' }, { service_tier: 'standard_only' }],
    [
      'a system message within the conversation',
      { messages: [...turn.messages, { role: 'system', content: 'now' }] },
      {
        messages: [
          { role: 'user', content: [{ type: 'text', text: 'hi' }] },
          { role: 'system', content: [{ type: 'text', text: 'now' }] },
        ],
      },
    ],
  ])('says %s', (_, more, expected) => {
    expect(jsonOf(read({ ...turn, ...more }).body)).toMatchObject(expected)
  })

  const user = (part: unknown): unknown => ({ messages: [{ role: 'user', content: [part] }] })
  test.each([
    ['n', { n: 2 }],
    ['temperature', { temperature: 1.5 }],
    ['seed', { seed: 1 }],
    ['logprobs', { logprobs: true }],
    ['logit_bias', { logit_bias: { 50256: -100 } }],
    ['presence_penalty', { presence_penalty: 1 }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['reasoning_effort', { reasoning_effort: 'minimal' }],
    ['service_tier', { service_tier: 'flex' }],
    ['store', { store: true }],
    ['safety_identifier', { user: 'a', safety_identifier: 'b' }],
    ['x_unknown', { x_unknown: 1 }],
    ['tool_choice', { tool_choice: 'required' }],
    ['tool_choice', { tools, tool_choice: { type: 'allowed_tools', allowed_tools: {} } }],
    ['tools[0].type', { tools: [{ type: 'custom', custom: {} }] }],
    ['tools[0]', { tools: [1] }],
    ['messages', { messages: [] }],
    ['messages[0].role', { messages: [{ role: 'function', content: '' }] }],
    ['messages[0].name', { messages: [{ role: 'user', name: 'Ann', content: 'hi' }] }],
    ['messages[0].content', { messages: [{ role: 'user' }] }],
    ['messages[0].content[0]', user({ type: 'input_audio', text: 'x' })],
    ['messages[0].content[0].input_audio', user({ type: 'input_audio', input_audio: { data: '' } })],
    [
      'messages[0].content[0].image_url.detail',
      user({ type: 'image_url', image_url: { url: 'https://a.test/a', detail: 'low' } }),
    ],
    ['messages[0].content[0].image_url.url', user({ type: 'image_url', image_url: { url: 'ftp://a.test/a' } })],
    [
      'messages[0].content[0].image_url.url',
      user({ type: 'image_url', image_url: { url: 'data:image/tiff;base64,aGk=' } }),
    ],
    ['messages[0].tool_call_id', { messages: [{ role: 'tool', content: '' }] }],
    [
      'messages[0].tool_calls[0].function.arguments',
      {
        messages: [
          { role: 'assistant', tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '[]' } }] },
        ],
      },
    ],
  ])('is refused, naming %s, for what cannot be said: %j', (param, more) => {
    expect(errorOf(() => read({ ...turn, ...(more as object) }))).toMatchObject({
      reason: 'INVALID_ARGUMENT',
      metadata: { field: 'payload', param },
    })
  })

  it('is refused when it is no chat', () => {
    expect(errorOf(() => read({ input: 'a' })).reason).toBe('INVALID_ARGUMENT')
  })
})

describe('a request of the Messages API', () => {
  const body = { model: 'claude-test-5', max_tokens: 9, messages: [], x_unknown: [1] }

  it('passes as it came, but for a stream that it must ask for', () => {
    const payload = Buffer.from(JSON.stringify(body))
    const native = anthropic.readRequest({ payload, mode: 'unary', dialect: 'native', startMs: 0 })
    expect(native).toMatchObject({ kind: 'chat', maxOutputTokens: 9, model: 'claude-test-5' })
    expect(native.body).toBe(payload)
    expect(jsonOf(read(body, 'native', 'stream').body)).toEqual({ ...body, stream: true })
  })

  it('goes to the messages with key and version', () => {
    const target = { url: 'https://api.anthropic.test', model: 'claude-other', credential: 'k' }
    const prepared = anthropic.prepare(read(body, 'native'), target)
    expect(prepared).toMatchObject({
      url: 'https://api.anthropic.test/v1/messages',
      headers: { 'x-api-key': 'k', 'anthropic-version': '2023-06-01' },
    })
    expect(jsonOf(prepared.body)).toEqual({ ...body, model: 'claude-other' })
  })
})

describe('an answer', () => {
  const request = streamRequest({}, { mode: 'unary' })
  const tokens = { input: 12, cachedInput: 5, cacheWriteInput: 3, output: 16, reasoningOutput: 4 }

  it('passes untouched to callers of the Messages API', () => {
    const bytes = Buffer.from(anthropicAnswer)
    const answer = anthropic.readAnswer(bytes, request)
    expect(answer).toMatchObject({
      tokens,
      usageSource: 'provider',
      model: 'claude-test-5',
      finishReason: 'tool_calls',
    })
    expect(answer.body).toBe(bytes)
  })

  it('without usage is estimated at the rate of its model, and says so', () => {
    const answer = anthropic.readAnswer(Buffer.from('{"model":"claude-test-5","content":[]}'), request)
    expect(answer).toMatchObject({ usageSource: 'estimated', tokens: { input: 27, output: 13 } })
  })

  it('is a chat completion for callers of the OpenAI API, with the same usage', () => {
    const answer = anthropic.readAnswer(Buffer.from(anthropicAnswer), { ...request, dialect: 'openai' })
    expect(answer.tokens).toEqual(tokens)
    expect(openai.readAnswer(answer.body, request)).toMatchObject({ tokens, finishReason: 'tool_calls' })
    expect(jsonOf(answer.body)).toMatchObject({
      id: 'chatcmpl-msg_02',
      object: 'chat.completion',
      created: 1_767_225_600,
      model: 'claude-test-5',
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: 'Let me look.',
            reasoning_content: 'Hm.',
            tool_calls: [
              { id: 'toolu_1', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Bern"}' } },
            ],
          },
          finish_reason: 'tool_calls',
        },
      ],
      usage: {
        prompt_tokens: 20,
        completion_tokens: 20,
        total_tokens: 40,
        prompt_tokens_details: { cached_tokens: 5 },
      },
    })
  })

  test.each([
    ['empty', '', 'BACKEND_ANSWER_INVALID'],
    ['without content', '{"usage":{}}', 'BACKEND_ANSWER_INVALID'],
    ['a negative count', '{"content":[],"usage":{"input_tokens":-1}}', 'BACKEND_ANSWER_INVALID'],
    [
      'more thinking than output',
      '{"content":[],"usage":{"output_tokens":1,"output_tokens_details":{"thinking_tokens":2}}}',
      'BACKEND_ANSWER_INVALID',
    ],
    ['an error', '{"type":"error","error":{"type":"overloaded_error"}}', 'BACKEND_FAILED'],
    ['a block that cannot be translated', '{"content":[{"type":"server_tool_use"}]}', 'BACKEND_ANSWER_INVALID'],
  ])('that is %s is an error', (_, answer, reason) => {
    const openaiRequest: ReadRequest = { ...request, dialect: 'openai' }
    expect(errorOf(() => anthropic.readAnswer(Buffer.from(answer), openaiRequest)).reason).toBe(reason)
  })
})

describe('a stream for a caller of the OpenAI API', () => {
  test.each(anthropicStreams)('says the same as the native one: $name', (fixture) => {
    const bytes = [Buffer.from(fixture.stream)]
    const native = readStream(anthropic, streamRequest(fixture), bytes)
    const translated = readStream(anthropic, streamRequest(fixture, { dialect: 'openai' }), bytes)
    expect(translated.report).toEqual(native.report)
    const reread = readStream(openai, streamRequest(fixture), [Buffer.from(translated.bytes)])
    // A call without arguments has `{}` here, where Anthropic sends nothing.
    const added = fixture.stream.includes('get_time') ? 2 : 0
    expect(reread.report).toEqual({ ...native.report, textBytes: native.report.textBytes + added })
    expect(reread.end.verdict).toBe('complete')
  })

  it('tells usage only to a caller that asked', () => {
    const bytes = [Buffer.from(anthropicStreams[0]?.stream ?? '')]
    const asked = (asksUsage: boolean): string =>
      readStream(anthropic, streamRequest({}, { dialect: 'openai', asksUsage }), bytes).bytes
    expect(asked(true)).toContain('"prompt_tokens":132')
    expect(asked(false)).not.toContain('usage')
  })

  test.each([
    [
      'an error',
      'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
      'error',
      'BACKEND_FAILED',
    ],
    [
      'a delta without text',
      'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}\n\n',
      'malformed',
      'BACKEND_ANSWER_INVALID',
    ],
    [
      'a delta of no tool call',
      'data: {"type":"content_block_delta","index":9,"delta":{"type":"input_json_delta","partial_json":""}}\n\n',
      'malformed',
      'BACKEND_ANSWER_INVALID',
    ],
    ['its end without a stop reason', 'data: {"type":"message_stop"}\n\n', 'cut', 'BACKEND_FAILED'],
    ['nothing more', '', 'cut', 'BACKEND_FAILED'],
  ])('is no success when there comes %s', (_, event, verdict, reason) => {
    const begun = anthropicStreams[0]?.stream.split('event: message_delta')[0] ?? ''
    const request = streamRequest({}, { dialect: 'openai' })
    const { end, report, bytes } = readStream(anthropic, request, [Buffer.from(begun + event)])
    expect(end).toMatchObject({ verdict, error: { reason } })
    expect(bytes).not.toContain('[DONE]')
    // The prompt is known from the first event, and four deltas of about a token each were delivered.
    expect(report).toMatchObject({ usageSource: 'partial', tokens: { input: 25, cachedInput: 7, output: 4 } })
  })
})
