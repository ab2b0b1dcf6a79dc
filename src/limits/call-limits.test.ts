import { describe, expect, it } from 'vitest'
import { type LimitedCall, limitsOfCall, type Tier } from './call-limits.ts'
import type { LimitRule } from './limit-rule.ts'

const november = Date.UTC(2026, 10, 21, 12)
const noRules = new Map<string, LimitRule[]>()

function callOf(tier: Tier, overrides: LimitedCall['consumer']['overrides'] = {}, atMs = november): LimitedCall {
  return { consumer: { id: 'c1', organizationId: 'o1', tier, overrides }, serviceId: 's1', keyId: 'k1', atMs }
}

function rule(changes: Partial<LimitRule>): LimitRule {
  const plain = { serviceId: undefined, burst: undefined, currency: undefined }
  return { scope: 'consumer', subjectId: 'c1', name: 'requests_per_second', amount: 7, ...plain, ...changes }
}

function rules(...all: LimitRule[]): Map<string, LimitRule[]> {
  return Map.groupBy(all, ({ scope, subjectId }) => `${scope}:${subjectId}`)
}

describe('limits of a tier', () => {
  const rows: [Tier, number, number, number][] = [
    ['basic', 10, 20, 100_000],
    ['premium', 100, 200, 10_000_000],
    ['enterprise', 1_000, 2_000, 1_000_000_000],
  ]
  it.each(rows)('%s: %i requests a second, burst %i, %i tokens a month', (tier, refill, capacity, tokens) => {
    const [requests, month, ...others] = limitsOfCall(noRules, callOf(tier))
    expect(requests).toMatchObject({ kind: 'bucket', name: 'requests_per_second', refill, capacity, windowMs: 1_000 })
    expect(month).toMatchObject({ kind: 'period', name: 'tokens_per_month', capacity: tokens, subject: 'consumer:c1' })
    expect(others).toEqual([])
  })

  it('are replaced value by value: by the rule for the service, the overrides, the rule of the service', () => {
    const first = (all: LimitRule[], overrides: LimitedCall['consumer']['overrides'] = {}) =>
      limitsOfCall(rules(...all), callOf('basic', overrides))
    const ofService = rule({ scope: 'service_consumer', subjectId: 's1', amount: 5 })
    const own = rule({ serviceId: 's1', amount: 2, burst: 3 })
    const overrides = { requestsPerSecond: 4, tokensPerMonth: 0 }
    expect(first([ofService])).toMatchObject([
      { refill: 5, capacity: 10, origin: 'service_consumer' },
      { capacity: 100_000, origin: 'tier' },
    ])
    expect(first([ofService], overrides)).toMatchObject([
      { refill: 4, capacity: 8, origin: 'overrides' },
      { capacity: 0, origin: 'overrides' },
    ])
    expect(first([ofService, own], overrides)).toMatchObject([
      { refill: 2, capacity: 3, origin: 'consumer' },
      { capacity: 0, origin: 'overrides' },
    ])
    expect(first([ofService], { requestBurst: 1 })).toMatchObject([
      { refill: 5, capacity: 1, origin: 'service_consumer' },
      { origin: 'tier' },
    ])
    expect(first([own])).toHaveLength(2)
  })

  it('never leave the ranges of a limit', () => {
    const overrides = { requestsPerSecond: 0.5, requestBurst: 1e12, tokensPerMonth: -1 }
    expect(limitsOfCall(noRules, callOf('basic', overrides))).toMatchObject([
      { refill: 1, capacity: 1e8 },
      { capacity: 0 },
    ])
  })
})

describe('limits of a key by a tier', () => {
  it('stand beside those of the consumer, with counters of their own', () => {
    const all = limitsOfCall(noRules, { ...callOf('premium'), keyTier: { tier: 'basic', replaces: false } })
    expect(all).toMatchObject([
      { subject: 'consumer:c1', refill: 100, origin: 'tier' },
      { subject: 'consumer:c1', capacity: 10_000_000 },
      { subject: 'key:k1', serviceId: 's1', refill: 10, capacity: 20, origin: 'key_tier' },
      { subject: 'key:k1', serviceId: 's1', capacity: 100_000, origin: 'key_tier' },
    ])
    expect(new Set(all.map(({ key }) => key)).size).toBe(4)
  })

  it('stand in their place when whoever administers limits gave the tier; rules stay', () => {
    const all = limitsOfCall(rules(rule({ name: 'requests_per_minute' })), {
      ...callOf('basic', { tokensPerMonth: 1 }),
      keyTier: { tier: 'enterprise', replaces: true },
    })
    expect(all).toMatchObject([
      { subject: 'key:k1', refill: 1_000 },
      { subject: 'key:k1', capacity: 1_000_000_000 },
      { subject: 'consumer:c1', name: 'requests_per_minute' },
    ])
  })

  it('give way to a rule for the key and the service, with which they share a counter', () => {
    const own = rule({ scope: 'key', subjectId: 'k1', serviceId: 's1', amount: 3 })
    const all = limitsOfCall(rules(own), { ...callOf('basic'), keyTier: { tier: 'premium', replaces: true } })
    expect(all).toMatchObject([
      { name: 'tokens_per_month', origin: 'key_tier' },
      { refill: 3, origin: 'key' },
    ])
  })
})

describe('limits of rules', () => {
  it('stand beside those of the tier, for every scope of the call and for no other', () => {
    const all = limitsOfCall(
      rules(
        rule({ scope: 'key', subjectId: 'k1', name: 'concurrent_requests' }),
        rule({ scope: 'key', subjectId: 'k2', name: 'concurrent_requests' }),
        rule({ name: 'requests_per_minute', serviceId: 's1' }),
        rule({ name: 'requests_per_minute', serviceId: 's2' }),
        rule({ name: 'tokens_per_month' }),
        rule({ scope: 'organization', subjectId: 'o1', name: 'cost_per_month', currency: 'USD' }),
        rule({ scope: 'service', subjectId: 's1', name: 'tokens_per_minute' }),
      ),
      callOf('basic'),
    )
    expect(all.slice(2)).toMatchObject([
      { kind: 'concurrency', unit: 'calls', subject: 'key:k1', capacity: 7 },
      { kind: 'bucket', unit: 'requests', subject: 'consumer:c1', serviceId: 's1', windowMs: 60_000, capacity: 7 },
      { kind: 'period', unit: 'tokens', subject: 'consumer:c1', serviceId: '', scope: { kind: 'consumer', id: 'c1' } },
      { kind: 'period', unit: 'nanos', subject: 'organization:o1', currency: 'USD' },
      { kind: 'bucket', unit: 'tokens', subject: 'service:s1', serviceId: '', windowMs: 60_000 },
    ])
    expect(all.map(({ origin }) => origin)).toEqual([
      ...['tier', 'tier', 'key', 'consumer', 'consumer', 'organization', 'service'],
    ])
    expect(new Set(all.map(({ key }) => key)).size).toBe(all.length)
  })
})

describe('the month', () => {
  it('is UTC, names the key, and ends where the next one begins', () => {
    const last = Date.UTC(2026, 11, 31, 23, 59, 59, 999)
    const [, december] = limitsOfCall(noRules, callOf('basic', {}, last))
    expect(december).toMatchObject({ key: expect.stringContaining('|2026-12'), endsAtMs: Date.UTC(2027, 0, 1) })
    const [, january] = limitsOfCall(noRules, callOf('basic', {}, last + 1))
    expect(january?.key).toContain('|2027-01')
  })
})
