import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { type PracticeDispatch, startPracticeDispatch, unaryTask } from '../../test/support/practice-dispatch.ts'
import { type Reason, TollgateError } from '../errors.ts'
import type { EndpointRecord } from '../registry/records.ts'
import type { Failure } from './retry-table.ts'

let practice: PracticeDispatch
let calls = 0

beforeAll(async () => {
  practice = await startPracticeDispatch(3)
})
beforeEach(() => practice.renew())
afterAll(() => practice?.stop())

const deadlines: Partial<EndpointRecord> = { headersTimeoutMs: 1_000, idleTimeoutMs: 1_000 }

/** What comes of a whole answer, by fault of the practice backend. */
interface Row {
  readonly fault: string
  /** What the gate calls it; undefined where the answer can be taken as it is. */
  readonly failure: Failure | undefined
  /** What the caller is told when every attempt fails. */
  readonly reason: Reason | undefined
  /** Attempts when every one of three endpoints fails. */
  readonly everywhere: number
  /** Whether the only endpoint is tried again. */
  readonly again: boolean
}

const rows: readonly Row[] = [
  { fault: 'status=500', failure: 'server_error', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'status=502', failure: 'server_error', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'status=408', failure: 'server_error', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'status=503,retry-after=0', failure: 'unavailable', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'status=503,retry-after=90', failure: 'unavailable', reason: 'BACKEND_FAILED', everywhere: 3, again: false },
  { fault: 'status=429,retry-after=0', failure: 'busy', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'status=429,retry-after=90', failure: 'busy', reason: 'BACKEND_FAILED', everywhere: 3, again: false },
  { fault: 'status=529', failure: 'unavailable', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'status=504', failure: 'gateway_timeout', reason: 'BACKEND_FAILED', everywhere: 3, again: false },
  { fault: 'status=501', failure: 'unusable_status', reason: 'BACKEND_FAILED', everywhere: 3, again: false },
  {
    fault: 'status=401',
    failure: 'credential_refused',
    reason: 'BACKEND_CREDENTIAL_REFUSED',
    everywhere: 3,
    again: false,
  },
  {
    fault: 'status=403',
    failure: 'credential_refused',
    reason: 'BACKEND_CREDENTIAL_REFUSED',
    everywhere: 3,
    again: false,
  },
  { fault: 'status=400', failure: 'rejected', reason: 'BACKEND_REJECTED', everywhere: 1, again: false },
  { fault: 'status=404', failure: 'rejected', reason: 'BACKEND_REJECTED', everywhere: 1, again: false },
  { fault: 'status=422', failure: 'rejected', reason: 'BACKEND_REJECTED', everywhere: 1, again: false },
  { fault: 'reset', failure: 'reset', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'cut', failure: 'cut', reason: 'BACKEND_FAILED', everywhere: 3, again: true },
  { fault: 'silence', failure: 'headers_timeout', reason: 'BACKEND_TIMEOUT', everywhere: 3, again: false },
  { fault: 'stall', failure: 'idle_timeout', reason: 'BACKEND_TIMEOUT', everywhere: 3, again: false },
  { fault: 'html', failure: 'invalid_answer', reason: 'BACKEND_ANSWER_INVALID', everywhere: 3, again: false },
  { fault: 'empty', failure: 'invalid_answer', reason: 'BACKEND_ANSWER_INVALID', everywhere: 3, again: false },
  { fault: 'malformed', failure: 'invalid_answer', reason: 'BACKEND_ANSWER_INVALID', everywhere: 3, again: false },
  { fault: 'missing-usage', failure: undefined, reason: undefined, everywhere: 1, again: false },
]

function dispatch(model: string, endpoints = 3) {
  const id = `call-${++calls}`
  const service = practice.service(deadlines, endpoints)
  return { id, outcome: practice.dispatcher.dispatch(service, unaryTask(chat('x', model), id), testCall()) }
}

describe.each(rows)('$fault', ({ fault, failure, reason, everywhere, again }) => {
  test('at the first attempt: another endpoint answers, unless the request itself was refused', async () => {
    practice.backends[0]?.failNext(fault)
    const { id, outcome } = dispatch('practice')
    const { attempts, ...end } = await outcome
    if (everywhere === 1) {
      if (reason === undefined) expect(end).toMatchObject({ value: { usageSource: 'estimated' } })
      else expect(end).toMatchObject({ error: { reason } })
      expect(practice.attempted).toEqual([`0 ${failure ?? 'ok'}`])
    } else {
      expect(end).toMatchObject({ value: { usageSource: 'provider', tokens: { output: expect.any(Number) } } })
      expect(practice.attempted).toEqual([`0 ${failure}`, '1 ok'])
      expect(attempts.map(({ number, endpointId, error }) => [number, endpointId, error?.reason])).toEqual([
        [1, '0', reason],
        [2, '1', undefined],
      ])
    }
    // The backends saw these attempts and no others, each by its own id.
    const lines = practice.log().filter(({ attemptId }) => attemptId?.startsWith(`${id}-`))
    expect(new Set(lines.map(({ attemptId }) => attemptId))).toEqual(new Set(attempts.map((attempt) => attempt.id)))
    expect(lines.filter(({ outcome }) => outcome === 'served')).toHaveLength(everywhere === 1 ? 0 : 1)
  })

  test('at every attempt: never a success, never more than three, never twice at an endpoint', async () => {
    const { attempts, ...end } = await dispatch(`practice:${fault}`).outcome
    if (reason === undefined) expect(end).toMatchObject({ value: { usageSource: 'estimated' } })
    else expect(end).toMatchObject({ error: { reason, metadata: everywhere === 1 ? {} : { attempts: '3' } } })
    expect(practice.attempted).toEqual(Array.from({ length: everywhere }, (_, i) => `${i} ${failure ?? 'ok'}`))
    expect(attempts).toHaveLength(everywhere)
  })

  test(`of the only endpoint, once: ${again ? 'it is asked again and answers' : 'it is not asked again'}`, async () => {
    practice.backends[0]?.failNext(fault)
    const end = await dispatch('practice', 1).outcome
    expect(practice.attempted).toEqual(again ? [`0 ${failure}`, '0 ok'] : [`0 ${failure ?? 'ok'}`])
    expect('value' in end).toBe(again || failure === undefined)
  })
})

test('an endpoint where nobody listens is passed over', async () => {
  const [first, ...others] = practice.service().endpoints
  const service = {
    ...practice.service(),
    endpoints: [{ ...(first ?? others[0]), url: 'http://127.0.0.1:1/' }, ...others],
  }
  const outcome = await practice.dispatcher.dispatch(service as never, unaryTask(chat('x'), 'nobody'), testCall())
  expect('value' in outcome).toBe(true)
  expect(practice.attempted).toEqual(['0 no_connection', '1 ok'])
})

test('a failing endpoint costs its breaker five attempts, and then nothing', async () => {
  practice.backends[0]?.failNext('reset', 1_000)
  for (let i = 0; i < 20; i += 1) expect('value' in (await dispatch('practice').outcome)).toBe(true)
  expect(practice.attempted.filter((line) => line.startsWith('0'))).toHaveLength(5)
  expect(practice.attempted.filter((line) => line === '1 ok')).toHaveLength(20)
})

test('a storm of failures gets no more than its budget of retries', async () => {
  await practice.renew({ breaker: { failures: 10_000, windowMs: 10_000, resetMs: 10_000 } })
  const storm = Array.from({ length: 400 }, () => dispatch('practice:status=500').outcome)
  expect((await Promise.all(storm)).every((outcome) => 'error' in outcome)).toBe(true)
  // A fifth of the calls, and what a quiet service may always have: ten a second for ten seconds.
  expect(practice.attempted.length).toBe(400 + 80 + 100)
})

test('an endpoint that asks for a rest is left alone while there is another', async () => {
  practice.backends[0]?.failNext('status=429,retry-after=60')
  for (let i = 0; i < 5; i += 1) await dispatch('practice').outcome
  expect(practice.attempted).toEqual(['0 busy', ...Array(5).fill('1 ok')])
})

test('the end of a call reaches the backend at once, and frees it', async () => {
  const caller = new AbortController()
  const service = practice.service({}, 1)
  const call = testCall(undefined, { signal: caller.signal })
  const inFlight = (): number => practice.backends[0]?.stats().inFlight ?? 0
  const running = practice.dispatcher.dispatch(service, unaryTask(chat('x', 'practice:silence'), 'left'), call)
  await eventually(() => inFlight() === 1)
  caller.abort(new TollgateError('CANCELLED', 'gone'))
  expect(await running).toMatchObject({ error: { reason: 'CANCELLED' } })
  await eventually(() => inFlight() === 0)
  expect(
    practice
      .log()
      .filter(({ attemptId }) => attemptId === 'left-1')
      .at(-1),
  ).toMatchObject({ outcome: 'aborted' })
})
