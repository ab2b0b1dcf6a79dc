import { expect, test } from 'vitest'
import { type LimitedCall, type LimitRules, limitsOfCall } from './call-limits.ts'
import { createKnownLimits } from './known-limits.ts'

const atMs = Date.UTC(2026, 10, 21)
const consumer = { id: 'c1', organizationId: 'o1', tier: 'basic', overrides: {} } as const
const call: LimitedCall = { consumer, serviceId: 's1', keyId: 'k1', atMs }
const rules: LimitRules = new Map()
const rule = {
  scope: 'key',
  subjectId: 'k1',
  serviceId: undefined,
  name: 'requests_per_minute',
  amount: 7,
  burst: undefined,
  currency: undefined,
} as const

test('the limits of equal calls are the same objects, and those that are made anew', () => {
  const known = createKnownLimits()
  const limits = known(rules, call)
  expect(limits).toEqual(limitsOfCall(rules, call))
  expect(known(rules, { ...call, atMs: atMs + 1 })).toBe(limits)
})

test.each<[string, LimitRules, Partial<LimitedCall>]>([
  ['the rules', new Map([['key:k1', [rule]]]), {}],
  ['the consumer', rules, { consumer: { ...consumer, tier: 'premium' } }],
  ['the tier of the key', rules, { keyTier: { tier: 'premium', replaces: true } }],
  ['the month', rules, { atMs: Date.UTC(2026, 11, 1) }],
  ['the key', rules, { keyId: 'k2' }],
  ['the service', rules, { serviceId: 's2' }],
])('they follow %s', (_what, nextRules, change) => {
  const known = createKnownLimits()
  const before = known(rules, call)
  const changed = { ...call, ...change }
  const after = known(nextRules, changed)
  expect(after).not.toBe(before)
  expect(after).toEqual(limitsOfCall(nextRules, changed))
  expect(known(rules, call)).toEqual(before)
})
