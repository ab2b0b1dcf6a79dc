import fc from 'fast-check'
import { expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import { limitsOfCall } from './call-limits.ts'
import { counterKeysOf, monthOf, parsePeriodKey, periodKey, periodKeysOf, unitsOf } from './limit-keys.ts'
import type { LimitRule } from './limit-rule.ts'
import type { UsageScope } from './limits.ts'

const scopes: fc.Arbitrary<UsageScope> = fc.record({
  kind: fc.constantFrom('organization', 'consumer', 'key', 'service'),
  id: fc.uuid(),
  serviceId: fc.option(fc.uuid(), { nil: undefined }),
})

test('a period key says what it counts', () => {
  fc.assert(
    fc.property(scopes, fc.constantFrom('', 'USD', 'EUR'), (scope, currency) => {
      const key = periodKey('cost_per_month', scope, '2026-11', currency)
      expect(parsePeriodKey(key)).toEqual({ name: 'cost_per_month', scope, month: '2026-11', currency })
    }),
  )
  expect(parsePeriodKey('requests_per_second|consumer:c1|service:s1')).toBeUndefined()
})

test('an event moves exactly the counters that count it', () => {
  const event = usageEvent({ startMs: Date.UTC(2026, 10, 30, 23, 59, 59, 999), currency: 'USD', costNanos: 9 })
  const consumer = { id: event.consumerId, organizationId: event.organizationId, tier: 'basic', overrides: {} } as const
  const names = ['tokens_per_month', 'cost_per_month'] as const
  const subjects = [
    ['organization', event.organizationId],
    ['consumer', event.consumerId],
    ['key', event.keyId],
    ['service', event.serviceId],
  ] as const
  const all = subjects.flatMap(([scope, subjectId]) =>
    names.flatMap((name) =>
      (scope === 'service' ? [undefined] : [undefined, event.serviceId]).map((serviceId): LimitRule => {
        const currency = name === 'cost_per_month' ? 'USD' : undefined
        return { scope, subjectId, serviceId, name, amount: 1, burst: undefined, currency }
      }),
    ),
  )
  const rules = Map.groupBy(all, ({ scope, subjectId }) => `${scope}:${subjectId}`)
  const call = { consumer, serviceId: event.serviceId, keyId: event.keyId, atMs: event.startMs }
  const periods = limitsOfCall(rules, call).filter((limit) => limit.kind === 'period')
  expect(new Set(periods.map(({ key }) => key))).toEqual(new Set(periodKeysOf(event)))
  for (const limit of periods) {
    expect(unitsOf(limit, event)).toBe(limit.unit === 'nanos' ? 9 : limit.unit === 'tokens' ? sum(event.tokens) : 0)
    expect(unitsOf(limit, { ...event, startMs: event.startMs + 1 })).toBeUndefined()
    expect(unitsOf(limit, { ...event, [fields[limit.scope.kind]]: 'another' })).toBeUndefined()
  }
})

test('the counters of an event are its own, whatever events of the same consumer, key and service were asked for before', () => {
  const first = usageEvent({ startMs: Date.UTC(2026, 10, 30), currency: 'USD' })
  const others = [
    { ...first, startMs: Date.UTC(2026, 11, 1) },
    { ...first, currency: 'EUR' },
    { ...first, currency: '' },
    { ...first, organizationId: 'another' },
    { ...first, keyId: '' },
  ]
  for (const event of others.flatMap((other) => [first, other, first])) {
    const { tokens, cost } = counterKeysOf({ ...event, month: monthOf(event.startMs) })
    expect(periodKeysOf(event)).toEqual([...tokens, ...cost])
  }
})

const fields = { organization: 'organizationId', consumer: 'consumerId', key: 'keyId', service: 'serviceId' } as const

function sum(tokens: Readonly<Record<string, number>>): number {
  return Object.values(tokens).reduce((total, part) => total + part, 0)
}
