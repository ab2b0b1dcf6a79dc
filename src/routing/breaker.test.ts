import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { TollgateError } from '../errors.ts'
import { type BreakerState, type Breakers, createBreakers, type Pass, type Verdict } from './breaker.ts'

const failing = (): Promise<string> => Promise.reject(new TollgateError('BACKEND_FAILED', 'no'))
const healthy = (): Promise<string> => Promise.resolve('yes')
const leaving = (): Promise<string> => Promise.reject(new TollgateError('CANCELLED', 'gone'))
const rejecting = (): Promise<string> => Promise.reject(new TollgateError('BACKEND_REJECTED', 'bad request'))

let breakers: Breakers
let changes: BreakerState[]

beforeEach(() => {
  vi.useFakeTimers()
  changes = []
  breakers = createBreakers({
    failures: 5,
    windowMs: 10_000,
    resetMs: 1_000,
    judge: (error) => {
      if (!(error instanceof TollgateError)) return 'failing'
      if (error.reason === 'BACKEND_REJECTED') return 'healthy'
      return error.reason === 'CANCELLED' ? 'unknown' : 'failing'
    },
    now: Date.now,
    onChange: (_, state) => changes.push(state),
  })
})

afterEach(() => {
  breakers.close()
  vi.useRealTimers()
})

async function reasons(attempt: () => Promise<string>, times: number): Promise<string[]> {
  const seen: string[] = []
  for (let i = 0; i < times; i += 1) {
    seen.push(
      await breakers.run('e', attempt).then(
        () => 'ok',
        (error: unknown) => (error instanceof TollgateError ? error.reason : 'other'),
      ),
    )
  }
  return seen
}

test('opens at the fifth failure in the window, however many calls succeeded', async () => {
  await reasons(healthy, 100)
  expect(await reasons(failing, 6)).toEqual([...Array(5).fill('BACKEND_FAILED'), 'BREAKER_OPEN'])
  expect(breakers.states().get('e')).toBe('open')
})

test('forgets failures that are older than the window', async () => {
  await reasons(failing, 4)
  await vi.advanceTimersByTimeAsync(11_000)
  expect(await reasons(failing, 4)).not.toContain('BREAKER_OPEN')
  expect(breakers.states().get('e')).toBe('closed')
})

test('says when the next probe may pass', async () => {
  await reasons(failing, 5)
  await vi.advanceTimersByTimeAsync(400)
  const error: unknown = await breakers.run('e', healthy).catch((e: unknown) => e)
  expect(error).toMatchObject({ reason: 'BREAKER_OPEN', retryAfterMs: 600 })
})

test('lets one probe pass when half-open, and closes on its good answer', async () => {
  await reasons(failing, 5)
  await vi.advanceTimersByTimeAsync(1_000)
  const { promise, resolve } = Promise.withResolvers<string>()
  const probe = breakers.run('e', () => promise)
  expect(await reasons(healthy, 1)).toEqual(['BREAKER_OPEN'])
  resolve('yes')
  expect(await probe).toBe('yes')
  expect(await reasons(healthy, 1)).toEqual(['ok'])
  expect(changes).toEqual(['open', 'half_open', 'closed'])
})

test('lets exactly one of a hundred callers pass when half-open, and again one after a failed probe', async () => {
  await reasons(failing, 5)
  expect(breakers.mayPass('e')).toBe(false)
  for (const outcome of [failing, healthy]) {
    await vi.advanceTimersByTimeAsync(1_000)
    expect(breakers.mayPass('e')).toBe(true)
    const gate = Promise.withResolvers<void>()
    let passed = 0
    const callers = Array.from({ length: 100 }, () =>
      breakers.run('e', async () => {
        passed += 1
        await gate.promise
        return outcome()
      }),
    )
    expect(breakers.mayPass('e')).toBe(false)
    gate.resolve()
    const refused = (await Promise.allSettled(callers)).filter(
      (end) => end.status === 'rejected' && end.reason instanceof TollgateError && end.reason.reason === 'BREAKER_OPEN',
    )
    expect([passed, refused.length]).toEqual([1, 99])
  }
  expect(breakers.states().get('e')).toBe('closed')
})

test('counts streams that broke after their attempt was good, and leaves a half-open breaker to its probe', async () => {
  await reasons(healthy, 1)
  for (let i = 0; i < 5; i += 1) breakers.fail('e', new TollgateError('BACKEND_FAILED', 'cut'))
  await vi.advanceTimersByTimeAsync(0)
  expect(breakers.states().get('e')).toBe('open')
  await vi.advanceTimersByTimeAsync(1_000)
  breakers.fail('e', new TollgateError('BACKEND_FAILED', 'cut'))
  await vi.advanceTimersByTimeAsync(0)
  expect(breakers.states().get('e')).toBe('half_open')
  expect(await reasons(healthy, 1)).toEqual(['ok'])
})

test.each([
  ['fails', failing],
  ['is given up by its caller', leaving],
])('opens again when the probe %s', async (_, attempt) => {
  await reasons(failing, 5)
  await vi.advanceTimersByTimeAsync(1_000)
  await reasons(attempt, 1)
  expect(breakers.states().get('e')).toBe('open')
  await vi.advanceTimersByTimeAsync(1_000)
  expect(await reasons(healthy, 1)).toEqual(['ok'])
})

test('counts neither refusals of the backend nor callers that went away', async () => {
  await reasons(rejecting, 20)
  await reasons(leaving, 20)
  expect(breakers.states().get('e')).toBe('closed')
})

test('a refusal answers the probe: the backend is there', async () => {
  await reasons(failing, 5)
  await vi.advanceTimersByTimeAsync(1_000)
  await reasons(rejecting, 1)
  expect(breakers.states().get('e')).toBe('closed')
})

test('endpoints do not share a breaker', async () => {
  await reasons(failing, 5)
  expect(await breakers.run('other', healthy)).toBe('yes')
})

test('what was let in before it opened says nothing to a half-open breaker', async () => {
  for (const verdict of ['healthy', 'failing', 'unknown'] as const) {
    const breaker = breakers.of(verdict)
    expect(breaker.enter()).toBe('call')
    for (let i = 0; i < 5; i += 1) breaker.leave('call', 'failing')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(breaker.state).toBe('half_open')
    breaker.leave('call', verdict)
    expect(breaker.state).toBe('half_open')
    expect(breaker.enter()).toBe('probe')
    breaker.leave('call', verdict)
    expect([breaker.state, breaker.mayPass]).toEqual(['half_open', false])
  }
})

test('counts again after the clock was set back', () => {
  for (let i = 0; i < 4; i += 1) breakers.of('e').leave('call', 'failing')
  vi.setSystemTime(Date.now() - 3_600_000)
  for (let i = 0; i < 4; i += 1) breakers.of('e').leave('call', 'failing')
  expect(breakers.stateOf('e')).toBe('closed')
  breakers.of('e').leave('call', 'failing')
  expect(breakers.stateOf('e')).toBe('open')
})

test('leaves no timer behind', () => {
  for (let i = 0; i < 5; i += 1) breakers.fail('e', new TollgateError('BACKEND_FAILED', 'no'))
  breakers.close()
  expect(vi.getTimerCount()).toBe(0)
})

/** What is promised, counted from the whole of what happened. */
class Model {
  state: BreakerState = 'closed'
  readonly changes: BreakerState[] = []
  #failedAtMs: number[] = []
  #openedAtMs = 0
  #probes = 0

  advance(toMs: number): void {
    if (this.state === 'open' && toMs >= this.#openedAtMs + 1_000) this.#become('half_open')
  }

  enter(): Pass | undefined {
    if (this.state === 'closed') return 'call'
    if (this.state === 'open' || this.#probes > 0) return undefined
    this.#probes += 1
    return 'probe'
  }

  leave(pass: Pass, verdict: Verdict, nowMs: number): void {
    if (pass === 'probe') this.#probes -= 1
    if (pass === 'probe' && verdict === 'healthy') this.#become('closed')
    else if (pass === 'probe') this.#open(nowMs)
    else if (verdict === 'failing' && this.state === 'closed') {
      this.#failedAtMs.push(nowMs)
      if (this.#failedAtMs.filter((atMs) => nowMs - atMs < 10_000).length >= 5) this.#open(nowMs)
    }
  }

  #open(nowMs: number): void {
    this.#openedAtMs = nowMs
    this.#become('open')
  }

  #become(state: BreakerState): void {
    this.state = state
    this.changes.push(state)
  }
}

test('does what the model does, whatever happens in whatever order', () => {
  const step = fc.oneof(
    { weight: 1, arbitrary: fc.record({ ms: fc.integer({ min: 1, max: 3_000 }) }) },
    { weight: 6, arbitrary: fc.constant('enter' as const) },
    {
      weight: 8,
      arbitrary: fc.record({
        call: fc.nat(),
        verdict: fc.constantFrom<Verdict>('failing', 'failing', 'healthy', 'unknown'),
      }),
    },
  )
  let number = 0
  fc.assert(
    fc.property(fc.array(step, { minLength: 100, maxLength: 200 }), (steps) => {
      number += 1
      const breaker = breakers.of(`endpoint-${number}`)
      const model = new Model()
      const open: Pass[] = []
      changes = []
      for (const each of steps) {
        if (each === 'enter') {
          const pass = breaker.enter()
          expect(pass).toBe(model.enter())
          if (pass !== undefined) open.push(pass)
        } else if ('ms' in each) {
          vi.advanceTimersByTime(each.ms)
          model.advance(Date.now())
        } else {
          const [pass] = open.splice(each.call % Math.max(1, open.length), 1)
          if (pass === undefined) continue
          breaker.leave(pass, each.verdict)
          model.leave(pass, each.verdict, Date.now())
        }
        expect([breaker.state, changes]).toEqual([model.state, model.changes])
      }
      breaker.close()
    }),
  )
})
