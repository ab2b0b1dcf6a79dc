import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { testCall } from '../../test/support/invoke.ts'
import { BackendCall, type Deadlines } from './backend-call.ts'
import { failureOf } from './retry-table.ts'
import type { TransportController, TransportHandler } from './transport.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const controller: TransportController = { abort: () => {}, pause: () => {}, resume: () => {} }

/** A call whose answer has begun; `failure` resolves with how it failed. */
function begin(deadlines: Partial<Deadlines>): { call: BackendCall; failure: () => string } {
  const none = { connect: 1_000, headers: undefined, firstToken: undefined, idle: undefined, total: undefined }
  const call = new BackendCall({
    transport: {
      dispatch: (_, handler: TransportHandler) => handler.onRequestStart(controller),
      isFull: false,
      close: async () => {},
    },
    request: { path: '/', method: 'POST', headers: {}, body: Buffer.from('') },
    isGrpc: false,
    deadlines: { ...none, ...deadlines },
    ending: testCall(),
    now: Date.now,
    sink: { maxBytes: undefined, onData: () => {} },
  })
  let failure = ''
  call.done.catch((error: unknown) => {
    failure = failureOf(error)
  })
  call.onResponseStart(controller, 200, {})
  return { call, failure: () => failure }
}

test.each([
  ['total_timeout', { total: 100 }],
  ['first_token_timeout', { firstToken: 100 }],
])('%s does not count the time in which the gate makes the backend wait', async (expected, deadlines) => {
  const { call, failure } = begin(deadlines)
  for (let n = 0; n < 3; n += 1) {
    await vi.advanceTimersByTimeAsync(30)
    call.pause()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(failure()).toBe('')
    call.resume()
  }
  await vi.advanceTimersByTimeAsync(9)
  expect(failure()).toBe('')
  await vi.advanceTimersByTimeAsync(1)
  expect(failure()).toBe(expected)
})

test('output that comes while the backend waits ends the deadline for it for good', async () => {
  const { call, failure } = begin({ firstToken: 100 })
  call.pause()
  call.sawOutput()
  call.resume()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(failure()).toBe('')
})

test.each([[true], [false]])('a call that is over leaves no timer behind; while the backend waits: %j', (isPaused) => {
  const { call } = begin({ total: 100, firstToken: 100, idle: 100 })
  if (isPaused) call.pause()
  call.onResponseEnd(controller, {})
  call.resume()
  expect(vi.getTimerCount()).toBe(0)
})
