import { create, type DescMethod, equals, isMessage, type Message, toJsonString } from '@bufbuild/protobuf'
import type { Serialization } from '@connectrpc/connect/protocol'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ConsumptionService,
  RouteRequestRequestSchema,
  RouteRequestResponseSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { libraryOf, maxBytes, messagesOf, methods, notAsked, outcomeOf, texts } from './fixture-messages.ts'
import { readJson } from './json-reader.ts'
import { writeJson } from './json-writer.ts'

describe('answers as JSON', () => {
  test.each(methods.map((method): [string, DescMethod] => [String(method), method]))(
    'are those of the library, byte by byte, and its refusals: %s',
    (_, method) => {
      const library = libraryOf(method).getO(false)
      const ours = writeJson(method.output, library, maxBytes)
      const written = (by: Serialization<Message>, message: Message) =>
        outcomeOf(() => Buffer.from(by.serialize(message)).toString('latin1'))
      fc.assert(
        fc.property(messagesOf(method.output, 3, 1), (message) => {
          expect(written(ours, message)).toBe(written(library, message))
        }),
        { numRuns: method.output === RouteRequestResponseSchema ? 2000 : 100 },
      )
    },
  )

  test('of a call are written without it', () => {
    const ours = writeJson(RouteRequestResponseSchema, notAsked, maxBytes)
    const message = create(RouteRequestResponseSchema, {
      requestId: 'é"',
      responseData: new Uint8Array([1, 2]),
      usage: { inputTokens: 12n, source: 1 },
      cost: { amount: 0.1, breakdown: [{ kind: 1, quantity: 3n }, {}] },
      servedBy: { attempt: 1 },
    })
    expect(Buffer.from(ours.serialize(message)).toString()).toBe(toJsonString(RouteRequestResponseSchema, message))
  })

  test('beyond the limit are refused', () => {
    const library = libraryOf(ConsumptionService.method.routeRequest).getO(false)
    const ours = writeJson(RouteRequestResponseSchema, library, maxBytes)
    const message = create(RouteRequestResponseSchema, { responseData: new Uint8Array(maxBytes) })
    expect(() => ours.serialize(message)).toThrow('message size')
  })
})

/** JSON texts that are, or could be meant as, a request. */
const values = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.uint8Array({ maxLength: 20 }).map((all) => JSON.stringify(Buffer.from(all).toString('base64'))),
  },
  { weight: 4, arbitrary: texts.map((text) => JSON.stringify(text)) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      ...['null', '1', 'true', '[]', '["a"]', '{}', '{"a":"b"}', '{"a":"b","a":"c"}', '"\\u0061"', '"\\""'],
      ...['"aGk"', '"aGk="', '"aG k="', '"aGl="', '"-_8="', '"+/8="', '"===="', '"a"', '"ab=c"', '', '"'],
    ),
  },
)
const names = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.constantFrom(...RouteRequestRequestSchema.fields.flatMap((each) => [each.name, each.jsonName])),
  },
  { weight: 1, arbitrary: fc.constantFrom('serviceID', '__proto__', 'constructor', '', '\\u0070ayload', '[x]') },
)
const space = fc.constantFrom('', '', '', ' ', '\n', '\ufeff', '\u00a0')
const requests = fc
  .array(fc.tuple(names, values, space), { maxLength: 5 })
  .chain((members) => fc.tuple(fc.constant(members), space, fc.constantFrom('', '', '', ',', '}', 'x')))
  .map(([members, before, after]) => {
    const inner = members.map(([name, value, gap]) => `${gap}"${name}":${gap}${value}`).join(',')
    return Buffer.from(`${before}{${inner}}${after}`)
  })

describe('requests from JSON', () => {
  // Whoever reads a body has held it against the limit before.
  const library = libraryOf(ConsumptionService.method.routeRequest, 1_000_000).getI(false)
  const ours = readJson(RouteRequestRequestSchema, library)

  /** True when both made the same of it, be it a message or a refusal. */
  function agree(body: Uint8Array): void {
    const [got, expected] = [ours, library].map((by) => outcomeOf(() => by.parse(body)))
    if (isMessage(got, RouteRequestRequestSchema) && isMessage(expected, RouteRequestRequestSchema)) {
      expect(equals(RouteRequestRequestSchema, got, expected)).toBe(true)
    } else expect(got).toEqual(expected)
  }

  test('are read as the library reads them, good and bad', () => {
    fc.assert(fc.property(requests, agree), { numRuns: 5000 })
  })

  test('that are good messages are read as the library reads them', () => {
    fc.assert(
      fc.property(messagesOf(RouteRequestRequestSchema), (message) => {
        agree(library.serialize(message))
      }),
      { numRuns: 1000 },
    )
  })

  test('that are changed by a byte are read as the library reads them', () => {
    const body = Buffer.from('{"serviceId":"a-service","payload":"eyJhIjoiYiJ9","consumer_id":"c"}')
    for (let at = 0; at < body.length; at++) {
      for (const byte of Buffer.from('"\\{}[]:,=-_ a1\u0000\u00ff', 'latin1')) {
        const changed = Buffer.from(body)
        changed[at] = byte
        agree(changed)
        agree(Buffer.concat([body.subarray(0, at), Buffer.of(byte), body.subarray(at)]))
      }
      agree(body.subarray(0, at))
    }
  })

  test('in the plain form are read without it', () => {
    const message = readJson(RouteRequestRequestSchema, notAsked).parse(
      Buffer.from('{ "serviceId": "é", "payload": "aGk=", "idempotency_key": "" }'),
    )
    expect(message).toEqual(
      create(RouteRequestRequestSchema, { serviceId: 'é', payload: Buffer.from('hi'), idempotencyKey: '' }),
    )
  })
})
