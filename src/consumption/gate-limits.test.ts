import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { through } from '../../test/support/through-limits.ts'
import { limitsOfCall } from '../limits/call-limits.ts'
import type { Limits, Settled } from '../limits/limits.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import {
  consumer,
  type Dispatching,
  openTestGate,
  organizationId,
  rule,
  service,
  silent,
  type TestGate,
} from './gate-support.ts'

let gate: TestGate

beforeEach(async () => {
  gate = await openTestGate()
})
afterEach(() => gate.close())

describe('limits', () => {
  const scopes = [
    ['key', 'key'],
    ['consumer', consumer.id],
    ['organization', organizationId],
    ['service', service.id],
  ] as const
  const names = [
    ['requests_per_minute', 1, 'RATE_LIMITED'],
    ['tokens_per_minute', 60, 'RATE_LIMITED'],
    ['concurrent_requests', 1, 'RATE_LIMITED'],
    ['tokens_per_month', 60, 'QUOTA_EXCEEDED'],
    ['cost_per_month', 1_500_000, 'QUOTA_EXCEEDED'],
  ] as const

  const cases = scopes.flatMap(([scope, id]) =>
    names.map(([name, amount, reason]) => ({ scope, id, name, amount, reason })),
  )
  test.each(cases)(
    '$name of the $scope refuses the second call, which takes nothing from any scope',
    async (refusing) => {
      const ample = scopes.flatMap(([scope, id]) => names.map(([name]) => rule(scope, id, name, 1_000_000_000)))
      const others = ample.filter(({ scope, name }) => scope !== refusing.scope || name !== refusing.name)
      gate.rules = [...others, rule(refusing.scope, refusing.id, refusing.name, refusing.amount)]
      const first = Promise.withResolvers<void>()
      const reached = Promise.withResolvers<void>()
      const slow: Dispatching = {
        async dispatch(of, task, call) {
          reached.resolve()
          await first.promise
          return gate.dispatcher.dispatch(of, task, call)
        },
      }
      const running = gate.route({ dispatcher: slow })
      await reached.promise
      const counters = ['tokens_per_month', 'cost_per_month', 'concurrent_requests']
      const before = await Promise.all(counters.map((name) => gate.used(name)))
      const refused = await gate.route({}).catch((error: unknown) => error)
      expect(refused).toMatchObject({
        reason: refusing.reason,
        limits: [{ limit: refusing.name, subject: `${refusing.scope}:${refusing.id}` }],
      })
      expect(await Promise.all(counters.map((name) => gate.used(name)))).toEqual(before)
      first.resolve()
      await running
      expect(gate.dispatched).toBe(1)
      expect(await gate.used('cost_per_month')).toEqual(scopes.map(() => 1_000_000))
      expect(await gate.used('tokens_per_month')).toEqual([7, ...scopes.map(() => 7)])
      expect(await gate.used('concurrent_requests')).toEqual(scopes.map(() => 0))
    },
  )

  test('a budget in a currency that the service has no price in refuses the call', async () => {
    gate.rules = [{ ...rule('organization', organizationId, 'cost_per_month', 1_000_000_000), currency: 'EUR' }]
    await expect(gate.route({})).rejects.toMatchObject({ reason: 'PRICE_MISSING', metadata: { currency: 'EUR' } })
    const free = gate.snapshotOf({ services: [{ ...service, prices: [] }] })
    await expect(gate.route({ snapshots: free })).rejects.toMatchObject({ reason: 'PRICE_MISSING' })
    expect(gate.dispatched).toBe(0)
    gate.rules = []
    expect(await gate.route({ snapshots: gate.snapshotOf({ services: [{ ...service, prices: [] }] }) })).toMatchObject({
      event: { status: 'succeeded', priceVersion: '', costNanos: 0 },
    })
  })

  test('a budget that is made during a call counts that call', async () => {
    const current = { value: gate.snapshotOf().current() }
    const slow: Dispatching = {
      async dispatch(of, task, call) {
        gate.rules = [rule('consumer', consumer.id, 'cost_per_month', 5_000_000)]
        current.value = gate.snapshotOf().current()
        // Somebody looks at the new counter while the call runs, so that it is known.
        expect(await gate.used('cost_per_month')).toEqual([0])
        return gate.dispatcher.dispatch(of, task, call)
      },
    }
    await gate.route({ dispatcher: slow, snapshots: { current: () => current.value } })
    expect(await gate.used('cost_per_month')).toEqual([1_000_000])
  })

  test('a call that is abandoned is recorded at what its budget reserved', async () => {
    gate.rules = [rule('consumer', consumer.id, 'cost_per_month', 1_000_000_000)]
    const rates = { inputNanosPerMillion: 1e9, outputNanosPerMillion: 2e9, cachedInputNanosPerMillion: 1e8 }
    const dear = { ...rates, cacheWriteInputNanosPerMillion: 5e9, reasoningOutputNanosPerMillion: 9e9 }
    const price = { version: 'v1', currency: 'USD', effectiveFromMs: 0 }
    const model = { kind: 'per_token', ...dear, tiers: [] } as const
    const snapshots = gate.snapshotOf({ services: [{ ...service, prices: [{ ...price, model }] }] })
    const admissions: Parameters<Limits['admit']>[0][] = []
    const admit: Limits['admit'] = (admission) => {
      admissions.push(admission)
      return gate.limits.admit(admission)
    }
    await gate.route({ snapshots, limits: { ...through(gate.limits), admit } })
    const [admission] = admissions
    const budget = admission?.costs.find(({ limit }) => limit.unit === 'nanos')
    expect(budget?.amount).toBeGreaterThan(0)
    expect(admission?.ifAbandoned.costNanos).toBe(budget?.amount)
  })

  test('passing 80 and 100 percent of a budget is told once each', async () => {
    gate.rules = [rule('consumer', consumer.id, 'cost_per_month', 5_000_000)]
    const told: Settled['crossed'][number][] = []
    const observer = {
      ...silent,
      thresholdPassed: (_: UsageEvent, crossing: Settled['crossed'][number]) => told.push(crossing),
    }
    for (let call = 0; call < 5; call += 1) await gate.route({ observer })
    expect(told).toMatchObject([
      { threshold: 80, used: 4_000_000, limit: { name: 'cost_per_month' } },
      { threshold: 100, used: 5_000_000 },
    ])
  })

  test('a call that lasts into the next month is booked in the month that it was admitted in', async () => {
    const last = Date.UTC(2026, 10, 30, 23, 59, 59, 900)
    let nowMs = last
    const slow: Dispatching = {
      dispatch: (of, task, call) => {
        nowMs = last + 60_000
        return gate.dispatcher.dispatch(of, task, call)
      },
    }
    const { event } = await gate.route({ dispatcher: slow, now: () => nowMs })
    expect(event).toMatchObject({ startMs: last, durationMs: 60_000 })
    const states = await Promise.all(
      [last, nowMs].map((atMs) => {
        const call = { consumer, serviceId: service.id, keyId: 'key', atMs }
        return gate.limits.read(limitsOfCall(new Map(), call).filter(({ name }) => name === 'tokens_per_month'))
      }),
    )
    expect(states.map(([state]) => 10_000_000 - (state?.remaining ?? 0))).toEqual([7, 0])
  })
})
