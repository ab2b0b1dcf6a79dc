import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { FallbackCondition } from '../registry/records.ts'
import { attempt, consumer, type Dispatching, openTestGate, service, type TestGate } from './gate-support.ts'

let gate: TestGate

beforeEach(async () => {
  gate = await openTestGate()
})
afterEach(() => gate.close())

describe('a fallback', () => {
  const dear = { kind: 'per_request', requestNanos: 3_000_000 } as const
  const backup = serviceRecord({
    id: newId(),
    name: 'backup',
    endpoints: [endpointRecord({ id: newId() })],
    prices: [{ version: 'b1', currency: 'USD', effectiveFromMs: 0, model: dear }],
  })
  const down = new TollgateError('BACKEND_FAILED', 'down')
  const filtered = new TollgateError('BACKEND_REJECTED', 'no', { metadata: { backendError: 'content_filter' } })

  /** Of the named service every call fails. */
  function failing(name: string, error: TollgateError): Dispatching {
    return {
      async dispatch(of, task, call) {
        return of.name === name ? { attempts: [attempt(1, error)], error } : gate.dispatcher.dispatch(of, task, call)
      },
    }
  }

  function having(on: FallbackCondition[], consumers = [consumer]) {
    const primary = {
      ...service,
      fallbacks: [
        { serviceId: 'gone', on },
        { serviceId: backup.name, on },
      ],
    }
    return gate.snapshotOf({ services: [primary, backup], consumers })
  }

  test('takes over a failed call at its own price, and both have their record', async () => {
    const changes = { dispatcher: failing(service.name, down), snapshots: having(['error']) }
    const { event } = await gate.route(changes)
    expect(event).toMatchObject({ serviceId: backup.id, costNanos: 3_000_000, priceVersion: 'b1', status: 'succeeded' })
    expect(await gate.recorded()).toMatchObject([
      {
        requestId: event.requestId,
        serviceId: service.id,
        status: 'failed',
        errorReason: 'BACKEND_FAILED',
        costNanos: 0,
      },
      event,
    ])
    // Of the service that failed nothing was used.
    expect(await gate.used('tokens_per_month')).toEqual([0])
  })

  test.for([
    ['content_filter', filtered, true],
    ['error', filtered, false],
    ['content_filter', down, false],
    ['timeout', new TollgateError('BACKEND_TIMEOUT', 'slow'), true],
  ] as const)('on %s takes over nothing else', async ([condition, error, takesOver]) => {
    const call = gate.route({ dispatcher: failing(service.name, error), snapshots: having([condition]) })
    if (takesOver) expect((await call).event.serviceId).toBe(backup.id)
    else await expect(call).rejects.toMatchObject({ reason: error.reason })
  })

  test('that refuses the call is passed over: the caller is told the failure, and why no fallback helped', async () => {
    const confined = { ...consumer, grantedServices: new Set([service.id]) }
    const call = gate.route({ dispatcher: failing(service.name, down), snapshots: having(['error'], [confined]) })
    await expect(call).rejects.toMatchObject({
      reason: 'BACKEND_FAILED',
      metadata: { fallbacks: 'gone: SERVICE_NOT_FOUND, backup: POLICY_DENIED' },
    })
    expect(await gate.recorded()).toMatchObject([{ serviceId: service.id, status: 'failed' }])
  })

  test.for([
    ['azure_openai', 'native', true],
    ['anthropic', 'native', false],
    ['anthropic', 'openai', true],
  ] as const)('of protocol %s, for a %s payload: %s', async ([protocol, dialect, takesOver]) => {
    const other = { ...backup, endpoints: [endpointRecord({ id: newId(), protocol })] }
    const primary = { ...service, fallbacks: [{ serviceId: backup.name, on: ['error'] as const }] }
    const asked: string[] = []
    const everywhere: Dispatching = {
      async dispatch({ name }) {
        asked.push(name)
        return { attempts: [attempt(1, down)], error: down }
      },
    }
    const changes = { dispatcher: everywhere, snapshots: gate.snapshotOf({ services: [primary, other] }) }
    await expect(gate.route(changes, new AbortController().signal, { dialect })).rejects.toMatchObject(down)
    expect(asked).toEqual(takesOver ? [service.name, backup.name] : [service.name])
  })

  test('does not begin for a caller that left, or whose own call was refused', async () => {
    const gone = new TollgateError('CANCELLED', 'gone')
    const left = gate.route({ dispatcher: failing(service.name, gone), snapshots: having(['error']) })
    await expect(left).rejects.toMatchObject({ reason: 'CANCELLED' })
    const denied = { ...consumer, grantedServices: new Set([backup.id]) }
    await expect(gate.route({ snapshots: having(['error'], [denied]) })).rejects.toMatchObject({
      reason: 'POLICY_DENIED',
    })
    expect(gate.dispatched).toBe(0)
  })

  test('is not asked for a call that went on without its caller', async () => {
    const caller = new AbortController()
    const slow = new TollgateError('BACKEND_TIMEOUT', 'slow')
    const drained: Dispatching = {
      async dispatch() {
        caller.abort(new TollgateError('CANCELLED', 'gone'))
        return { attempts: [attempt(1, slow)], error: slow }
      },
    }
    const left = gate.route({ dispatcher: drained, snapshots: having(['timeout']) }, caller.signal)
    await expect(left).rejects.toMatchObject({ reason: 'BACKEND_TIMEOUT' })
    expect(await gate.recorded()).toMatchObject([{ serviceId: service.id, status: 'failed' }])
  })

  test('answers all repetitions of an idempotency key', async () => {
    const changes = { dispatcher: failing(service.name, down), snapshots: having(['error']) }
    const asked = { idempotencyKey: 'once' }
    const calls = Array.from({ length: 10 }, () => gate.route(changes, new AbortController().signal, asked))
    const answers = await Promise.all(calls)
    expect(new Set(answers.map(({ event }) => event.requestId)).size).toBe(1)
    expect(gate.dispatched).toBe(1)
    expect((await gate.recorded()).filter(({ status }) => status === 'succeeded')).toHaveLength(1)
  })
})
