import { describe, expect, it, test } from 'vitest'
import { conversation } from './fixtures/conversation.ts'
import { geminiAnswer, geminiStreams } from './fixtures/gemini.ts'
import { errorOf, jsonOf, readStream, streamRequest } from './fixtures/stream-fixture.ts'
import type { Dialect, Mode, ReadRequest } from './provider.ts'
import { createProvider } from './providers.ts'

const gemini = createProvider({ protocol: 'gemini', defaultMaxOutputTokens: 1024 })
const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })

function read(body: unknown, dialect: Dialect = 'openai', mode: Mode = 'unary'): ReadRequest {
  return gemini.readRequest({ payload: Buffer.from(JSON.stringify(body)), mode, dialect, startMs: 0 })
}

const turn = { messages: [{ role: 'user', content: 'hi' }] }

describe('a chat of the OpenAI API', () => {
  it('is said in the Gemini API with nothing lost', () => {
    const request = read(conversation)
    expect(request).toMatchObject({ kind: 'chat', model: 'my-service', maxOutputTokens: 300 })
    expect(jsonOf(request.body)).toEqual({
      systemInstruction: { parts: [{ text: 'You are brief.' }, { text: 'Answer in German.' }] },
      contents: [
        {
          role: 'user',
          parts: [
            { text: 'What is the weather here?' },
            { inlineData: { mimeType: 'image/png', data: 'aGk=' } },
            { fileData: { mimeType: 'image/webp', fileUri: 'https://pictures.test/a.webp?size=1' } },
          ],
        },
        {
          role: 'model',
          parts: [
            { functionCall: { id: 'call_a', name: 'get_weather', args: { city: 'Bern' } } },
            { functionCall: { id: 'call_b', name: 'get_time', args: {} } },
          ],
        },
        {
          role: 'user',
          parts: [
            { functionResponse: { id: 'call_a', name: 'get_weather', response: { output: '{"celsius":21}' } } },
            { functionResponse: { id: 'call_b', name: 'get_time', response: { output: 'noon' } } },
          ],
        },
        { role: 'user', parts: [{ text: 'And now?' }] },
      ],
      tools: [
        {
          functionDeclarations: [
            {
              name: 'get_weather',
              description: 'Weather of a city.',
              parametersJsonSchema: conversation.tools[0]?.function.parameters,
            },
            { name: 'get_time' },
          ],
        },
      ],
      toolConfig: { functionCallingConfig: { mode: 'VALIDATED' } },
      generationConfig: { maxOutputTokens: 300, temperature: 0.5, topP: 0.9, stopSequences: ['END'] },
    })
  })

  const tools = [{ type: 'function', function: { name: 'f' } }]
  const schema = { type: 'object', properties: {} }
  test.each([
    ['choices', { n: 2, max_tokens: 5 }, { generationConfig: { candidateCount: 2, maxOutputTokens: 5 } }],
    ['a seed', { seed: 7 }, { generationConfig: { seed: 7 } }],
    [
      'penalties',
      { presence_penalty: 1, frequency_penalty: -1 },
      { generationConfig: { presencePenalty: 1, frequencyPenalty: -1 } },
    ],
    [
      'JSON',
      { response_format: { type: 'json_object' } },
      { generationConfig: { responseMimeType: 'application/json' } },
    ],
    [
      'a schema',
      { response_format: { type: 'json_schema', json_schema: { name: 'n', schema } } },
      { generationConfig: { responseMimeType: 'application/json', responseJsonSchema: schema } },
    ],
    ['tool choice none', { tools, tool_choice: 'none' }, { toolConfig: { functionCallingConfig: { mode: 'NONE' } } }],
    [
      'tool choice required',
      { tools, tool_choice: 'required' },
      { toolConfig: { functionCallingConfig: { mode: 'ANY' } } },
    ],
    [
      'one tool',
      { tools, tool_choice: { type: 'function', function: { name: 'f' } } },
      { toolConfig: { functionCallingConfig: { mode: 'ANY', allowedFunctionNames: ['f'] } } },
    ],
  ])('says %s', (_, more, expected) => {
    expect(jsonOf(read({ ...turn, ...more }).body)).toMatchObject(expected)
  })

  it('gives Google back its own signature, and no id that it did not give', () => {
    const call = {
      id: 'call_gate_r1_0_0',
      type: 'function',
      function: { name: 'f', arguments: '{}' },
      extra_content: { google: { thought_signature: 'c2ln' } },
    }
    const messages = [
      ...turn.messages,
      { role: 'assistant', content: '', tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call_gate_r1_0_0', content: 'x' },
    ]
    expect(jsonOf(read({ messages }).body)).toMatchObject({
      contents: [
        {},
        { parts: [{ functionCall: { name: 'f', args: {} }, thoughtSignature: 'c2ln' }] },
        { parts: [{ functionResponse: { name: 'f', response: { output: 'x' } } }] },
      ],
    })
  })

  const image = (url: string): unknown => ({
    messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
  })
  test.each([
    ['parallel_tool_calls', { parallel_tool_calls: false }],
    ['reasoning_effort', { reasoning_effort: 'low' }],
    ['user', { user: 'u1' }],
    ['logprobs', { logprobs: true }],
    ['seed', { seed: 'x' }],
    ['tool_choice', { tool_choice: 'required' }],
    ['messages[1].role', { messages: [...turn.messages, { role: 'system', content: 'now' }] }],
    ['messages[0].tool_call_id', { messages: [{ role: 'tool', tool_call_id: 'nobody', content: '' }] }],
    ['messages[0].content[0].image_url.url', image('https://a.test/picture')],
    ['messages[0].content[0].image_url.url', image('http://a.test/a.png')],
  ])('is refused, naming %s, for what cannot be said: %j', (param, more) => {
    expect(errorOf(() => read({ ...turn, ...(more as object) }))).toMatchObject({
      reason: 'INVALID_ARGUMENT',
      metadata: { field: 'payload', param },
    })
  })
})

describe('a request', () => {
  const native = { contents: [], generationConfig: { maxOutputTokens: 9, candidateCount: 2 } }

  it('of the Gemini API passes as it came', () => {
    const payload = Buffer.from(JSON.stringify(native))
    for (const mode of ['unary', 'stream'] as const) {
      const request = gemini.readRequest({ payload, mode, dialect: 'native', startMs: 0 })
      expect(request).toMatchObject({ kind: 'chat', maxOutputTokens: 18, choices: 2 })
      expect(request.body).toBe(payload)
    }
  })

  it('of the Gemini API is refused with the field named', () => {
    expect(errorOf(() => read({ contents: [], generationConfig: { maxOutputTokens: -1 } }, 'native')).metadata).toEqual(
      {
        field: 'payload',
        param: 'generationConfig.maxOutputTokens',
      },
    )
  })

  test.each([
    ['https://g.test', 'unary', 'https://g.test/v1beta/models/m:generateContent'],
    ['https://g.test/v1beta', 'stream', 'https://g.test/v1beta/models/m:streamGenerateContent?alt=sse'],
    ['https://g.test/v1beta/models/x', 'stream', 'https://g.test/v1beta/models/x:streamGenerateContent?alt=sse'],
    [
      'https://g.test/v1/models/x:generateContent?key=1&alt=json',
      'stream',
      'https://g.test/v1/models/x:streamGenerateContent?key=1&alt=sse',
    ],
    [
      'https://v.test/v1/projects/p/publishers/google/',
      'unary',
      'https://v.test/v1/projects/p/publishers/google/models/m:generateContent',
    ],
  ] as const)('registered at %s goes, %s, to %s', (url, mode, expected) => {
    const prepared = gemini.prepare(read(native, 'native', mode), { url, model: 'm', credential: 'k' })
    expect(prepared).toMatchObject({ url: expected, headers: { 'x-goog-api-key': 'k' } })
  })

  it('without a model anywhere is refused', () => {
    const target = { url: 'https://g.test', model: '', credential: undefined }
    expect(errorOf(() => gemini.prepare(read(native, 'native'), target)).metadata.param).toBe('model')
  })
})

describe('an answer', () => {
  const request = streamRequest({}, { mode: 'unary' })
  const tokens = { input: 15, cachedInput: 5, cacheWriteInput: 0, output: 16, reasoningOutput: 4 }

  it('passes untouched to callers of the Gemini API', () => {
    const bytes = Buffer.from(geminiAnswer)
    const answer = gemini.readAnswer(bytes, request)
    expect(answer).toMatchObject({
      tokens,
      usageSource: 'provider',
      model: 'gemini-test-3',
      finishReason: 'tool_calls',
    })
    expect(answer.body).toBe(bytes)
  })

  it('is a chat completion for callers of the OpenAI API, with the same usage', () => {
    const answer = gemini.readAnswer(Buffer.from(geminiAnswer), { ...request, dialect: 'openai' })
    expect(openai.readAnswer(answer.body, request)).toMatchObject({ tokens, finishReason: 'tool_calls' })
    expect(jsonOf(answer.body)).toMatchObject({
      id: 'chatcmpl-r2',
      choices: [
        {
          message: {
            content: 'Let me look.',
            reasoning_content: 'Hm.',
            tool_calls: [
              {
                id: 'call_gate_r2_0_0',
                type: 'function',
                function: { name: 'get_weather', arguments: '{"city":"Bern"}' },
                extra_content: { google: { thought_signature: 'c2ln' } },
              },
            ],
          },
          finish_reason: 'tool_calls',
        },
      ],
    })
  })

  test.each([
    ['empty', '', 'BACKEND_ANSWER_INVALID'],
    ['without candidates', '{}', 'BACKEND_ANSWER_INVALID'],
    ['with candidates that are no list', '{"candidates":{}}', 'BACKEND_ANSWER_INVALID'],
    [
      'more cached than prompt',
      '{"candidates":[{}],"usageMetadata":{"promptTokenCount":1,"cachedContentTokenCount":2}}',
      'BACKEND_ANSWER_INVALID',
    ],
    ['a negative count', '{"candidates":[{}],"usageMetadata":{"thoughtsTokenCount":-1}}', 'BACKEND_ANSWER_INVALID'],
    [
      'a part that cannot be translated',
      '{"candidates":[{"content":{"parts":[{"inlineData":{}}]}}]}',
      'BACKEND_ANSWER_INVALID',
    ],
    ['an error', '{"error":{"code":503,"status":"UNAVAILABLE"}}', 'BACKEND_FAILED'],
  ])('that is %s is an error', (_, answer, reason) => {
    const openaiRequest: ReadRequest = { ...request, dialect: 'openai' }
    expect(errorOf(() => gemini.readAnswer(Buffer.from(answer), openaiRequest)).reason).toBe(reason)
  })
})

describe('a stream for a caller of the OpenAI API', () => {
  test.each(geminiStreams)('says the same as the native one: $name', (fixture) => {
    const bytes = [Buffer.from(fixture.stream)]
    const native = readStream(gemini, streamRequest(fixture), bytes)
    const translated = readStream(gemini, streamRequest(fixture, { dialect: 'openai' }), bytes)
    expect(translated.report).toEqual(native.report)
    const reread = readStream(openai, streamRequest(fixture), [Buffer.from(translated.bytes)])
    expect(reread.report).toEqual(native.report)
    expect(reread.end.verdict).toBe('complete')
  })

  test.each([
    ['an error', 'data: {"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}\n\n', 'error', 'BACKEND_FAILED'],
    [
      'text that is no text',
      'data: {"candidates":[{"content":{"parts":[{"text":1}]}}]}\n\n',
      'malformed',
      'BACKEND_ANSWER_INVALID',
    ],
    ['half an event', 'data: {"candidates":[{"content":{"par\n\n', 'malformed', 'BACKEND_ANSWER_INVALID'],
    ['nothing more', '', 'cut', 'BACKEND_FAILED'],
  ])('is no success when there comes %s', (_, event, verdict, reason) => {
    const begun = geminiStreams[0]?.stream.split('data: ').slice(0, 4).join('data: ') ?? ''
    const { end, report, bytes } = readStream(gemini, streamRequest({}, { dialect: 'openai' }), [
      Buffer.from(begun + event),
    ])
    expect(end).toMatchObject({ verdict, error: { reason } })
    expect(bytes).not.toContain('[DONE]')
    expect(report).toMatchObject({ usageSource: 'partial', tokens: { input: 30, output: 8, reasoningOutput: 4 } })
  })
})
