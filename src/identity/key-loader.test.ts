import { expect, it } from 'vitest'
import { createKeyLoader } from './key-loader.ts'
import type { KeyRecord } from './key-verifier.ts'

function record(id: string): KeyRecord {
  return {
    id,
    consumerId: 'c',
    organizationId: 'o',
    consumerStatus: 'active',
    secretHash: '',
    secretTag: 0,
    expiresAtMs: undefined,
    revokedAtMs: undefined,
    scopes: undefined,
    tier: undefined,
  }
}

it('asks once for all who come together, and keeps a batch at its ceiling', async () => {
  const batches: (readonly string[])[] = []
  const load = createKeyLoader({
    maxBatch: 3,
    loadKeys: async (ids) => {
      batches.push(ids)
      return ids.filter((id) => id !== 'unknown').map(record)
    },
  })
  const found = await Promise.all(['a', 'b', 'a', 'unknown', 'c', 'a'].map(load))
  expect(found.map((key) => key?.id)).toEqual(['a', 'b', 'a', undefined, 'c', 'a'])
  expect(batches).toEqual([['a', 'b', 'unknown'], ['c']])
})

it('has one query in flight, and reads again for who asks after it began', async () => {
  const batches: (readonly string[])[] = []
  const gates: (() => void)[] = []
  const load = createKeyLoader({
    loadKeys: async (ids) => {
      batches.push(ids)
      await new Promise<void>((open) => gates.push(open))
      return ids.map(record)
    },
  })
  const first = load('a')
  await expect.poll(() => batches.length).toBe(1)
  const second = load('a')
  const third = load('b')
  expect(batches).toEqual([['a']])
  gates[0]?.()
  await first
  await expect.poll(() => batches.length).toBe(2)
  gates[1]?.()
  await Promise.all([second, third])
  expect(batches).toEqual([['a'], ['a', 'b']])
})

it('tells who waited for a store that is away to try again, and goes on', async () => {
  let fails = true
  const load = createKeyLoader({
    loadKeys: async (ids) => {
      if (fails) throw Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })
      return ids.map(record)
    },
  })
  await expect(load('a')).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
  fails = false
  await expect(load('a')).resolves.toMatchObject({ id: 'a' })
})

it('gives up on a silent store with STORAGE_UNAVAILABLE', async () => {
  const load = createKeyLoader({ timeoutMs: 20, loadKeys: () => new Promise(() => {}) })
  await expect(load('a')).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
})

it('refuses who comes when its line is full', async () => {
  const load = createKeyLoader({ maxWaiting: 2, loadKeys: async (ids) => ids.map(record) })
  const results = await Promise.allSettled(['a', 'b', 'c'].map(load))
  expect(results[2]).toMatchObject({ status: 'rejected', reason: { reason: 'CREDENTIAL_CHECK_BUSY' } })
  expect(results[1]).toMatchObject({ status: 'fulfilled' })
})
