import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { chat } from '../../test/support/payloads.ts'
import { through } from '../../test/support/through-limits.ts'
import { TollgateError } from '../errors.ts'
import type { Admission, Limits } from '../limits/limits.ts'
import { noTokens } from '../metering/usage-event.ts'
import { attempt, consumer, openTestGate, rule, service, type TestGate } from './gate-support.ts'
import { createResponseCache } from './response-cache.ts'

let gate: TestGate

beforeEach(async () => {
  gate = await openTestGate()
})
afterEach(() => gate.close())

describe('the response cache', () => {
  const cached = { ...service, responseCache: { ttlMs: 60_000, sharing: 'organization' } } as const
  const anySignal = () => new AbortController().signal

  test('answers the same request again: a request that uses and costs nothing, with a record of its own', async () => {
    gate.rules = [rule('consumer', consumer.id, 'cost_per_month', 1_500_000)]
    const changes = {
      snapshots: gate.snapshotOf({ services: [cached] }),
      cache: createResponseCache(65_536, Date.now),
    }
    const first = await gate.route(changes)
    // Another call at its price would not fit the budget.
    const spaced = Buffer.from(Buffer.from(chat('x')).toString().replaceAll(',', ' ,\n'))
    const second = await gate.route(changes, anySignal(), { payload: spaced })
    expect(gate.dispatched).toBe(1)
    expect(second.body).toEqual(new Uint8Array(first.body))
    expect(await gate.recorded()).toMatchObject([
      { usageSource: 'provider', costNanos: 1_000_000 },
      { status: 'succeeded', usageSource: 'cache', tokens: noTokens, costNanos: 0, currency: 'USD', attempt: 0 },
    ])
    expect(await gate.used('tokens_per_month')).toEqual([7])
    expect(await gate.used('cost_per_month')).toEqual([1_000_000])
  })

  test('lets a hit that is abandoned cost nothing', async () => {
    const admitted: Admission[] = []
    const admit: Limits['admit'] = (admission) => {
      admitted.push(admission)
      return gate.limits.admit(admission)
    }
    const changes = {
      snapshots: gate.snapshotOf({ services: [cached] }),
      cache: createResponseCache(65_536, Date.now),
      limits: { ...through(gate.limits), admit },
    }
    await gate.route(changes)
    await gate.route(changes)
    const nothing = { status: 'abandoned', usageSource: 'cache', tokens: noTokens, costNanos: 0, currency: 'USD' }
    expect(admitted.map(({ ifAbandoned }) => ifAbandoned)).toMatchObject([{ costNanos: 1_000_000 }, nothing])
  })

  test('counts a hit as a request of its consumer', async () => {
    gate.rules = [rule('consumer', consumer.id, 'requests_per_minute', 2)]
    const changes = {
      snapshots: gate.snapshotOf({ services: [cached] }),
      cache: createResponseCache(65_536, Date.now),
    }
    await gate.route(changes)
    await gate.route(changes)
    await expect(gate.route(changes)).rejects.toMatchObject({ reason: 'RATE_LIMITED' })
  })

  test.for([
    ['No-Store', 0, 2],
    ['max-age=0, NO-CACHE', 1, 2],
    ['max-age=0', 1, 1],
  ] as const)('does what the caller says: cache-control %s', async ([control, answers, calls]) => {
    const cache = createResponseCache(65_536, Date.now)
    const changes = { snapshots: gate.snapshotOf({ services: [cached] }), cache }
    for (let i = 0; i < 2; i++) await gate.route(changes, anySignal(), {}, { 'cache-control': control })
    expect([cache.size().answers, gate.dispatched]).toEqual([answers, calls])
  })

  test('keeps nothing of a failed call, nothing for others, and nothing unasked', async () => {
    const cache = createResponseCache(65_536, Date.now)
    const down = new TollgateError('BACKEND_FAILED', 'down')
    const failing = { dispatch: async () => ({ attempts: [attempt(1, down)], error: down }) }
    const changes = { snapshots: gate.snapshotOf({ services: [cached] }), cache }
    await expect(gate.route({ ...changes, dispatcher: failing })).rejects.toMatchObject({ reason: 'BACKEND_FAILED' })
    expect(cache.size().answers).toBe(0)
    await gate.route({ cache })
    expect(cache.size().answers).toBe(0)
  })
})
