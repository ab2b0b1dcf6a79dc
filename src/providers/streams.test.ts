import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { totalOutput } from '../metering/usage-event.ts'
import { anthropicStreams } from './fixtures/anthropic.ts'
import { geminiStreams } from './fixtures/gemini.ts'
import { ollamaStreams } from './fixtures/ollama.ts'
import { openaiStreams } from './fixtures/openai.ts'
import { cutAt, readStream, type StreamFixture, streamRequest } from './fixtures/stream-fixture.ts'
import type { Provider } from './provider.ts'
import { createProvider } from './providers.ts'

const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
const anthropic = createProvider({ protocol: 'anthropic', defaultMaxOutputTokens: 1024 })
const gemini = createProvider({ protocol: 'gemini', defaultMaxOutputTokens: 1024 })
const ollama = createProvider({ protocol: 'ollama', defaultMaxOutputTokens: 1024 })

/** Every recorded stream in the dialects that its provider's callers may speak. */
const fixtures = [
  ...openaiStreams.map((fixture) => ({ ...fixture, provider: openai, dialect: 'native' as const })),
  ...anthropicStreams.flatMap((fixture) => inBoth(fixture, anthropic)),
  ...geminiStreams.flatMap((fixture) => inBoth(fixture, gemini)),
  ...ollamaStreams.map((fixture) => ({ ...fixture, provider: ollama, dialect: 'native' as const })),
]

function inBoth(fixture: StreamFixture, provider: Provider) {
  const dialects = ['native', 'openai'] as const
  return dialects.map((dialect) => ({ ...fixture, provider, dialect }))
}

function bytesOf(fixture: Pick<StreamFixture, 'stream'>): Buffer {
  return Buffer.from(fixture.stream)
}

describe.each(fixtures)('the stream $name, $dialect', ({ provider, dialect, ...fixture }) => {
  const bytes = bytesOf(fixture)
  const request = streamRequest(fixture, { dialect })
  const whole = readStream(provider, request, [bytes])

  it('is read: text, usage, finish reason, verdict', () => {
    expect(whole.end.verdict).toBe('complete')
    expect(whole.report).toMatchObject({
      tokens: fixture.tokens,
      usageSource: 'provider',
      finishReason: fixture.finishReason,
      model: fixture.model,
    })
    expect(whole.report.textBytes + whole.report.reasoningBytes).toBe(Buffer.byteLength(fixture.text))
  })

  it('is read the same when it is cut in two at any byte', () => {
    for (let place = 0; place <= bytes.length; place += 1) {
      expect(readStream(provider, request, cutAt(bytes, [place]))).toEqual(whole)
    }
  })

  it('is read the same in any chunks', () => {
    const places = fc.array(fc.nat(bytes.length), { maxLength: 60 })
    fc.assert(
      fc.property(places, (at) => {
        expect(readStream(provider, request, cutAt(bytes, at))).toEqual(whole)
      }),
    )
    expect(
      readStream(
        provider,
        request,
        Array.from(bytes, (byte) => Buffer.of(byte)),
      ),
    ).toEqual(whole)
  })

  it('is a success only when its finish reason has come, wherever it ends', () => {
    const verdicts = Array.from(bytes, (_, length) => {
      const { end, report } = readStream(provider, request, [bytes.subarray(0, length)])
      const isFinished = report.finishReason !== ''
      if (end.verdict === 'complete') expect(isFinished).toBe(true)
      else expect(report.usageSource).not.toBe('provider')
      if (!isFinished) expect(totalOutput(report.tokens)).toBeLessThanOrEqual(Buffer.byteLength(fixture.text))
      return end.verdict
    })
    const first = verdicts.indexOf('complete')
    expect(verdicts.slice(first < 0 ? verdicts.length : first)).not.toContain('cut')
    expect(verdicts).not.toContain('error')
  })

  it('is judged the same with any byte changed, whether events are known by their bytes or parsed', () => {
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (place, byte) => {
        const changed = Buffer.from(bytes)
        changed[place] = byte
        const parsed = readStream(
          provider,
          request,
          Array.from(changed, (one) => Buffer.of(one)),
        )
        expect(withoutEmptyLines(readStream(provider, request, [changed]))).toEqual(withoutEmptyLines(parsed))
      }),
      {
        numRuns: 300,
        // An event whose line end became an empty line, and a comment after an event that is written anew.
        examples: [
          [1125, 10],
          [721, 58],
        ].filter(([place = 0]) => place < bytes.length),
      },
    )
  })
})

/**
 * Line ends that stand before an event say nothing, and an event that ends with CR is handed on before it is known whether LF
 * follows: so the LF may stand before the next event, or be gone with an event that is not handed on.
 */
function withoutEmptyLines<T extends { readonly bytes: string }>(read: T): T {
  const bytes = read.bytes
    .replace(/\r\n?/g, '\n')
    .replace(/\n{2,}/g, '\n\n')
    .replace(/^\n+/, '')
  return { ...read, bytes }
}

test('a stream of comments is judged the same when its last line end is cut in two', () => {
  const request = streamRequest({})
  const bytes = Buffer.from(': nothing\r\n\r\n')
  const whole = readStream(openai, request, [bytes])
  expect(whole.end).toMatchObject({ verdict: 'malformed', error: { reason: 'BACKEND_ANSWER_INVALID' } })
  expect(readStream(openai, request, cutAt(bytes, [bytes.length - 1]))).toEqual(whole)
})

/** Events that must end any OpenAI stream at once, with what comes of it. */
const broken: readonly (readonly [what: string, event: string, verdict: string, reason: string])[] = [
  ['half an object', '{"choices":[{"index":0,"delta":{"content":"', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['no JSON', 'oops', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['a JSON array', '[]', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['choices that are no list', '{"choices":{}}', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['a choice that is no object', '{"choices":[1]}', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['a delta that is no object', '{"choices":[{"index":0,"delta":"x"}]}', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['content that is no text', '{"choices":[{"index":0,"delta":{"content":7}}]}', 'malformed', 'BACKEND_ANSWER_INVALID'],
  [
    'a finish reason that is no text',
    '{"choices":[{"index":0,"finish_reason":1}]}',
    'malformed',
    'BACKEND_ANSWER_INVALID',
  ],
  ['a negative count', '{"choices":[],"usage":{"prompt_tokens":-1}}', 'malformed', 'BACKEND_ANSWER_INVALID'],
  ['an absurd count', '{"choices":[],"usage":{"completion_tokens":1e12}}', 'malformed', 'BACKEND_ANSWER_INVALID'],
  [
    'more cached than prompt tokens',
    '{"choices":[],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":2}}}',
    'malformed',
    'BACKEND_ANSWER_INVALID',
  ],
  ['an error object', '{"error":{"message":"m","type":"server_error","code":500}}', 'error', 'BACKEND_FAILED'],
  ['an error text', '{"error":"out of memory"}', 'error', 'BACKEND_FAILED'],
  [
    'an error of vLLM',
    '{"object":"error","message":"m","type":"BadRequestError","code":400}',
    'error',
    'BACKEND_REJECTED',
  ],
  ['a wrong key', '{"error":{"code":"invalid_api_key"}}', 'error', 'BACKEND_CREDENTIAL_REFUSED'],
  ['too much context', '{"error":{"type":"exceed_context_size_error"}}', 'error', 'BACKEND_REJECTED'],
]

const begun = 'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
const finished = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'

describe('a broken stream', () => {
  test.each(broken)('fails at once at %s, after the pieces before it', (_, event, verdict, reason) => {
    const reader = openai.openStream(streamRequest({}))
    const events = reader.push(Buffer.from(`${begun}data: ${event}\n\n${begun}${finished}data: [DONE]\n\n`))
    expect(events.map(({ kind }) => kind)).toEqual(['piece', 'failure'])
    expect(events[1]).toMatchObject({ verdict, error: { reason } })
    expect(reader.push(Buffer.from(begun))).toEqual([])
    expect(reader.end()).toMatchObject({ verdict, error: { reason } })
    expect(reader.report()).toMatchObject({ usageSource: 'partial', textBytes: 3, tokens: { input: 20, output: 1 } })
  })

  test.each([
    ['text that is no UTF-8', Buffer.concat([Buffer.from('data: {"x":"'), Buffer.of(0xff), Buffer.from('"}\n\n')])],
    ['a damaged field name', Buffer.from('dota: {"choices":[]}\n\n')],
    ["llama.cpp's error field", Buffer.from('error: {"code":500,"message":"m","type":"server_error"}\n\n')],
    ['an event named error', Buffer.from('event: error\ndata: {"message":"m"}\n\n')],
    ['a line beyond its ceiling', Buffer.alloc(8 * 1024 * 1024 + 1, 0x61)],
    ['an event beyond its ceiling', Buffer.from(`data: ${'a'.repeat(1 << 20)}\n`.repeat(17))],
  ])('is no success for %s', (_, bytes) => {
    const { end } = readStream(openai, streamRequest({}), [Buffer.from(begun), bytes, Buffer.from(finished)])
    expect(['malformed', 'error']).toContain(end.verdict)
  })

  test.each([
    ['ends after a token', begun, 'cut', 'BACKEND_FAILED'],
    ['ends with its end marker but no finish reason', `${begun}data: [DONE]\n\n`, 'cut', 'BACKEND_FAILED'],
    ['ends within an event', begun.slice(0, 40), 'cut', 'BACKEND_FAILED'],
    ['has nothing but an end marker', 'data: [DONE]\n\n', 'cut', 'BACKEND_FAILED'],
    ['is empty', '', 'malformed', 'BACKEND_ANSWER_INVALID'],
    ['is HTML', '<!doctype html>\n<h1>It works!</h1>', 'malformed', 'BACKEND_ANSWER_INVALID'],
    ['is a whole answer', '{"choices":[]}', 'malformed', 'BACKEND_ANSWER_INVALID'],
    ['is an error object', '{"error":{"code":"rate_limit_exceeded"}}\n', 'error', 'BACKEND_FAILED'],
  ])('that %s is no success', (_, stream, verdict, reason) => {
    const { end } = readStream(openai, streamRequest({}), [Buffer.from(stream)])
    expect(end).toMatchObject({ verdict, error: { reason } })
  })

  it('counts its text alone, also where the same text stands elsewhere in an event', () => {
    const event = (note: string, text: string): string =>
      `data: {"note":"${note}","choices":[{"index":0,"delta":{"content":"${text}"}}]}\n\n`
    const stream = event('same', 'same') + event('other ', 'same') + event('same', 'two')
    expect(readStream(openai, streamRequest({}), [Buffer.from(stream)]).report.textBytes).toBe(11)
  })

  it('needs every choice that began, and without an end marker every one that was asked for', () => {
    const other = 'data: {"choices":[{"index":1,"delta":{"content":"x"}}]}\n\n'
    const verdict = (stream: string): string =>
      readStream(openai, streamRequest({ choices: 2 }), [Buffer.from(stream)]).end.verdict
    expect(verdict(`${begun}${other}${finished}data: [DONE]\n\n`)).toBe('cut')
    expect(verdict(`${begun}${finished}`)).toBe('cut')
    expect(verdict(`${begun}${finished}data: [DONE]\n\n`)).toBe('complete')
  })
})

describe('what a caller gets of a stream', () => {
  const usage = 'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
  const stream = Buffer.from(`${begun}${finished}${usage}data: [DONE]\n\n`)

  it('is every byte when it asked for usage', () => {
    expect(readStream(openai, streamRequest({}), [stream]).bytes).toBe(stream.toString())
  })

  it('lacks the chunk of usage when it did not ask', () => {
    const { bytes, report } = readStream(openai, streamRequest({}, { asksUsage: false }), [stream])
    expect(bytes).toBe(`${begun}${finished}data: [DONE]\n\n`)
    expect(report).toMatchObject({ usageSource: 'provider', tokens: { input: 3, output: 1 } })
  })

  it('holds the end marker back until the end was judged', () => {
    const reader = openai.openStream(streamRequest({}))
    const pieces = reader.push(stream).flatMap((event) => (event.kind === 'piece' ? [event] : []))
    expect(pieces.map(({ hasOutput }) => hasOutput)).toEqual([true, false, false])
    expect(reader.isOver).toBe(true)
    expect(reader.end()).toEqual({ verdict: 'complete', tail: Buffer.from('data: [DONE]\n\n') })
  })

  it('is estimated when a complete stream reported no usage, and says so', () => {
    const { report } = readStream(openai, streamRequest({}), [Buffer.from(`${begun}${begun}${finished}`)])
    expect(report).toMatchObject({ usageSource: 'estimated', tokens: { input: 20, output: 2 } })
  })

  it('costs nothing when nothing was delivered or reported', () => {
    const role = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    const { report } = readStream(openai, streamRequest({}), [Buffer.from(role)])
    expect(report).toMatchObject({ usageSource: 'none', tokens: { input: 0, output: 0 } })
  })
})
