import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import {
  RouteRequestRequestSchema,
  RouteRequestResponseSchema,
  StreamRequestRequestSchema,
  StreamRequestResponseSchema,
  UsageSource,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { errorOf } from './fixtures/stream-fixture.ts'
import { frameMessage, MessageFrames, maxStreamMessageBytes } from './grpc-frames.ts'
import type { Dialect, Mode, StreamEvent, StreamReader } from './provider.ts'
import { createProvider } from './providers.ts'

const grpc = createProvider({ protocol: 'grpc', defaultMaxOutputTokens: 1024 })
const payload = Buffer.from('{ "model":"theirs", "messages":[], "max_tokens":7, "x":1e400 }')

function read(mode: Mode, dialect: Dialect = 'native', body: Uint8Array = payload) {
  return grpc.readRequest({ payload: body, mode, dialect, startMs: 0 })
}

type Part = NonNullable<MessageInitShape<typeof StreamRequestResponseSchema>['part']>

function message(part: Part): Uint8Array {
  return frameMessage(toBinary(StreamRequestResponseSchema, create(StreamRequestResponseSchema, { part })))
}

function data(text: string): Uint8Array {
  return message({ case: 'eventData', value: Buffer.from(text) })
}

const usage = {
  inputTokens: 10n,
  cachedInputTokens: 4n,
  cacheWriteInputTokens: 1n,
  outputTokens: 8n,
  reasoningOutputTokens: 3n,
  totalTokens: 18n,
  source: UsageSource.PROVIDER,
}
const tokens = { input: 5, cachedInput: 4, cacheWriteInput: 1, output: 5, reasoningOutput: 3 }
const start = message({ case: 'start', value: { requestId: 'r' } })
const end = message({ case: 'end', value: { usage, finishReason: 'length', servedBy: { model: 'm-1' } } })
const chunks = [
  '{"choices":[{"index":0,"delta":{"content":"Grü"}}]}',
  '{"choices":[{"index":0,"delta":{"content":"ezi"}}]}',
]
const whole = Buffer.concat([start, ...chunks.map(data), end])

function texts(events: readonly StreamEvent[]): string {
  return events
    .map((event) => (event.kind === 'piece' ? Buffer.from(event.bytes).toString() : event.error.reason))
    .join('')
}

function readAll(reader: StreamReader, ...parts: readonly Uint8Array[]): string {
  return parts.map((part) => texts(reader.push(part))).join('')
}

describe('a request', () => {
  test.each([
    ['unary', 'RouteRequest', RouteRequestRequestSchema],
    ['stream', 'StreamRequest', StreamRequestRequestSchema],
  ] as const)('for %s goes to %s of the upstream with its payload as it came', (mode, rpc, schema) => {
    const asked = read(mode)
    expect(asked).toMatchObject({ kind: 'chat', model: 'theirs', maxOutputTokens: 7 })
    expect(asked.body).toBe(payload)
    const target = { url: 'https://gate.test:8443', model: 'upstream-service', credential: 'k' }
    const sent = grpc.prepare(asked, target)
    expect(sent).toMatchObject({ url: `https://gate.test:8443/marketplace.v1.ConsumptionService/${rpc}`, isGrpc: true })
    expect(sent.headers).toMatchObject({
      authorization: 'Bearer k',
      'content-type': 'application/grpc+proto',
      te: 'trailers',
    })
    const [body] = new MessageFrames(maxStreamMessageBytes).push(sent.body)
    if (body === undefined) throw new Error('no message')
    const { serviceId, consumerId, payload: passed } = fromBinary(schema, body)
    expect({ serviceId, consumerId }).toEqual({ serviceId: 'upstream-service', consumerId: '' })
    expect(Buffer.from(passed)).toEqual(payload)
  })
})

describe('a whole answer', () => {
  function answer(told: MessageInitShape<typeof RouteRequestResponseSchema>): Uint8Array {
    return frameMessage(toBinary(RouteRequestResponseSchema, create(RouteRequestResponseSchema, told)))
  }

  it('is the upstream’s backend’s, with the figures of the upstream', () => {
    const responseData = Buffer.from('{"x":1}')
    const told = { responseData, usage, finishReason: 'stop', servedBy: { model: 'm-1' } }
    const { body, ...figures } = grpc.readAnswer(answer(told), read('unary'))
    expect(Buffer.from(body)).toEqual(responseData)
    expect(figures).toEqual({ tokens, usageSource: 'provider', model: 'm-1', finishReason: 'stop' })
  })

  it('is estimated where the upstream estimated it, or says nothing', () => {
    const estimated = answer({ usage: { ...usage, source: UsageSource.ESTIMATED } })
    expect(grpc.readAnswer(estimated, read('unary'))).toMatchObject({ tokens, usageSource: 'estimated' })
    expect(grpc.readAnswer(answer({}), read('unary')).usageSource).toBe('estimated')
  })

  test.each([
    ['nothing', new Uint8Array()],
    ['a page', Buffer.from('<html><body>Bad gateway</body></html>')],
    ['half a message', answer({ usage }).subarray(0, -1)],
    ['two messages', Buffer.concat([answer({}), answer({})])],
    ['no message of this kind', frameMessage(Buffer.from([0xff, 0xff]))],
    ['counts that cannot be', answer({ usage: { ...usage, cachedInputTokens: 11n } })],
    ['negative counts', answer({ usage: { ...usage, outputTokens: -1n } })],
  ])('that is or has %s is invalid', (_, bytes) => {
    expect(errorOf(() => grpc.readAnswer(bytes, read('unary'))).reason).toMatch(/BACKEND_ANSWER_(INVALID|TOO_LARGE)/)
  })
})

describe('a stream', () => {
  const expected = chunks.map((chunk) => `data: ${chunk}\n\n`).join('')

  it('is the same wherever it is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(whole.length)), (cuts) => {
        const reader = grpc.openStream(read('stream'))
        const places = [0, ...cuts.sort((a, b) => a - b), whole.length]
        const parts = places.map((at, index) => whole.subarray(at, places[index + 1] ?? whole.length))
        expect(readAll(reader, ...parts)).toBe(expected)
        expect(reader.isOver).toBe(true)
        expect(reader.end()).toMatchObject({ verdict: 'complete' })
        expect(reader.report()).toMatchObject({ tokens, usageSource: 'provider', model: 'm-1', finishReason: 'length' })
      }),
    )
  })

  it('ends with the end marker for callers of the OpenAI API alone', () => {
    for (const [dialect, tail] of [
      ['openai', 'data: [DONE]\n\n'],
      ['native', ''],
    ] as const) {
      const reader = grpc.openStream(read('stream', dialect))
      reader.push(whole)
      const ended = reader.end()
      expect(ended.verdict === 'complete' && Buffer.from(ended.tail).toString()).toBe(tail)
    }
  })

  it('without StreamEnd is a cut, charged for what came', () => {
    for (let length = 0; length < whole.length; length += 1) {
      const reader = grpc.openStream(read('stream'))
      reader.push(whole.subarray(0, length))
      expect(reader.end()).toMatchObject({ verdict: 'cut', error: { reason: 'BACKEND_FAILED' } })
    }
    const reader = grpc.openStream(read('stream'))
    reader.push(whole.subarray(0, whole.length - end.length))
    expect(reader.report()).toMatchObject({ usageSource: 'partial', tokens: { output: 2 } })
    expect(grpc.openStream(read('stream')).report()).toMatchObject({ usageSource: 'none' })
  })

  test.each([
    ['OpenAI’s', ['{"choices":[{"index":0,"delta":{"content":"a"}}]}'], 1],
    [
      'Anthropic’s',
      [
        '{"type":"message_start","message":{"model":"c","usage":{"input_tokens":9,"output_tokens":1}}}',
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a b"}}',
      ],
      1,
    ],
    [
      'Gemini’s',
      [
        '{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":6}}',
      ],
      6,
    ],
    ['the Responses API’s', ['{"type":"response.output_text.delta","delta":"a"}'], 1],
    ['Ollama’s', ['{"model":"l","message":{"content":"a"},"done":false}'], 1],
    ['nobody’s', ['[1]', 'no JSON', '{"x":1}'], 0],
  ])('that breaks off is charged by the events of %s protocol', (_, events, output) => {
    const reader = grpc.openStream(read('stream'))
    for (const event of events) reader.push(data(event))
    expect(reader.report().tokens.output).toBe(output)
  })

  it('keeps data of several lines in one event', () => {
    const reader = grpc.openStream(read('stream'))
    expect(texts(reader.push(data('{\n"a":1}')))).toBe('data: {\ndata: "a":1}\n\n')
  })

  test.each([
    ['compressed', Buffer.from([1, 0, 0, 0, 0]), 'BACKEND_ANSWER_INVALID'],
    ['a page', Buffer.from('<html></html>'), 'BACKEND_ANSWER_INVALID'],
    ['no StreamRequestResponse', frameMessage(Buffer.from([0xff, 0xff])), 'BACKEND_ANSWER_INVALID'],
    ['larger than may be', Buffer.from([0, 0x10, 0, 0, 0]), 'BACKEND_ANSWER_TOO_LARGE'],
    [
      'with an end that cannot be',
      message({ case: 'end', value: { usage: { ...usage, cachedInputTokens: 11n } } }),
      'BACKEND_ANSWER_INVALID',
    ],
  ])('whose message is %s ends with an error, after what was before it', (_, bytes, reason) => {
    const reader = grpc.openStream(read('stream'))
    const [first = ''] = chunks
    expect(readAll(reader, Buffer.concat([data(first), bytes]))).toBe(`data: ${first}\n\n${reason}`)
    expect(reader.end()).toMatchObject({ verdict: 'malformed', error: { reason } })
    expect(reader.push(data(first))).toEqual([])
  })
})
