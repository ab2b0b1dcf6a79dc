import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { silentLog } from '../../test/support/postgres-server.ts'
import { createKeyUses, type KeyUse } from './key-uses.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** Uses with what was written of them. */
function setup(maxKeys?: number) {
  const written: (readonly KeyUse[])[] = []
  const state = { written, fails: false }
  const write = async (uses: readonly KeyUse[]): Promise<void> => {
    if (state.fails) throw new Error('away')
    written.push(uses)
  }
  const options = { write, log: silentLog, clock: Date.now, everyMs: 60_000, flushMs: 5_000 }
  return { state, uses: createKeyUses(maxKeys === undefined ? options : { ...options, maxKeys }) }
}

describe('the last use of a key', () => {
  test('is written once a minute, however often it is used', async () => {
    const { state, uses } = setup()
    for (let second = 0; second < 120; second++) {
      for (let i = 0; i < 100; i++) uses.note('a', '::1')
      await vi.advanceTimersByTimeAsync(1_000)
    }
    expect(state.written).toHaveLength(2)
    await uses.stop()
  })

  test('is written together with those of other keys, in one order', async () => {
    const { state, uses } = setup()
    for (const keyId of ['b', 'c', 'a']) uses.note(keyId, '::1')
    await vi.advanceTimersByTimeAsync(5_000)
    expect(state.written.map((batch) => batch.map(({ keyId }) => keyId))).toEqual([['a', 'b', 'c']])
    await uses.stop()
  })

  test('waits while it cannot be written, and is written afterwards', async () => {
    const { state, uses } = setup()
    state.fails = true
    uses.note('a', '::1')
    await vi.advanceTimersByTimeAsync(30_000)
    state.fails = false
    await vi.advanceTimersByTimeAsync(5_000)
    expect(state.written).toMatchObject([[{ keyId: 'a', address: '::1' }]])
    await uses.stop()
  })

  test('that comes while an earlier one is being written is written after it', async () => {
    const written: KeyUse[] = []
    const begun = Promise.withResolvers<void>()
    const write = async (batch: readonly KeyUse[]): Promise<void> => {
      written.push(...batch)
      await begun.promise
    }
    const uses = createKeyUses({ write, log: silentLog, clock: Date.now, everyMs: 60_000, flushMs: 5_000 })
    uses.note('a', '::1')
    await vi.advanceTimersByTimeAsync(60_000)
    uses.note('a', '::2')
    begun.resolve()
    await vi.advanceTimersByTimeAsync(5_000)
    expect(written.map(({ address }) => address)).toEqual(['::1', '::2'])
    await uses.stop()
  })

  test('is written at the end, and no timer stays behind', async () => {
    const { state, uses } = setup()
    uses.note('a', '::1')
    await uses.stop()
    expect(state.written).toHaveLength(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('of more keys than the ceiling is dropped, not held', async () => {
    const { state, uses } = setup(2)
    state.fails = true
    for (let i = 0; i < 100; i++) uses.note(`key${i}`, '::1')
    state.fails = false
    await uses.stop()
    expect(state.written.flat()).toHaveLength(2)
  })
})
