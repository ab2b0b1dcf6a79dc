import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { administrator, keyOf, testCall } from '../../test/support/invoke.ts'
import { TollgateError } from '../errors.ts'
import type { KeyStanding } from '../identity/key-verifier.ts'
import { createOpenCalls } from './open-calls.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const consumer = { id: 'c', organizationId: 'o' }
const revoked = new TollgateError('CREDENTIAL_REVOKED', 'revoked')
const good: KeyStanding = { refusal: undefined, expiresAtMs: undefined }

/** Open calls of keys that stand as the test says; every key, unless it is named. */
function setup(standing = good) {
  const state = { standing, away: false, looks: 0 }
  const standingOf = async (): Promise<KeyStanding> => {
    state.looks++
    if (state.away) throw new Error('away')
    const { refusal, expiresAtMs } = state.standing
    const isOver = expiresAtMs !== undefined && expiresAtMs <= Date.now()
    return isOver ? { refusal: expired, expiresAtMs } : { refusal, expiresAtMs }
  }
  return { state, openCalls: createOpenCalls({ standingOf, now: Date.now }) }
}

const expired = new TollgateError('CREDENTIAL_EXPIRED', 'expired')
const settle = () => vi.advanceTimersByTimeAsync(1)

describe('a running call ends', () => {
  test('when its key is revoked, with all others of that key', async () => {
    const { state, openCalls } = setup()
    const calls = ['1', '2'].map((id) => testCall(keyOf(consumer, 'a'), { id }))
    for (const call of calls) openCalls.follow(call)
    await settle()
    state.standing = { refusal: revoked, expiresAtMs: undefined }
    openCalls.recheck()
    await settle()
    expect(calls.map(({ signal }) => signal.reason)).toEqual([revoked, revoked])
  })

  test('when its key was revoked between its check and now', async () => {
    const { openCalls } = setup({ refusal: revoked, expiresAtMs: undefined })
    const call = testCall(keyOf(consumer))
    openCalls.follow(call)
    await settle()
    expect(call.signal.reason).toBe(revoked)
  })

  test('at the moment at which its key expires, also when that was moved', async () => {
    const { state, openCalls } = setup({ refusal: undefined, expiresAtMs: Date.now() + 60_000 })
    const call = testCall(keyOf(consumer))
    openCalls.follow(call)
    await vi.advanceTimersByTimeAsync(10_000)
    state.standing = { refusal: undefined, expiresAtMs: Date.now() + 5_000 }
    openCalls.recheck()
    await vi.advanceTimersByTimeAsync(4_900)
    expect(call.signal.aborted).toBe(false)
    await vi.advanceTimersByTimeAsync(200)
    expect(call.signal.reason).toBe(expired)
  })
})

describe('a running call goes on', () => {
  test('while its key is good, and while nobody can know', async () => {
    const { state, openCalls } = setup()
    const call = testCall(keyOf(consumer))
    openCalls.follow(call)
    openCalls.recheck()
    await settle()
    state.away = true
    openCalls.recheck()
    await settle()
    expect(call.signal.aborted).toBe(false)
  })

  test('when it has no key', async () => {
    const { state, openCalls } = setup({ refusal: revoked, expiresAtMs: undefined })
    const call = testCall(administrator)
    openCalls.follow(call)()
    await settle()
    expect([call.signal.aborted, state.looks, openCalls.size()]).toEqual([false, 0, 0])
  })
})

test('what is over is forgotten, with its timer', async () => {
  const { openCalls } = setup({ refusal: undefined, expiresAtMs: Date.now() + 60_000 })
  const releases = [openCalls.follow(testCall(keyOf(consumer))), openCalls.follow(testCall(keyOf(consumer)))]
  await settle()
  for (const release of releases) release()
  expect([openCalls.size(), vi.getTimerCount()]).toEqual([0, 0])
})
