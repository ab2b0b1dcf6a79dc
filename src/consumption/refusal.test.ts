import { describe, expect, test } from 'vitest'
import { limitsFor } from '../limits/tiers.ts'
import { refusal } from './refusal.ts'

const nowMs = Date.UTC(2026, 10, 21)
const [requests, tokens] = limitsFor({ id: 'c', organizationId: 'o', tier: 'basic', overrides: {} }, 's', nowMs)
const state = { remaining: 7.5, resetAtMs: nowMs + 1_000 }

function refuse(refusedBy: number, amounts: [number, number]) {
  const costs = [
    { limit: requests, amount: amounts[0] },
    { limit: tokens, amount: amounts[1] },
  ]
  return refusal(costs, { admitted: false, refusedBy, limits: [state, state], retryAfterMs: 850 })
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
    expect(error.message).toContain('the quota is whole again at 2026-12-01T00:00:00.000Z')
  })
})

test('a call that needs more than the whole limit is promised no retry', () => {
  const error = refuse(1, [1, 200_000])
  expect(error.retryAfterMs).toBeUndefined()
  expect(error.metadata).not.toHaveProperty('retryAfterMs')
  expect(error.message).toContain('no wait helps')
})
