import { create, type DescMessage, type Message } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
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
