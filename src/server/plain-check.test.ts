import {
  create,
  createFileRegistry,
  type DescMessage,
  type Message,
  type MessageInitShape,
  setExtension,
} from '@bufbuild/protobuf'
import {
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt'
import { createValidator } from '@bufbuild/protovalidate'
import { FieldRulesSchema, field as fieldOption } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  ConsumptionService,
  RouteRequestRequestSchema,
  StreamRequestRequestSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { PolicyService } from '../../gen/marketplace/v1/policies_pb.ts'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import { UserService } from '../../gen/marketplace/v1/users_pb.ts'
import { compilePlainCheck } from './plain-check.ts'

const inputs = new Set(
  [ConsumptionService, KeyService, PolicyService, Registry, UsageService, UserService].flatMap(({ methods }) =>
    methods.map(({ input }) => input),
  ),
)
const plain = [...inputs].filter((input) => compilePlainCheck(input) !== undefined)
const validator = createValidator()

/** Of lengths around those that rules name, in characters of one place and of two. */
const texts = fc.oneof(
  fc.string({ maxLength: 5 }),
  fc
    .tuple(fc.constantFrom('a', 'é', '😀', '\ud800'), fc.constantFrom(0, 1, 2, 32, 64, 128, 179, 255, 256), fc.nat(2))
    .map(([character, length, more]) => character.repeat(Math.max(0, length + more - 1))),
)
const maps = fc
  .tuple(fc.dictionary(texts, texts, { maxKeys: 3, noNullPrototype: true }), fc.constantFrom(0, 0, 14, 16, 17))
  .map(([map, more]) => ({ ...map, ...Object.fromEntries(Array.from({ length: more }, (_, at) => [`n${at}`, ''])) }))

function messagesOf(desc: DescMessage): fc.Arbitrary<Message> {
  const fields = desc.fields.filter(({ fieldKind, scalar }) => fieldKind === 'map' || scalar === 9)
  return fc.tuple(...fields.map(({ fieldKind }) => (fieldKind === 'map' ? maps : texts))).map((values) => {
    const message = create(desc)
    for (const [at, value] of values.entries()) Reflect.set(message, fields[at]?.localName ?? '', value)
    return message
  })
}

test('calls are plain, and not everything is', () => {
  expect(plain).toContain(RouteRequestRequestSchema)
  expect(plain).toContain(StreamRequestRequestSchema)
  expect(plain.length).toBeLessThan(inputs.size)
})

test.each(plain.map((desc): [string, DescMessage] => [desc.typeName, desc]))(
  'what passes as a good %s breaks no rule',
  (_, desc) => {
    const isGood = compilePlainCheck(desc)
    let good = 0
    fc.assert(
      fc.property(messagesOf(desc), (message) => {
        if (isGood?.(message) !== true) return
        good++
        expect(validator.validate(desc, message).kind).toBe('valid')
      }),
      { numRuns: desc === RouteRequestRequestSchema ? 3000 : 300 },
    )
    expect(good).toBeGreaterThan(0)
  },
)

test('what is as long as the rules allow passes without a closer look', () => {
  const isGood = compilePlainCheck(RouteRequestRequestSchema)
  const longest = {
    serviceId: 'a'.repeat(179),
    consumerId: 'é'.repeat(64),
    metadata: { ['n'.repeat(64)]: 'v'.repeat(256) },
  }
  expect(isGood?.(create(RouteRequestRequestSchema, longest))).toBe(true)
  expect(isGood?.(create(RouteRequestRequestSchema, { ...longest, serviceId: '' }))).toBe(false)
})

/** A type with one text, and these rules for it. */
function typeWith(rules: MessageInitShape<typeof FieldRulesSchema>): DescMessage | undefined {
  const options = create(FieldOptionsSchema)
  setExtension(options, fieldOption, create(FieldRulesSchema, rules))
  const file = create(FileDescriptorProtoSchema, {
    name: 'a.proto',
    syntax: 'proto3',
    messageType: [{ name: 'A', field: [{ name: 'a', number: 1, type: Type.STRING, label: Label.OPTIONAL, options }] }],
  })
  return createFileRegistry(file, () => undefined).getMessage('A')
}

test.each<[string, boolean, MessageInitShape<typeof FieldRulesSchema>]>([
  ['a length', true, { type: { case: 'string', value: { minLen: 1n, maxLen: 5n } } }],
  ['a length and a pattern', false, { type: { case: 'string', value: { maxLen: 5n, pattern: '^a' } } }],
  ['a UUID', false, { type: { case: 'string', value: { wellKnown: { case: 'uuid', value: true } } } }],
  ['a length, unless it is empty', false, { ignore: 1, type: { case: 'string', value: { minLen: 1n } } }],
  ['a length, and that it is there', false, { required: true, type: { case: 'string', value: { maxLen: 5n } } }],
  ['an expression', false, { celExpression: ['this.size() < 3'], type: { case: 'string', value: { maxLen: 5n } } }],
])('a text with %s is plain: %s', (_, isPlain, rules) => {
  const type = typeWith(rules)
  expect(type !== undefined && compilePlainCheck(type) !== undefined).toBe(isPlain)
})
