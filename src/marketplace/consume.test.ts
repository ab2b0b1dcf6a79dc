import { create } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import { HttpBodySchema } from '../../gen/google/api/httpbody_pb.ts'
import { RouteRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { TollgateError } from '../errors.ts'
import { consumptionAnswer, consumptionOf } from './consume.ts'

const body = (text: string | Uint8Array, contentType = 'application/json') =>
  create(HttpBodySchema, { contentType, data: typeof text === 'string' ? Buffer.from(text) : text })

describe('a body', () => {
  test('is the payload byte for byte, without its metadata', () => {
    const text =
      '{"z":1, "prompt":"a\\u0062", "n":1.10, "big":12345678901234567890, "metadata":{"user_id":"u"}, "a":1e400}'
    const { payload, metadata } = consumptionOf(body(text))
    expect(Buffer.from(payload).toString()).toBe(
      '{"z":1, "prompt":"a\\u0062", "n":1.10, "big":12345678901234567890, "a":1e400}',
    )
    expect(metadata).toEqual({ user_id: 'u' })
  })

  test.each(['{}', '{"metadata":null}'])('%s has no labels', (text) => {
    expect(consumptionOf(body(text)).metadata).toEqual({})
  })

  test.each<[what: string, body: ReturnType<typeof body> | undefined, field: string]>([
    ['nothing', undefined, 'payload'],
    ['no bytes', body(''), 'payload'],
    ['no JSON', body('{"prompt":'), 'payload'],
    ['no object', body('["x"]'), 'payload'],
    ['no UTF-8', body(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])), 'payload'],
    ['another type', body('{}', 'text/plain'), 'content-type'],
    ['labels that are none', body('{"metadata":["x"]}'), 'metadata'],
    ['a label that is no text', body('{"metadata":{"a":"b","n":1}}'), 'metadata["n"]'],
  ])('of %s is refused with the field named', (_, sent, field) => {
    let refused: unknown
    try {
      consumptionOf(sent)
    } catch (error) {
      refused = error
    }
    expect(refused).toBeInstanceOf(TollgateError)
    expect(refused).toMatchObject({ fields: [{ field }] })
  })
})

describe('an answer', () => {
  const answer = (responseData: Uint8Array) =>
    create(RouteRequestResponseSchema, {
      requestId: '550e8400-e29b-41d4-a716-446655440000',
      responseData,
      usage: { inputTokens: 50n, outputTokens: 200n, totalTokens: 250n },
      cost: { amount: 0.025, amountNanos: 25_000_000n, currency: 'USD' },
      latencyMs: 87n,
    })

  test('has exactly the shape of reference 001', () => {
    const response = { choices: [{ text: 'Quantum computing is...', finish_reason: 'stop' }] }
    expect(
      JSON.parse(Buffer.from(consumptionAnswer(answer(Buffer.from(JSON.stringify(response))))).toString()),
    ).toEqual({
      request_id: '550e8400-e29b-41d4-a716-446655440000',
      response,
      usage: { prompt_tokens: 50, completion_tokens: 200, total_tokens: 250 },
      cost: {
        amount: 0.025,
        currency: 'USD',
        breakdown: { prompt_tokens: 50, completion_tokens: 200, total_tokens: 250, rate_per_token: 0.0001 },
      },
      latency_ms: 87,
    })
  })

  test('holds what the backend said byte for byte', () => {
    const said = '{"id": 12345678901234567890, "x":1.0}'
    expect(Buffer.from(consumptionAnswer(answer(Buffer.from(said)))).toString()).toContain(`"response":${said},"usage"`)
  })

  test('holds as a text what is no JSON', () => {
    const told = JSON.parse(Buffer.from(consumptionAnswer(answer(Buffer.from('<p>"hi"')))).toString())
    expect(told.response).toBe('<p>"hi"')
  })

  test('without tokens has no rate', () => {
    const told = JSON.parse(Buffer.from(consumptionAnswer(create(RouteRequestResponseSchema, {}))).toString())
    expect(told.cost).toEqual({
      amount: 0,
      currency: '',
      breakdown: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, rate_per_token: 0 },
    })
  })
})
