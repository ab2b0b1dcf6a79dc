import { describe, expect, test } from 'vitest'
import { limitsOfCall } from '../limits/call-limits.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
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

/** The refusal of the limit at this place, by a call that takes so much of each. */
function refuse(refusedBy: number, amounts: readonly number[]) {
  const costs = limits.map((limit, index) => ({ limit, amount: amounts[index] ?? 0 }))
  return refusal(costs, { outcome: 'refused', refusedBy, limits: costs.map(() => state), retryAfterMs: 850 })
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

test('a budget speaks of money, a concurrency of calls', () => {
  const budget = refuse(2, [1, 1, 20])
  expect(budget).toMatchObject({ reason: 'QUOTA_EXCEEDED', limits: [{ limit: 'cost_per_month', unit: 'nano-USD' }] })
  expect(budget.message).toContain('7 of 1000 nano-USD left')
  const concurrency = refuse(3, [1, 1, 1, 1])
  expect(concurrency).toMatchObject({ reason: 'RATE_LIMITED', limits: [{ unit: 'calls at once' }] })
  expect(concurrency.message).toContain('retry in 850 ms')
})

test('a call that needs more than the whole limit is promised no retry', () => {
  const error = refuse(1, [1, 200_000])
  expect(error.retryAfterMs).toBeUndefined()
  expect(error.metadata).not.toHaveProperty('retryAfterMs')
  expect(error.message).toContain('no wait helps')
})
