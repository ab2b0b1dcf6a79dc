import { describe, expect, test } from 'vitest'
import { limitsOfCall } from '../limits/call-limits.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import { noTokens } from '../metering/usage-event.ts'
import type { PriceRecord } from '../registry/records.ts'
import { refusal } from './refusal.ts'

const nowMs = Date.UTC(2026, 10, 21)
const consumer = { id: 'c', organizationId: 'o', tier: 'basic', overrides: {} } as const
const plain = { scope: 'consumer', subjectId: 'c', serviceId: undefined, burst: undefined } as const
const rules: LimitRule[] = [
  { ...plain, name: 'cost_per_month', amount: 1_000, currency: 'USD' },
  { ...plain, name: 'concurrent_requests', amount: 2, currency: undefined },
]
const call = { consumer, serviceId: 's', keyId: '', atMs: nowMs }
const limits = limitsOfCall(new Map([['consumer:c', rules]]), call)
const state = { remaining: 7.5, resetAtMs: nowMs + 1_000 }

interface Asked {
  readonly reserved?: { readonly input: number; readonly output: number }
  readonly choices?: number
  readonly price?: PriceRecord
  /** What is left of each limit. */
  readonly remaining?: readonly number[]
}

/** The refusal of the limit at this place, by a call that takes so much of each. */
function refuse(refusedBy: number, amounts: readonly number[], asked: Asked = {}, of = limits) {
  const costs = of.map((limit, index) => ({ limit, amount: amounts[index] ?? 0 }))
  const states = of.map((_, index) => ({ ...state, remaining: asked.remaining?.[index] ?? state.remaining }))
  const plan = {
    costs,
    price: asked.price,
    asked: { choices: asked.choices ?? 1 },
    reserved: { ...noTokens, ...asked.reserved },
  }
  return refusal(plan, { outcome: 'refused', refusedBy, limits: states, retryAfterMs: 850 })
}

/** Input at 1, output at 5 nano-units a token. */
const price: PriceRecord = {
  version: 'v1',
  currency: 'USD',
  effectiveFromMs: 0,
  model: {
    kind: 'per_token',
    inputNanosPerMillion: 1_000_000,
    cachedInputNanosPerMillion: 1_000_000,
    cacheWriteInputNanosPerMillion: 1_000_000,
    outputNanosPerMillion: 5_000_000,
    reasoningOutputNanosPerMillion: 5_000_000,
    tiers: [],
  },
}

describe('a refusal shows the same figures everywhere', () => {
  test('of a bucket', () => {
    const error = refuse(0, [8, 100])
    expect(error).toMatchObject({
      reason: 'RATE_LIMITED',
      retryAfterMs: 850,
      metadata: { limit: 'requests_per_second', remaining: '7', capacity: '20', requested: '8', retryAfterMs: '850' },
      limits: [{ limit: 'requests_per_second', remaining: 7, capacity: 20, unit: 'requests' }],
    })
    expect(error.message).toContain('has 7 of 20 requests left and the call needs 8; retry in 850 ms')
  })

  test('of a period', () => {
    const error = refuse(1, [1, 100])
    expect(error).toMatchObject({ reason: 'QUOTA_EXCEEDED', retryAfterMs: 850 })
    expect(error.message).toContain('it is whole again at 2026-12-01T00:00:00.000Z')
  })
})

test('a refusal says whence the limit comes, and which service it is of', () => {
  const ofTier = refuse(1, [1, 100])
  expect(ofTier.metadata).toMatchObject({ subject: 'consumer:c', serviceId: 's', origin: 'tier' })
  expect(ofTier.message).toContain('tokens_per_month of consumer:c for service s (origin: tier) has')
  const ofRule = refuse(2, [1, 1, 20])
  expect(ofRule.metadata).toMatchObject({ subject: 'consumer:c', origin: 'consumer' })
  expect(ofRule.metadata).not.toHaveProperty('serviceId')
  expect(ofRule.message).toContain('cost_per_month of consumer:c (origin: consumer) has')
})

test('a limit of a service itself names the service', () => {
  const own = { ...plain, scope: 'service', subjectId: 's', name: 'concurrent_requests', amount: 1 } as const
  const ofService = limitsOfCall(new Map([['service:s', [{ ...own, currency: undefined }]]]), call)
  const error = refuse(2, [1, 1, 1], {}, ofService)
  expect(error.metadata).toMatchObject({ subject: 'service:s', serviceId: 's', origin: 'service' })
})

test('a budget speaks of money, a concurrency of calls', () => {
  const budget = refuse(2, [1, 1, 20])
  expect(budget).toMatchObject({ reason: 'QUOTA_EXCEEDED', limits: [{ limit: 'cost_per_month', unit: 'nano-USD' }] })
  expect(budget.message).toContain('7 of 1000 nano-USD left')
  const concurrency = refuse(3, [1, 1, 1, 1])
  expect(concurrency).toMatchObject({ reason: 'RATE_LIMITED', limits: [{ unit: 'calls at once' }] })
  expect(concurrency.message).toContain('retry in 850 ms')
})

test('a limit of 0 promises nothing, and says who can change it', () => {
  const closed = limitsOfCall(new Map(), { ...call, consumer: { ...consumer, overrides: { tokensPerMonth: 0 } } })
  const error = refuse(1, [1, 30], { reserved: { input: 10, output: 20 }, remaining: [20, 0] }, closed)
  expect(error.retryAfterMs).toBeUndefined()
  expect(error.metadata).toMatchObject({ capacity: '0', origin: 'overrides' })
  expect(error.metadata).not.toHaveProperty('fittingMaxTokens')
  expect(error.message).toBe(
    'tokens_per_month of consumer:c for service s (origin: overrides) is 0, which refuses every call: an administrator can change it (LimitService.SetLimit).',
  )
})

describe('a call that needs more than the whole limit', () => {
  test('is promised no retry', () => {
    const error = refuse(1, [1, 200_000], { reserved: { input: 150_000, output: 50_000 } })
    expect(error.retryAfterMs).toBeUndefined()
    expect(error.metadata).not.toHaveProperty('retryAfterMs')
    expect(error.message).toContain('no wait and no smaller max_tokens helps: an administrator can raise the limit')
  })

  test('is told the max_tokens that fit, for each of its choices', () => {
    const asked = { reserved: { input: 40_000, output: 160_000 }, choices: 4, remaining: [20, 100_000, 1e6, 2] }
    const error = refuse(1, [1, 200_000, 0, 1], asked)
    expect(error.metadata).toMatchObject({ fittingMaxTokens: '15000' })
    expect(error.message).toContain('no wait helps, but max_tokens of at most 15000 fit')
  })

  test('is told what would fit the whole limit when nothing fits now', () => {
    const asked = { reserved: { input: 40_000, output: 160_000 }, remaining: [20, 500, 1e6, 2] }
    expect(refuse(1, [1, 200_000, 0, 1], asked).metadata).toMatchObject({ fittingMaxTokens: '60000' })
  })
})

describe('a budget with something left', () => {
  const asked = { price, reserved: { input: 100, output: 1_000 } }

  test('suggests the largest max_tokens whose dearest price fits', () => {
    const error = refuse(2, [1, 1_100, 5_100], { ...asked, remaining: [20, 100_000, 904, 2] })
    // 904 - 100 input leave 804, which are 160 tokens at 5.
    expect(error.metadata).toMatchObject({ fittingMaxTokens: '160' })
    expect(error.message).toContain('max_tokens of at most 160 fit')
  })

  test('suggests what fits every other limit too', () => {
    const error = refuse(2, [1, 1_100, 5_100], { ...asked, remaining: [20, 130, 904, 2] })
    expect(error.metadata).toMatchObject({ fittingMaxTokens: '30' })
  })

  test.each([
    ['for whose prompt alone it does not last', { ...asked, remaining: [20, 100_000, 99, 2] }],
    ['that a fixed price passes', { ...asked, price: { ...price, model: { kind: 'per_request', requestNanos: 905 } } }],
  ] as const)('suggests nothing to a call %s', (_, wrong) => {
    const error = refuse(2, [1, 1_100, 905], wrong)
    expect(error.metadata).not.toHaveProperty('fittingMaxTokens')
    expect(error.message).not.toContain('max_tokens of')
  })
})
