import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { openaiAnswer } from './fixtures/openai.ts'
import { errorOf, streamRequest } from './fixtures/stream-fixture.ts'
import { setMember } from './json-edit.ts'
import type { CallerRequest, ReadRequest } from './provider.ts'
import { createProvider } from './providers.ts'

const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
const azure = createProvider({ protocol: 'azure_openai', defaultMaxOutputTokens: 1024 })

function caller(body: unknown, more: Partial<CallerRequest> = {}): CallerRequest {
  const payload = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  return { payload, mode: 'unary', dialect: 'openai', startMs: 0, ...more }
}

function read(body: unknown, more: Partial<CallerRequest> = {}): ReadRequest {
  return openai.readRequest(caller(body, more))
}

describe('a request', () => {
  test.each([
    ['a chat', { messages: [] }, { kind: 'chat', maxOutputTokens: undefined, choices: 1 }],
    ['its model', { messages: [], model: 'm' }, { model: 'm' }],
    ['max_tokens for each choice', { messages: [], max_tokens: 100, n: 3 }, { maxOutputTokens: 300, choices: 3 }],
    ['the larger of two ceilings', { messages: [], max_completion_tokens: 7, max_tokens: 9 }, { maxOutputTokens: 9 }],
    ['null as absent', { messages: [], max_tokens: null, n: null, stream: null }, { maxOutputTokens: undefined }],
    [
      'several prompts',
      { prompt: ['a', 'b'], max_tokens: 5, n: 2 },
      { kind: 'completion', maxOutputTokens: 20, choices: 4 },
    ],
    ['a prompt of tokens', { prompt: [1, 2, 3], max_tokens: 5 }, { maxOutputTokens: 5, choices: 1 }],
    [
      'best_of, which is paid for',
      { prompt: 'a', max_tokens: 5, n: 2, best_of: 4 },
      { maxOutputTokens: 20, choices: 2 },
    ],
    ['embeddings, which have no output', { input: 'a' }, { kind: 'embedding', maxOutputTokens: 0 }],
    ['a response', { input: 'a', max_output_tokens: 8 }, { kind: 'responses', maxOutputTokens: 8 }],
    ['anything else', { query: 1 }, { kind: 'generic' }],
  ])('tells %s', (_, body, facts) => {
    expect(read(body)).toMatchObject(facts)
  })

  test.each([
    ['no JSON', '{', ''],
    ['no object', '[]', ''],
    ['a stream for a whole answer', { stream: true }, 'stream'],
    ['a stream in words', { stream: 'yes' }, 'stream'],
    ['a negative limit', { max_tokens: -1 }, 'max_tokens'],
    ['a fractional limit', { messages: [], max_completion_tokens: 1.5 }, 'max_completion_tokens'],
    ['no choices', { n: 0 }, 'n'],
    ['a response in the background', { input: 'a', instructions: 'b', background: true }, 'background'],
  ])('is refused with the field named: %s', (_, body, param) => {
    expect(errorOf(() => read(body))).toMatchObject({
      reason: 'INVALID_ARGUMENT',
      metadata: { field: 'payload', param },
    })
  })

  test.each(['openai', 'anthropic', 'gemini', 'ollama', 'json', 'grpc'] as const)(
    'that was parsed before is not parsed again by %s',
    (protocol) => {
      const provider = createProvider({ protocol, defaultMaxOutputTokens: 1024, pointers: { requestModel: '/model' } })
      const object = { messages: [], contents: [], stream: false, model: 'm' }
      const parsed = { object, isWhole: protocol === 'json' }
      const request = { ...caller('no JSON'), dialect: 'native', parsed } as const
      expect(provider.readRequest(request)).toMatchObject({ model: 'm', payloadBytes: 7, body: request.payload })
    },
  )

  test.each(['anthropic', 'gemini'] as const)(
    'that was parsed before without its long texts is parsed again by %s, which translates them',
    (protocol) => {
      const provider = createProvider({ protocol, defaultMaxOutputTokens: 1024 })
      const whole = (content: string) => ({ model: 'm', messages: [{ role: 'user', content }] })
      const request = { ...caller(whole('hello')), parsed: { object: whole(''), isWhole: false } }
      expect(Buffer.from(provider.readRequest(request).body).toString()).toContain('hello')
    },
  )

  it('for embeddings has no stream', () => {
    expect(errorOf(() => read({ input: 'a' }, { mode: 'stream', kind: 'embedding' })).reason).toBe('INVALID_ARGUMENT')
  })

  it('for one whole answer goes to the backend as the bytes object that came', () => {
    const request = caller({ messages: [], x_unknown: 1 })
    const prepared = openai.prepare(openai.readRequest(request), { url: 'https://a.test', model: '', credential: 'k' })
    expect(prepared.body).toBe(request.payload)
  })

  it('for a stream asks for usage by the smallest edit', () => {
    const stream = (body: string): string => Buffer.from(read(body, { mode: 'stream' }).body).toString()
    expect(stream('{ "messages" : [ ],\n "big": 1e400 ,"stream":true }')).toBe(
      '{ "messages" : [ ],\n "big": 1e400 ,"stream":true,"stream_options":{"include_usage":true} }',
    )
    expect(stream('{"stream":false,"prompt":"","stream_options":{"x":1}}')).toBe(
      '{"stream":true,"prompt":"","stream_options":{"x":1,"include_usage":true}}',
    )
    expect(stream('{"prompt":"","stream_options":null}')).toBe(
      '{"prompt":"","stream_options":{"include_usage":true},"stream":true}',
    )
    const asked = caller('{"messages":[],"stream":true,"stream_options":{"include_usage":true}}', { mode: 'stream' })
    expect(openai.readRequest(asked)).toMatchObject({ asksUsage: true, asksStream: true })
    expect(openai.readRequest(asked).body).toBe(asked.payload)
  })

  it('does not ask a backend for usage that refuses to be asked', () => {
    const reserved = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024, asksForUsage: false })
    const request = caller('{"messages":[],"stream":true}', { mode: 'stream' })
    expect(reserved.readRequest(request).body).toBe(request.payload)
  })

  it('names the backend’s model in place of the caller’s', () => {
    const target = { url: 'https://a.test/v1', model: 'llama"3', credential: undefined }
    const { body } = openai.prepare(read('{"model":"my-service","messages":[]}'), target)
    expect(Buffer.from(body).toString()).toBe('{"model":"llama\\"3","messages":[]}')
  })

  test.each([
    ['https://a.test', 'https://a.test/v1/chat/completions'],
    ['https://a.test/v1/', 'https://a.test/v1/chat/completions'],
    ['https://a.test/v1/completions', 'https://a.test/v1/chat/completions'],
    ['https://a.test/openai/v1', 'https://a.test/openai/v1/chat/completions'],
    ['https://a.test/x/chat/completions?api-version=2', 'https://a.test/x/chat/completions?api-version=2'],
    [
      'https://a.test/openai/deployments/d?api-version=2',
      'https://a.test/openai/deployments/d/chat/completions?api-version=2',
    ],
    ['https://a.test/predict', 'https://a.test/predict'],
  ])('registered at %s goes to %s', (url, expected) => {
    expect(openai.prepare(read({ messages: [] }), { url, model: '', credential: undefined }).url).toBe(expected)
  })

  it('shows its credential as the protocol wants it', () => {
    const target = { url: 'https://a.test', model: '', credential: 'k' }
    expect(openai.prepare(read({ messages: [] }), target).headers).toMatchObject({ authorization: 'Bearer k' })
    expect(azure.prepare(read({ messages: [] }), target)).toMatchObject({
      url: 'https://a.test/openai/v1/chat/completions',
      headers: { 'api-key': 'k', accept: 'application/json' },
    })
  })
})

describe('setMember', () => {
  const json = fc.dictionary(fc.oneof(fc.constantFrom('a', 'b', '', '"', 'é'), fc.string()), fc.jsonValue(), {
    maxKeys: 6,
  })

  it('changes one member and nothing else, however the object is written', () => {
    const names = fc.constantFrom('a', 'b', '', '"', 'é')
    fc.assert(
      fc.property(json, names, fc.jsonValue(), fc.nat(3), (object, name, value, indent) => {
        const edited = setMember(Buffer.from(JSON.stringify(object, null, indent)), [name], JSON.stringify(value))
        const expected = JSON.parse(JSON.stringify({ ...object, [name]: value }))
        expect(JSON.parse(Buffer.from(edited).toString())).toEqual(expected)
      }),
    )
  })

  test.each([
    ['{}', ['a'], '{"a":1}'],
    ['{"a":{}}', ['a', 'b'], '{"a":{"b":1}}'],
    ['{"a":[{"a":2}],"s":"\\\\\\"a\\":"}', ['a'], '{"a":1,"s":"\\\\\\"a\\":"}'],
    ['{"\\u0061":2}', ['a'], '{"\\u0061":1}'],
    ['{"a":2,"a":3}', ['a'], '{"a":2,"a":1}'],
    ['{"x":true}', ['a', 'b'], '{"x":true,"a":{"b":1}}'],
  ] as const)('edits %s', (before, path, after) => {
    expect(Buffer.from(setMember(Buffer.from(before), path, '1')).toString()).toBe(after)
  })

  it('returns the same bytes when nothing changes', () => {
    const bytes = Buffer.from('{"a": 1}')
    expect(setMember(bytes, ['a'], '1')).toBe(bytes)
  })
})

describe('an answer', () => {
  const request = streamRequest({}, { mode: 'unary' })

  it('is read into disjoint parts and passes untouched', () => {
    const bytes = Buffer.from(openaiAnswer)
    const answer = openai.readAnswer(bytes, request)
    expect(answer).toMatchObject({
      tokens: { input: 13, cachedInput: 8, cacheWriteInput: 0, output: 5, reasoningOutput: 4 },
      usageSource: 'provider',
      model: 'gpt-test-2026',
      finishReason: 'stop',
    })
    expect(answer.body).toBe(bytes)
  })

  it('counts tokens written to the cache as their own part of the prompt', () => {
    const usage = {
      prompt_tokens: 10,
      completion_tokens: 1,
      prompt_tokens_details: { cached_tokens: 4, cache_write_tokens: 9 },
    }
    const answer = openai.readAnswer(Buffer.from(JSON.stringify({ choices: [{ message: {} }], usage })), request)
    expect(answer.tokens).toEqual({ input: 0, cachedInput: 4, cacheWriteInput: 6, output: 1, reasoningOutput: 0 })
  })

  it('without usage is estimated and says so', () => {
    const bytes = Buffer.from('{"choices":[{"finish_reason":"length","message":{}}]}')
    const answer = openai.readAnswer(bytes, request)
    expect(answer).toMatchObject({
      usageSource: 'estimated',
      tokens: { input: 20, output: Math.ceil(bytes.length / 4) },
      finishReason: 'length',
    })
  })

  it('of embeddings and responses is read by its own fields', () => {
    const embedding = { data: [], usage: { prompt_tokens: 4, total_tokens: 4 } }
    const response = {
      status: 'incomplete',
      output: [],
      incomplete_details: { reason: 'max_output_tokens' },
      usage: { input_tokens: 2 },
    }
    const readAs = (kind: 'embedding' | 'responses', body: unknown) =>
      openai.readAnswer(Buffer.from(JSON.stringify(body)), { ...request, kind })
    expect(readAs('embedding', embedding)).toMatchObject({ tokens: { input: 4, output: 0 }, finishReason: '' })
    expect(readAs('responses', response)).toMatchObject({ tokens: { input: 2 }, finishReason: 'length' })
  })

  test.each([
    ['empty', '', 'BACKEND_ANSWER_INVALID'],
    ['HTML', '<html></html>', 'BACKEND_ANSWER_INVALID'],
    ['half an answer', openaiAnswer.slice(0, -40), 'BACKEND_ANSWER_INVALID'],
    ['no object', '"fine"', 'BACKEND_ANSWER_INVALID'],
    ['no choices', '{"choices":[]}', 'BACKEND_ANSWER_INVALID'],
    ['a choice without a message', '{"choices":[{"finish_reason":"stop"}]}', 'BACKEND_ANSWER_INVALID'],
    ['a count in words', '{"choices":[{"message":{}}],"usage":{"prompt_tokens":"5"}}', 'BACKEND_ANSWER_INVALID'],
    ['a negative count', '{"choices":[{"message":{}}],"usage":{"prompt_tokens":-1}}', 'BACKEND_ANSWER_INVALID'],
    ['an absurd count', '{"choices":[{"message":{}}],"usage":{"prompt_tokens":1e12}}', 'BACKEND_ANSWER_INVALID'],
    [
      'more reasoning than output',
      '{"choices":[{"message":{}}],"usage":{"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":2}}}',
      'BACKEND_ANSWER_INVALID',
    ],
    ['an error object', '{"error":{"type":"server_error"}}', 'BACKEND_FAILED'],
    ['a refusal of our key', '{"error":{"code":"invalid_api_key"}}', 'BACKEND_CREDENTIAL_REFUSED'],
    [
      'a filtered prompt',
      '{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}',
      'BACKEND_REJECTED',
    ],
  ])('that is %s is an error', (_, answer, reason) => {
    expect(errorOf(() => openai.readAnswer(Buffer.from(answer), request)).reason).toBe(reason)
  })

  test.each([
    ['nothing', '{}', 'BACKEND_ANSWER_INVALID'],
    ['another object', '{"detail":"Not here"}', 'BACKEND_ANSWER_INVALID'],
    ['not finished', '{"status":"in_progress","output":[]}', 'BACKEND_ANSWER_INVALID'],
    ['cancelled', '{"status":"cancelled","output":[]}', 'BACKEND_ANSWER_INVALID'],
    ['without output', '{"status":"completed"}', 'BACKEND_ANSWER_INVALID'],
    ['failed', '{"status":"failed","error":{"code":"server_error"}}', 'BACKEND_FAILED'],
  ])('of the Responses API that is %s is an error', (_, answer, reason) => {
    const asked = { ...request, kind: 'responses' } as const
    expect(errorOf(() => openai.readAnswer(Buffer.from(answer), asked)).reason).toBe(reason)
  })
})
