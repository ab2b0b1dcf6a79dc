import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { chat } from '../../test/support/payloads.ts'
import { through } from '../../test/support/through-limits.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Limits } from '../limits/limits.ts'
import type { Attempt } from '../routing/dispatcher.ts'
import {
  answer,
  attempt,
  consumer,
  type Dispatching,
  openTestGate,
  plain,
  service,
  type TestGate,
} from './gate-support.ts'
import { claimOf } from './idempotency.ts'

let gate: TestGate

beforeEach(async () => {
  gate = await openTestGate()
})
afterEach(() => gate.close())

describe('an idempotency key', () => {
  const asked = { idempotencyKey: 'order-1' }
  const anySignal = () => new AbortController().signal

  test('makes one call of many at once, and all get its answer', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => gate.route({}, anySignal(), asked)))
    expect(gate.dispatched).toBe(1)
    expect(new Set(answers.map(({ event }) => event.requestId)).size).toBe(1)
    expect(answers.filter(({ isReplayed }) => !isReplayed)).toHaveLength(1)
    for (const { body, charge } of answers) {
      expect(Buffer.from(body)).toEqual(answer)
      expect(charge).toMatchObject({ nanos: 1_000_000, components: [{ kind: 'request' }] })
    }
    expect(await gate.recorded()).toHaveLength(1)
    expect(await gate.used('tokens_per_month')).toEqual([7])
  })

  test('is refused with another payload', async () => {
    await gate.route({}, anySignal(), asked)
    const other = gate.route({}, anySignal(), { ...asked, payload: chat('y') })
    await expect(other).rejects.toMatchObject({
      reason: 'IDEMPOTENCY_KEY_REUSED',
      fields: [{ field: 'idempotency_key' }],
    })
    expect(gate.dispatched).toBe(1)
  })

  test('of a call that failed is free again', async () => {
    const down = new TollgateError('BACKEND_FAILED', 'down')
    const failing = { dispatch: async () => ({ attempts: [attempt(1, down)], error: down }) }
    await expect(gate.route({ dispatcher: failing }, anySignal(), asked)).rejects.toMatchObject({
      reason: 'BACKEND_FAILED',
    })
    expect(await gate.route({}, anySignal(), asked)).toMatchObject({ isReplayed: false })
    expect(await gate.recorded()).toMatchObject([{ status: 'failed' }, { status: 'succeeded' }])
  })

  test('of an answer too large to keep makes no second call either', async () => {
    const large = Buffer.concat([answer.subarray(0, -1), Buffer.from(`,"x":"${'x'.repeat(1_048_576)}"}`)])
    const lavish: Dispatching = {
      dispatch: async (_, task) => ({ attempts: [attempt(1)], value: task.read(large) }),
    }
    expect((await gate.route({ dispatcher: lavish }, anySignal(), asked)).body).toHaveLength(large.length)
    await expect(gate.route({}, anySignal(), asked)).rejects.toMatchObject({ reason: 'IDEMPOTENT_ANSWER_NOT_KEPT' })
    expect(gate.dispatched).toBe(0)
  })

  test('lets a call that waited be one of the month in which it is admitted', async () => {
    const last = Date.UTC(2026, 10, 30, 23, 59, 59, 900)
    let nowMs = last
    let tries = 0
    const admit: Limits['admit'] = async (admission) => {
      tries += 1
      if (tries > 1) return gate.limits.admit(admission)
      nowMs = last + 60_000
      return { outcome: 'running' }
    }
    const changes = { limits: { ...through(gate.limits), admit }, now: () => nowMs }
    const { event } = await gate.route(changes, anySignal(), asked)
    expect(event.startMs).toBe(last + 60_000)
  })

  test('lets whoever waits go when the caller leaves', async () => {
    const caller = new AbortController()
    const never: Dispatching = { dispatch: (_service, _task, call) => aborted(call.signal) }
    const holder = new AbortController()
    const holding = gate.route({ dispatcher: never }, holder.signal, asked)
    await eventually(async () => (await gate.limits.admit(probe())).outcome === 'running')
    const waiting = gate.route({}, caller.signal, asked)
    caller.abort(new TollgateError('CANCELLED', 'gone'))
    await expect(waiting).rejects.toMatchObject({ reason: 'CANCELLED' })
    holder.abort(new TollgateError('CANCELLED', 'gone'))
    await expect(holding).rejects.toMatchObject({ reason: 'CANCELLED' })
  })

  /** An admission that asks for the claim and takes nothing. */
  function probe(): Parameters<Limits['admit']>[0] {
    const claim = claimOf({ ...plain, ...asked }, 'unary', consumer.id, service.id)
    return { id: newId(), costs: [], leaseMs: 1, ifAbandoned: usageEvent(), claim }
  }

  function aborted(signal: AbortSignal): Promise<{ attempts: Attempt[]; error: TollgateError }> {
    return new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve({ attempts: [attempt(1)], error: signal.reason }))
    })
  }
})
