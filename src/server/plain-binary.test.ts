import { create, type Message, toBinary } from '@bufbuild/protobuf'
import type { Serialization } from '@connectrpc/connect/protocol'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ConsumptionService,
  RouteRequestResponseSchema,
  StreamRequestResponseSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { writeBinary } from './binary-writer.ts'
import { libraryOf, maxBytes, messagesOf, methods, notAsked, outcomeOf } from './fixture-messages.ts'

const { routeRequest } = ConsumptionService.method

function written(by: Serialization<Message>, message: Message): string {
  return outcomeOf(() => Buffer.from(by.serialize(message)).toString('hex'))
}

describe('answers in binary', () => {
  test.each(methods.map((method) => [String(method), method] as const))(
    'are those of the library, byte by byte, and its refusals: %s',
    (_, method) => {
      const library = libraryOf(method).getO(true)
      const ours = writeBinary(method.output, library, maxBytes)
      fc.assert(
        fc.property(messagesOf(method.output, 3, 1), (message) => {
          expect(written(ours, message)).toBe(written(library, message))
        }),
        { numRuns: method.output === RouteRequestResponseSchema ? 2000 : 100 },
      )
    },
  )

  test.each([0, 1, 0x7f, 0x80, 0x3f_ff, 0x40_00, 65_000, 65_536, 70_000])(
    'are so with a text of %i bytes',
    (length) => {
      const library = libraryOf(routeRequest, 1_000_000).getO(true)
      const ours = writeBinary(RouteRequestResponseSchema, library, 1_000_000)
      for (const letter of ['a', '\u00e9', '\ud800']) {
        const text = letter.repeat(length)
        const message = create(RouteRequestResponseSchema, {
          requestId: text,
          cost: { currency: text, breakdown: [{ quantity: BigInt(length) }, {}] },
          servedBy: { model: text, attempt: length },
          responseData: Buffer.from(text),
        })
        expect(written(ours, message)).toBe(written(library, message))
      }
    },
  )

  test('are so with numbers beyond 32 bits, and below 0', () => {
    const library = libraryOf(routeRequest).getO(true)
    const ours = writeBinary(RouteRequestResponseSchema, library, maxBytes)
    const edges = [0n, 127n, 128n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n, 2n ** 35n + 5n, 2n ** 53n - 1n, 2n ** 53n, -1n]
    for (const latencyMs of edges) {
      const message = create(RouteRequestResponseSchema, { latencyMs, servedBy: { attempt: Number(latencyMs) | 0 } })
      expect(written(ours, message)).toBe(written(library, message))
    }
  })

  test('of a call are written without it', () => {
    const ours = writeBinary(RouteRequestResponseSchema, notAsked, maxBytes)
    const message = create(RouteRequestResponseSchema, {
      requestId: '\u00e9"',
      responseData: new Uint8Array([1, 2]),
      usage: { inputTokens: 12n, source: 1 },
      cost: { amount: 0.1, breakdown: [{ kind: 1, quantity: 3n }, {}] },
      servedBy: { attempt: 1 },
    })
    expect(Buffer.from(ours.serialize(message))).toEqual(Buffer.from(toBinary(RouteRequestResponseSchema, message)))
  })

  test('of a stream are written without it, whichever part they are', () => {
    const ours = writeBinary(StreamRequestResponseSchema, notAsked, maxBytes)
    const parts = [
      { part: { case: 'start', value: { requestId: 'id' } } },
      { part: { case: 'eventData', value: new Uint8Array() } },
      { part: { case: 'end', value: { requestId: 'id', firstTokenMs: 3n } } },
      {},
    ] as const
    for (const part of parts) {
      const message = create(StreamRequestResponseSchema, part)
      expect(Buffer.from(ours.serialize(message))).toEqual(Buffer.from(toBinary(StreamRequestResponseSchema, message)))
    }
  })

  test('keep fields that this release does not know', () => {
    const library = libraryOf(routeRequest).getO(true)
    const message = create(RouteRequestResponseSchema, { requestId: 'id', usage: { inputTokens: 1n } })
    Reflect.set(message.usage ?? {}, '$unknown', [{ no: 99, wireType: 0, data: new Uint8Array([7]) }])
    expect(written(writeBinary(RouteRequestResponseSchema, library, maxBytes), message)).toBe(written(library, message))
  })

  test('beyond the limit are refused', () => {
    const ours = writeBinary(RouteRequestResponseSchema, libraryOf(routeRequest).getO(true), maxBytes)
    const message = create(RouteRequestResponseSchema, { responseData: new Uint8Array(maxBytes) })
    expect(() => ours.serialize(message)).toThrow('message size')
  })

  test('are the memory of one answer each', () => {
    const ours = writeBinary(RouteRequestResponseSchema, notAsked, maxBytes)
    const first = ours.serialize(create(RouteRequestResponseSchema, { requestId: 'first' }))
    ours.serialize(create(RouteRequestResponseSchema, { requestId: 'other' }))
    expect(Buffer.from(first).toString('latin1')).toContain('first')
  })
})
