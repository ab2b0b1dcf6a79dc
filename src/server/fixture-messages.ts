/** Messages for tests that hold readers and writers of this folder against those of the library. */
import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  type Message,
  ScalarType,
} from '@bufbuild/protobuf'
import { createMethodSerializationLookup, type Serialization } from '@connectrpc/connect/protocol'
import fc from 'fast-check'
import { expect } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { PolicyService } from '../../gen/marketplace/v1/policies_pb.ts'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'

/** Of a message, in tests of the limit. */
export const maxBytes = 1_000

/** What the library reads and writes of a method. */
export function libraryOf(method: DescMethod, bytes = maxBytes): ReturnType<typeof createMethodSerializationLookup> {
  const limits = { readMaxBytes: bytes, writeMaxBytes: bytes }
  return createMethodSerializationLookup(method, undefined, { ignoreUnknownFields: false }, limits)
}

/** What comes out: bytes as text, a message, or the words of the refusal. */
export function outcomeOf<T>(run: () => T): T | string {
  try {
    return run()
  } catch (error) {
    return `refused: ${error}`
  }
}

export const texts = fc.oneof(
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
export function messagesOf(desc: DescMessage, depth = 3, strange = 0): fc.Arbitrary<Message> {
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

/** Unary methods of several services. */
export const methods: readonly DescMethod[] = [ConsumptionService, Registry, PolicyService, UsageService].flatMap(
  ({ methods }) => methods.filter(({ methodKind }) => methodKind === 'unary'),
)

/** A library that must not be asked. */
export const notAsked: Serialization<Message> = {
  parse: () => expect.unreachable('the library was asked'),
  serialize: () => expect.unreachable('the library was asked'),
}
