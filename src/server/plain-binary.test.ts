import {
  create,
  type DescMessage,
  type DescMethod,
  type Message,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ConsumptionService,
  RouteRequestResponseSchema,
  StreamRequestResponseSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { isObject } from '../is-object.ts'
import { type WriteAnswer, writeBinary } from './binary-writer.ts'
import { libraryOf, maxBytes, messagesOf, methods, notAsked, outcomeOf } from './fixture-messages.ts'

type Init = MessageInitShape<DescMessage>

const { routeRequest, streamRequest } = ConsumptionService.method

/** What both write of an answer of a method, or their refusals. */
function writersOf(method: DescMethod, bytes = maxBytes): { ours: (answer: Init) => string; librarys: typeof ours } {
  const library = libraryOf(method, bytes).getO(true)
  const write = writeBinary(method.output, library, bytes)
  const ours = (answer: Init) => outcomeOf(() => Buffer.from(write(answer)).toString('hex'))
  const librarys = (answer: Init) =>
    outcomeOf(() => Buffer.from(library.serialize(create(method.output, answer))).toString('hex'))
  return { ours, librarys }
}

/** What a message could be made from: some of its parts, and of those that are `kept` the messages themselves. */
function initOf(message: object, kept: (name: string) => boolean): Record<string, unknown> {
  const part = (name: string, value: unknown): unknown => {
    if (Array.isArray(value)) return value.map((each) => part(name, each))
    return isObject(value) && !(value instanceof Uint8Array) && !kept(name) ? initOf(value, kept) : value
  }
  const parts = Object.entries(message).filter(([name, value]) => name !== '$typeName' && value !== '' && value !== 0n)
  return Object.fromEntries(parts.map(([name, value]) => [name, part(name, value)]))
}

/** Ours alone: to ask the library fails. */
function alone(desc: DescMessage): WriteAnswer {
  return writeBinary(desc, notAsked, maxBytes)
}

describe('answers in binary', () => {
  test.each(methods.map((method): [string, DescMethod] => [String(method), method]))(
    'are those of the library, byte by byte, and its refusals: %s',
    (_, method) => {
      const { ours, librarys } = writersOf(method)
      const names = new Set(['usage', 'breakdown', 'servedBy'])
      fc.assert(
        fc.property(messagesOf(method.output, 3, 1), fc.boolean(), (message, keeps) => {
          expect(ours(message)).toBe(librarys(message))
          const init = initOf(message, (name) => keeps && names.has(name))
          expect(ours(init)).toBe(librarys(init))
        }),
        { numRuns: method.output === RouteRequestResponseSchema ? 2000 : 100 },
      )
    },
  )

  test.each([0, 1, 0x7f, 0x80, 0x3f_ff, 0x40_00, 65_000, 65_536, 70_000])(
    'are so with a text of %i bytes',
    (length) => {
      const { ours, librarys } = writersOf(routeRequest, 1_000_000)
      for (const letter of ['a', '\u00e9', '\ud800']) {
        const text = letter.repeat(length)
        const message = create(RouteRequestResponseSchema, {
          requestId: text,
          cost: { currency: text, breakdown: [{ quantity: BigInt(length) }, {}] },
          servedBy: { model: text, attempt: length },
          responseData: Buffer.from(text),
        })
        expect(ours(message)).toBe(librarys(message))
      }
    },
  )

  test('are so with numbers beyond 32 bits, and below 0', () => {
    const { ours, librarys } = writersOf(routeRequest)
    const edges = [0n, 127n, 128n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n, 2n ** 35n + 5n, 2n ** 53n - 1n, 2n ** 53n, -1n]
    for (const latencyMs of edges) {
      const message = create(RouteRequestResponseSchema, { latencyMs, servedBy: { attempt: Number(latencyMs) | 0 } })
      expect(ours(message)).toBe(librarys(message))
    }
  })

  test.each([2 ** 31 - 1, 2 ** 31, 2 ** 32, 0.5, Number.NaN, Number.POSITIVE_INFINITY])(
    'are so, or refused so, with %d in a field of 32 bits',
    (attempt) => {
      const { ours, librarys } = writersOf(routeRequest)
      const message = create(RouteRequestResponseSchema, { servedBy: { attempt: 1 } })
      Reflect.set(Object(message.servedBy), 'attempt', attempt)
      expect(ours(message)).toBe(librarys(message))
    },
  )

  test('of a call are written without it, and without a message', () => {
    const answer: MessageInitShape<typeof RouteRequestResponseSchema> = {
      requestId: '\u00e9"',
      responseData: new Uint8Array([1, 2]),
      usage: { inputTokens: 12n, source: 1 },
      cost: { amount: 0.1, breakdown: [{ kind: 1, quantity: 3n }, {}] },
      servedBy: { attempt: 1 },
    }
    const message = create(RouteRequestResponseSchema, answer)
    const expected = Buffer.from(toBinary(RouteRequestResponseSchema, message))
    expect(alone(RouteRequestResponseSchema)(message)).toEqual(expected)
    expect(alone(RouteRequestResponseSchema)(answer)).toEqual(expected)
  })

  test('of a stream are written without it, whichever part they are', () => {
    const parts = [
      { part: { case: 'start', value: { requestId: 'id' } } },
      { part: { case: 'eventData', value: new Uint8Array() } },
      { part: { case: 'end', value: { requestId: 'id', firstTokenMs: 3n } } },
      {},
    ] as const
    for (const part of parts) {
      const message = create(StreamRequestResponseSchema, part)
      const expected = Buffer.from(toBinary(StreamRequestResponseSchema, message))
      expect(alone(StreamRequestResponseSchema)(message)).toEqual(expected)
      expect(alone(StreamRequestResponseSchema)(part)).toEqual(expected)
    }
  })

  test('are refused where a message holds what is none', () => {
    const { ours, librarys } = writersOf(routeRequest)
    const message = create(RouteRequestResponseSchema)
    Reflect.set(message, 'usage', { inputTokens: 1n })
    expect(librarys(message)).toContain('refused')
    expect(ours(message)).toBe(librarys(message))
  })

  test.each([undefined, null, 'text'])(
    'are what the library makes of a message with %s in place of a part',
    (value) => {
      const holders: readonly [DescMethod, DescMessage, (message: Message) => unknown][] = [
        [routeRequest, RouteRequestResponseSchema, (message) => message],
        [routeRequest, RouteRequestResponseSchema, (message) => Reflect.get(message, 'cost')],
        [streamRequest, StreamRequestResponseSchema, (message) => message],
      ]
      for (const [method, desc, holderOf] of holders) {
        const { ours, librarys } = writersOf(method)
        const whole = () => create(desc, { cost: { breakdown: [{ quantity: 1n }] }, servedBy: {}, usage: {} })
        for (const name of Object.keys(holderOf(whole()) ?? {})) {
          const message = whole()
          Reflect.set(Object(holderOf(message)), name, value)
          expect(ours(message)).toBe(librarys(message))
        }
      }
    },
  )

  test('keep fields that this release does not know', () => {
    const { ours, librarys } = writersOf(routeRequest)
    const message = create(RouteRequestResponseSchema, { requestId: 'id', usage: { inputTokens: 1n } })
    Reflect.set(message.usage ?? {}, '$unknown', [{ no: 99, wireType: 0, data: new Uint8Array([7]) }])
    expect(ours(message)).toBe(librarys(message))
  })

  test('beyond the limit are refused', () => {
    const { ours } = writersOf(routeRequest)
    expect(ours({ responseData: new Uint8Array(maxBytes) })).toContain('message size')
  })

  test('are the memory of one answer each', () => {
    const write = alone(RouteRequestResponseSchema)
    const first = write({ requestId: 'first' })
    write({ requestId: 'other' })
    expect(Buffer.from(first).toString('latin1')).toContain('first')
  })
})
