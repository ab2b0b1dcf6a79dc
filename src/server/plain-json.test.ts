import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  equals,
  isMessage,
  type Message,
  ScalarType,
  toJsonString,
} from '@bufbuild/protobuf'
import { createMethodSerializationLookup, type Serialization } from '@connectrpc/connect/protocol'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ConsumptionService,
  RouteRequestRequestSchema,
  RouteRequestResponseSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { PolicyService } from '../../gen/marketplace/v1/policies_pb.ts'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import { readJson } from './json-reader.ts'
import { writeJson } from './json-writer.ts'

const maxBytes = 1_000

function libraryOf(method: DescMethod, bytes = maxBytes): ReturnType<typeof createMethodSerializationLookup> {
  const limits = { readMaxBytes: bytes, writeMaxBytes: bytes }
  return createMethodSerializationLookup(method, undefined, { ignoreUnknownFields: false }, limits)
}

/** What comes out: bytes as text, a message, or the words of the refusal. */
function outcomeOf<T>(run: () => T): T | string {
  try {
    return run()
  } catch (error) {
    return `refused: ${error}`
  }
}

const texts = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.constantFrom('', '"', '\\', '\u2028', '\ud800', '😀', '__proto__', 'a'.repeat(300)),
)
const doubles = fc.oneof(fc.double(), fc.constantFrom(0, -0, 1e21, 5e-324, Number.NaN, Number.POSITIVE_INFINITY))
const longs = fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.constantFrom(0n, 1n))
/** What no field, or only some, may hold. */
const anything = fc.constantFrom<unknown>(null, undefined, '5', 5, 1.5, 0, '', true, 7n, [], {}, new Uint8Array(3))

function scalarOf(scalar: ScalarType): fc.Arbitrary<unknown> {
  switch (scalar) {
    case ScalarType.STRING:
      return texts
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 70 })
    case ScalarType.BOOL:
      return fc.boolean()
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return doubles
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return fc.oneof(fc.nat(), fc.constantFrom(0, -0))
    default:
      return longs
  }
}

const enumOf = ({ values }: DescEnum) => fc.oneof(fc.constantFrom(...values.map(({ number }) => number)), fc.nat(99))

function heldBy(field: DescField, depth: number): fc.Arbitrary<unknown> {
  switch (field.fieldKind) {
    case 'scalar':
      return scalarOf(field.scalar)
    case 'enum':
      return enumOf(field.enum)
    case 'message':
      return messagesOf(field.message, depth - 1)
    case 'list':
      return fc.array(
        field.listKind === 'message'
          ? messagesOf(field.message, depth - 1)
          : field.listKind === 'enum'
            ? enumOf(field.enum)
            : scalarOf(field.scalar),
        { maxLength: 3 },
      )
    case 'map':
      return field.mapKind === 'scalar' && field.mapKey === ScalarType.STRING
        ? fc.dictionary(texts, scalarOf(field.scalar), { maxKeys: 3, noNullPrototype: true })
        : fc.constant({})
  }
}

/** Messages, some of them with a value that their field may not hold. */
function messagesOf(desc: DescMessage, depth = 3, strange = 0): fc.Arbitrary<Message> {
  const fields = depth > 0 ? desc.fields.filter(({ oneof }) => oneof === undefined) : []
  const values = fc.tuple(
    ...fields.map((field) =>
      fc.option(fc.oneof({ weight: 20, arbitrary: heldBy(field, depth) }, { weight: strange, arbitrary: anything }), {
        nil: undefined,
        freq: 3,
      }),
    ),
  )
  return values.map((all) => {
    const message = create(desc)
    for (const [at, value] of all.entries()) {
      const name = fields[at]?.localName
      if (name !== undefined && value !== undefined) Reflect.set(message, name, value)
    }
    return message
  })
}

const methods: readonly DescMethod[] = [ConsumptionService, Registry, PolicyService, UsageService].flatMap(
  ({ methods }) => methods.filter(({ methodKind }) => methodKind === 'unary'),
)

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

const notAsked: Serialization<Message> = {
  parse: () => expect.unreachable('the library was asked'),
  serialize: () => expect.unreachable('the library was asked'),
}

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
