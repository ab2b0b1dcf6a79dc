import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import { describe, expect, test } from 'vitest'
import { LimitName, LimitSchema, LimitScope } from '../../gen/marketplace/v1/limits_pb.ts'

const validator = createValidator()

/** Ids of the rules that a limit breaks. */
function broken(limit: MessageInitShape<typeof LimitSchema>): string[] {
  const sound = { scope: LimitScope.CONSUMER, subjectId: 'c', name: LimitName.REQUESTS_PER_SECOND, amount: 1n }
  const result = validator.validate(LimitSchema, create(LimitSchema, { ...sound, ...limit }))
  if (result.kind === 'error') throw result.error
  return result.kind === 'valid' ? [] : result.violations.map((violation) => violation.ruleId)
}

const { REQUESTS_PER_SECOND, REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, CONCURRENT_REQUESTS } = LimitName
const { TOKENS_PER_MONTH, COST_PER_MONTH } = LimitName

describe.each([
  [REQUESTS_PER_SECOND, 1n, 1_000_000n],
  [REQUESTS_PER_MINUTE, 1n, 50_000_000n],
  [TOKENS_PER_MINUTE, 1n, 50_000_000n],
  [CONCURRENT_REQUESTS, 1n, 1_000_000n],
  [TOKENS_PER_MONTH, 0n, 1_000_000_000_000n],
  [COST_PER_MONTH, 0n, 8_000_000_000_000_000n],
])('name %i', (name, least, most) => {
  const currency = name === COST_PER_MONTH ? 'EUR' : ''

  test('has its own range', () => {
    for (const amount of [least, most]) expect(broken({ name, amount, currency })).toEqual([])
    for (const amount of [least - 1n, most + 1n]) expect(broken({ name, amount, currency })).toEqual(['limit.amount'])
  })

  test('has a currency only and always as a cost', () => {
    expect(broken({ name, currency: currency === '' ? 'USD' : '' })).toEqual(['limit.currency'])
  })

  test('has a burst only as a rate', () => {
    expect(broken({ name, currency, burst: 1n })).toEqual(name === REQUESTS_PER_SECOND ? [] : ['limit.burst'])
  })

  test('is a default of a service’s consumers only when a tier has it', () => {
    const ofTier = name === REQUESTS_PER_SECOND || name === TOKENS_PER_MONTH
    expect(broken({ name, currency, scope: LimitScope.SERVICE_CONSUMER })).toEqual(ofTier ? [] : ['limit.name'])
  })
})

test.each([
  ['a currency in lower case', { name: LimitName.COST_PER_MONTH, currency: 'eur' }, ['limit.currency']],
  ['a burst of nothing', { burst: 0n }, ['int64.gte_lte']],
  ['a burst beyond its ceiling', { burst: 100_000_001n }, ['int64.gte_lte']],
  ['a service of a service', { scope: LimitScope.SERVICE, serviceId: 's' }, ['limit.service_id']],
  ['a service of each consumer’s', { scope: LimitScope.SERVICE_CONSUMER, serviceId: 's' }, ['limit.service_id']],
  ['a service of a key', { scope: LimitScope.KEY, serviceId: 's' }, []],
  ['no scope', { scope: LimitScope.UNSPECIFIED }, ['enum.not_in']],
  ['no name', { name: LimitName.UNSPECIFIED }, ['enum.not_in']],
  ['no subject', { subjectId: '' }, ['string.min_len']],
] as const)('%s', (_, limit, rules) => {
  expect(broken(limit)).toEqual(rules)
})
