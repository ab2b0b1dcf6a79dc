import { describe, expect, it } from 'vitest'
import type { Limit } from './limits.ts'
import { type LimitedConsumer, limitsFor, quotaScopeOf, type Tier } from './tiers.ts'

const november = Date.UTC(2026, 10, 21, 12)

function consumer(tier: Tier, overrides: LimitedConsumer['overrides'] = {}): LimitedConsumer {
  return { id: 'c1', organizationId: 'o1', tier, overrides }
}

describe('limits of a tier', () => {
  const rows: [Tier, number, number, number][] = [
    ['basic', 10, 20, 100_000],
    ['premium', 100, 200, 10_000_000],
    ['enterprise', 1_000, 2_000, 1_000_000_000],
  ]
  it.each(rows)('%s: %i requests a second, burst %i, %i tokens a month', (tier, rate, burst, tokens) => {
    const [requests, month]: readonly Limit[] = limitsFor(consumer(tier), 's1', november)
    expect(requests).toMatchObject({
      kind: 'bucket',
      name: 'requests_per_second',
      refillPerSecond: rate,
      capacity: burst,
    })
    expect(month).toMatchObject({ kind: 'period', name: 'tokens_per_month', capacity: tokens, subject: 'consumer:c1' })
  })

  it('is replaced value by value by overrides', () => {
    const [requests, month] = limitsFor(consumer('basic', { requestsPerSecond: 3, tokensPerMonth: 0 }), 's1', november)
    expect(requests).toMatchObject({ refillPerSecond: 3, capacity: 6 })
    expect(month.capacity).toBe(0)
    const [burst] = limitsFor(consumer('basic', { requestBurst: 1 }), 's1', november)
    expect(burst).toMatchObject({ refillPerSecond: 10, capacity: 1 })
  })

  it('never leaves the ranges of a limit', () => {
    const [requests, month] = limitsFor(
      consumer('basic', { requestsPerSecond: 0.5, requestBurst: 1e12, tokensPerMonth: -1 }),
      's1',
      november,
    )
    expect(requests).toMatchObject({ refillPerSecond: 1, capacity: 1e8 })
    expect(month.capacity).toBe(0)
  })
})

describe('the month', () => {
  it('is UTC, names the key, and ends where the next one begins', () => {
    const last = Date.UTC(2026, 11, 31, 23, 59, 59, 999)
    const [, december] = limitsFor(consumer('basic'), 's1', last)
    expect(december.key).toContain(':2026-12')
    expect(december.endsAtMs).toBe(Date.UTC(2027, 0, 1))
    const [, january] = limitsFor(consumer('basic'), 's1', last + 1)
    expect(january.key).toContain(':2027-01')
  })

  it('has keys of its own for each service', () => {
    const keys = ['s1', 's2'].flatMap((service) => limitsFor(consumer('basic'), service, november).map((l) => l.key))
    expect(new Set(keys).size).toBe(4)
  })
})

describe('scope of a quota', () => {
  it('is read back from the limit that counts it', () => {
    const [, tokens] = limitsFor(consumer('basic'), 's1', november)
    expect(quotaScopeOf(tokens)).toEqual({
      consumerId: 'c1',
      serviceId: 's1',
      monthStartMs: Date.UTC(2026, 10, 1),
      monthEndMs: Date.UTC(2026, 11, 1),
    })
  })

  it('is refused for any other key', () => {
    expect(() => quotaScopeOf({ key: 'requests:consumer:c1:service:s1', endsAtMs: 0 })).toThrow('no monthly quota')
  })
})
