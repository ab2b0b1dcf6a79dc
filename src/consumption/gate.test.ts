import { afterEach, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { through } from '../../test/support/through-limits.ts'
import { TollgateError } from '../errors.ts'
import type { Limits } from '../limits/limits.ts'
import type { GateRefusal } from './gate.ts'
import {
  answer,
  attempt,
  consumer,
  type Dispatching,
  openTestGate,
  organizationId,
  service,
  silent,
  type TestGate,
} from './gate-support.ts'

let gate: TestGate

beforeEach(async () => {
  gate = await openTestGate()
})
afterEach(() => gate.close())

test('a call whose caller left during admission reaches no backend and takes nothing', async () => {
  const caller = new AbortController()
  const admit: Limits['admit'] = async (admission) => {
    const result = await gate.limits.admit(admission)
    caller.abort(new TollgateError('CANCELLED', 'gone'))
    return result
  }
  const call = gate.route({ limits: { ...through(gate.limits), admit } }, caller.signal)
  await expect(call).rejects.toMatchObject({ reason: 'CANCELLED' })
  expect(gate.dispatched).toBe(0)
  expect(await gate.recorded()).toMatchObject([{ status: 'cancelled', attempt: 0, endpointId: '', costNanos: 0 }])
  expect(await gate.used('tokens_per_month')).toEqual([0])
})

test('a call that needed three attempts is charged once, and each attempt has its record', async () => {
  const down = new TollgateError('BACKEND_TIMEOUT', 'slow')
  const attempts = [attempt(1, down), attempt(2, new TollgateError('BACKEND_FAILED', 'down')), attempt(3)]
  const sent: string[] = []
  const third: Dispatching = {
    async dispatch(_service, task) {
      sent.push(...attempts.map(({ number }) => task.attemptId(number)))
      return { attempts, value: task.read(answer) }
    },
  }
  const { event } = await gate.route({ dispatcher: third })
  expect(event).toMatchObject({ attempt: 3, endpointId: 'endpoint-3', requests: 1, costNanos: 1_000_000 })
  const records = await gate.recorded()
  expect(records).toMatchObject([
    event,
    {
      attempt: 1,
      endpointId: 'endpoint-1',
      status: 'failed',
      errorReason: 'BACKEND_TIMEOUT',
      requests: 0,
      costNanos: 0,
    },
    {
      attempt: 2,
      endpointId: 'endpoint-2',
      status: 'failed',
      errorReason: 'BACKEND_FAILED',
      requests: 0,
      costNanos: 0,
    },
  ])
  // The ledger has what the backends were told, each once.
  expect(records.map(({ id }) => id).sort()).toEqual(sent.toSorted())
  expect(event.id).toBe(sent[0])
  expect(await gate.used('tokens_per_month')).toEqual([7])
})

test('a call that failed three times is one failed request, and costs nothing at the price in force', async () => {
  const down = new TollgateError('BACKEND_FAILED', 'down')
  const attempts = [attempt(1, down), attempt(2, down), attempt(3, down)]
  const never = { dispatch: async () => ({ attempts, error: down }) }
  await expect(gate.route({ dispatcher: never })).rejects.toMatchObject({ reason: 'BACKEND_FAILED' })
  const free = { status: 'failed', costNanos: 0, currency: 'USD', priceVersion: 'v1' }
  expect(await gate.recorded()).toMatchObject([
    { attempt: 3, requests: 1, ...free },
    { attempt: 1, requests: 0, ...free },
    { attempt: 2, requests: 0, ...free },
  ])
})

test('a consumer without a grant is refused, unless policy validation is switched off', async () => {
  const stranger = { ...consumer, grantedServices: new Set<string>() }
  const snapshots = gate.snapshotOf({ consumers: [stranger] })
  await expect(gate.route({ snapshots })).rejects.toMatchObject({ reason: 'POLICY_DENIED' })
  expect(gate.dispatched).toBe(0)
  expect(await gate.route({ snapshots, policy: undefined })).toMatchObject({ event: { status: 'succeeded' } })
})

test('a refusal says whose call it was', async () => {
  const refusals: GateRefusal[] = []
  const observer = { ...silent, refused: (refusal: GateRefusal) => refusals.push(refusal) }
  const broke = { ...consumer, overrides: { tokensPerMonth: 0 } }
  const snapshots = gate.snapshotOf({ consumers: [broke] })
  await expect(gate.route({ observer, snapshots })).rejects.toMatchObject({ reason: 'QUOTA_EXCEEDED' })
  expect(refusals).toEqual([
    {
      requestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      organizationId,
      consumerId: consumer.id,
      keyId: 'key',
      serviceId: service.id,
      tier: 'premium',
      error: expect.objectContaining({ reason: 'QUOTA_EXCEEDED' }),
    },
  ])
})

test('what an observer does to a recorded call is not the caller’s concern', async () => {
  const observer = {
    ...silent,
    recorded: () => {
      throw new Error('broken')
    },
  }
  const { event } = await gate.route({ observer })
  expect(await gate.recorded()).toEqual([event])
})

test('usage that could not be recorded while the caller waited is recorded later, exactly and once', async () => {
  let failures = 0
  const settle: Limits['settle'] = async (settlement) => {
    failures += 1
    if (failures <= 6) throw new TollgateError('LIMITS_UNAVAILABLE', 'away')
    return gate.limits.settle(settlement)
  }
  const call = gate.route({ limits: { ...through(gate.limits), settle } })
  await expect(call).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
  expect(await gate.recorded()).toEqual([])
  const [event] = await eventually(async () => {
    const events = await gate.recorded()
    return events.length > 0 && events
  })
  expect(event).toMatchObject({ status: 'succeeded', costNanos: 1_000_000, tokens: { input: 3, output: 4 } })
  expect(await gate.used('tokens_per_month')).toEqual([7])
})
