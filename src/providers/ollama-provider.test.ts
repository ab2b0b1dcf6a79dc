import { describe, expect, it, test } from 'vitest'
import { ollamaAnswer, ollamaStreams } from './fixtures/ollama.ts'
import { errorOf, readStream, streamRequest } from './fixtures/stream-fixture.ts'
import type { Mode, ReadRequest } from './provider.ts'
import { createProvider } from './providers.ts'

const ollama = createProvider({ protocol: 'ollama', defaultMaxOutputTokens: 1024 })

function read(body: string, mode: Mode = 'unary'): ReadRequest {
  return ollama.readRequest({ payload: Buffer.from(body), mode, dialect: 'native', startMs: 0 })
}

describe('a request', () => {
  test.each([
    ['{"messages":[]}', 'unary', '{"messages":[],"stream":false}'],
    ['{"stream":false,"prompt":""}', 'stream', '{"stream":true,"prompt":""}'],
    ['{"messages":[]}', 'stream', '{"messages":[]}'],
    ['{"input":"a"}', 'unary', '{"input":"a"}'],
  ] as const)('%s says, %s, what Ollama would take for a stream', (body, mode, sent) => {
    expect(Buffer.from(read(body, mode).body).toString()).toBe(sent)
  })

  test.each([
    [
      'a chat',
      '{"messages":[],"model":"m","options":{"num_predict":9}}',
      { kind: 'chat', model: 'm', maxOutputTokens: 9 },
    ],
    ['no limit', '{"prompt":"","options":{"num_predict":-1}}', { kind: 'completion', maxOutputTokens: undefined }],
    ['embeddings', '{"input":"a"}', { kind: 'embedding', maxOutputTokens: 0 }],
  ])('tells %s', (_, body, facts) => {
    expect(read(body)).toMatchObject(facts)
  })

  test.each([
    ['{"messages":[],"stream":true}', 'unary', 'stream'],
    ['{"input":"a"}', 'stream', ''],
    ['{"prompt":"","options":{"num_predict":1.5}}', 'unary', 'options.num_predict'],
  ] as const)('%s is refused, %s, naming "%s"', (body, mode, param) => {
    expect(errorOf(() => read(body, mode))).toMatchObject({ reason: 'INVALID_ARGUMENT', metadata: { param } })
  })

  it('of the OpenAI API is refused', () => {
    const request = { payload: Buffer.from('{"messages":[]}'), mode: 'unary', dialect: 'openai', startMs: 0 } as const
    expect(errorOf(() => ollama.readRequest(request)).reason).toBe('INVALID_ARGUMENT')
  })

  test.each([
    ['{"messages":[]}', 'http://o.test:11434', 'http://o.test:11434/api/chat'],
    ['{"prompt":""}', 'http://o.test/api', 'http://o.test/api/generate'],
    ['{"input":""}', 'http://o.test/api/chat', 'http://o.test/api/embed'],
  ])('%s registered at %s goes to %s', (body, url, expected) => {
    const prepared = ollama.prepare(read(body), { url, model: 'llama-test', credential: undefined })
    expect(prepared.url).toBe(expected)
    expect(Buffer.from(prepared.body).toString()).toContain('"model":"llama-test"')
  })
})

describe('an answer', () => {
  const request = streamRequest({}, { mode: 'unary' })

  it('is read and passes untouched', () => {
    const bytes = Buffer.from(ollamaAnswer)
    const answer = ollama.readAnswer(bytes, request)
    expect(answer).toMatchObject({
      tokens: { input: 26, output: 12 },
      usageSource: 'provider',
      model: 'llama-test',
      finishReason: 'stop',
    })
    expect(answer.body).toBe(bytes)
  })

  it('without a count of the prompt is estimated', () => {
    const answer = Buffer.from('{"message":{"content":""},"done":true,"eval_count":1}')
    expect(ollama.readAnswer(answer, request)).toMatchObject({ usageSource: 'estimated', tokens: { input: 20 } })
  })

  it('of embeddings counts the prompt', () => {
    const answer = Buffer.from('{"embeddings":[[0.1]],"prompt_eval_count":3}')
    expect(ollama.readAnswer(answer, { ...request, kind: 'embedding' })).toMatchObject({
      tokens: { input: 3, output: 0 },
    })
  })

  test.each([
    ['not done', '{"message":{},"done":false}', 'BACKEND_ANSWER_INVALID'],
    ['a negative count', '{"done":true,"prompt_eval_count":-1,"eval_count":1}', 'BACKEND_ANSWER_INVALID'],
    ['an error', '{"error":"model requires more system memory"}', 'BACKEND_FAILED'],
  ])('that is %s is an error', (_, answer, reason) => {
    expect(errorOf(() => ollama.readAnswer(Buffer.from(answer), request)).reason).toBe(reason)
  })
})

describe('a stream', () => {
  const begun = ollamaStreams[0]?.stream.split('\n').slice(0, 2).join('\n') ?? ''

  test.each([
    ['an error', '\n{"error":"out of memory"}\n', 'error', 'BACKEND_FAILED'],
    ['no JSON', '\noops\n', 'malformed', 'BACKEND_ANSWER_INVALID'],
    ['content that is no text', '\n{"message":{"content":1}}\n', 'malformed', 'BACKEND_ANSWER_INVALID'],
    ['nothing more', '', 'cut', 'BACKEND_FAILED'],
    ['half a line', '\n{"message":{"content":"', 'cut', 'BACKEND_FAILED'],
  ])('is no success when there comes %s', (_, more, verdict, reason) => {
    const { end, report } = readStream(ollama, streamRequest({}), [Buffer.from(begun + more)])
    expect(end).toMatchObject({ verdict, error: { reason } })
    expect(report).toMatchObject({ usageSource: 'partial', tokens: { input: 20, output: 1, reasoningOutput: 1 } })
  })

  it('holds its last line back until the end was judged', () => {
    const reader = ollama.openStream(streamRequest({}))
    const stream = ollamaStreams[1]?.stream ?? ''
    const pieces = reader.push(Buffer.from(stream))
    const end = reader.end()
    const tail = end.verdict === 'complete' ? Buffer.from(end.tail).toString() : ''
    expect([pieces.length, reader.isOver, tail]).toEqual([1, true, `${stream.split('\n')[1]}\n`])
  })
})
