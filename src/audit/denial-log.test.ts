import { afterEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { newId } from '../ids.ts'
import type { IdentifiedEntry } from './audit-record.ts'
import type { Denial } from './denial.ts'
import { createDenialLog, type DenialLog, type DenialLogOptions } from './denial-log.ts'

const silent = { info: () => {}, warn: () => {}, error: () => {} }
const alike: Denial = {
  actor: 'key:k',
  action: 'marketplace.v1.Registry/RegisterService',
  reason: 'PERMISSION_MISSING permission=services.write',
  resource: '',
  organizationId: 'o',
  requestId: 'r',
  address: '::1',
  userAgent: 'grpc-node',
}
let log: DenialLog
afterEach(() => log?.close())

/** A log into memory; `broken` fails the next writes. */
function open(options: Partial<DenialLogOptions> = {}) {
  const batches: (readonly IdentifiedEntry[])[] = []
  const state = { broken: false, again: 0 }
  log = createDenialLog({
    write: async (entries, again) => {
      if (again) state.again += 1
      await new Promise(setImmediate)
      if (state.broken) throw new Error('the database is away')
      batches.push(entries)
    },
    log: silent,
    pauseMs: 50,
    ...options,
  })
  const written = () => batches.flat()
  const sum = () => written().reduce((total, { count }) => total + count, 0)
  return { batches, state, written, sum }
}

describe('a denial', () => {
  test('is in the log when its answer may leave', async () => {
    const { written } = open()
    await log.record(alike, 10_000)
    expect(written()).toMatchObject([{ ...alike, kind: 'denial', count: 1, before: null, after: null }])
  })

  test('shares a transaction with others of its tick, and a record with none that is not alike', async () => {
    const { batches, written } = open()
    const others = ['actor', 'action', 'reason', 'resource', 'address'].map((field) => ({ ...alike, [field]: 'other' }))
    await Promise.all([alike, ...others, alike].map((each) => log.record(each, 10_000)))
    expect(batches.length).toBe(1)
    expect(written().map(({ count }) => count)).toEqual([2, 1, 1, 1, 1, 1])
  })

  test('does not wait longer than it may', async () => {
    open({ write: () => new Promise(() => {}), closeTimeoutMs: 1 })
    await log.record(alike, 1)
    expect(log.state()).toMatchObject({ denials: 1, records: 0, waiting: 1, dropped: 0 })
  })
})

describe('a flood', () => {
  test('of 10,000 identical denials makes few records, and their counts add up', async () => {
    const { written, sum } = open()
    const caller = async (calls: number): Promise<void> => {
      for (let call = 0; call < calls; call++) await log.record(alike, 10_000)
    }
    await Promise.all(Array.from({ length: 2_000 }, () => caller(5)))
    expect(sum()).toBe(10_000)
    expect(written().length).toBeLessThan(20)
  })

  test('of one caller that waits for each answer makes a record, and after it another one each pause', async () => {
    const { written } = open({ pauseMs: 3_600_000 })
    await log.record(alike, 10_000)
    for (let call = 0; call < 5; call++) await log.record(alike, 1)
    expect(written()).toMatchObject([{ count: 1 }])
    await log.close()
    expect(written()).toMatchObject([{ count: 1 }, { count: 5 }])
  })

  test('of denials that are all different cannot pass the budget of its actor, and their counts add up', async () => {
    const { written, sum } = open({ now: () => 1_000 })
    const different = Array.from({ length: 3_000 }, () => ({ ...alike, resource: `consumer/${newId()}` }))
    await Promise.all(different.map((denial) => log.record(denial, 10_000)))
    await log.record({ ...alike, actor: 'key:other' }, 10_000)
    expect(sum()).toBe(3_001)
    expect(written().length).toBe(1_002)
    expect(written().filter(({ action }) => action === '*')).toMatchObject([
      { actor: 'key:k', reason: 'PERMISSION_MISSING', resource: '', address: '', organizationId: 'o', count: 2_000 },
    ])
  })
})

describe('while Postgres is away', () => {
  test('denials are answered, wait, and are written later, with the ids that the first attempt had', async () => {
    const { state, written, sum } = open()
    state.broken = true
    await Promise.all(Array.from({ length: 100 }, (_, i) => log.record({ ...alike, resource: `service/${i}` }, 1)))
    await eventually(() => log.state().failing !== undefined)
    await log.record(alike, 1)
    expect(log.state()).toMatchObject({ waiting: 101, dropped: 0, failing: 'the database is away' })
    state.broken = false
    await eventually(() => log.state().waiting === 0)
    expect(state.again).toBeGreaterThan(0)
    expect(sum()).toBe(101)
    expect(new Set(written().map(({ id }) => id)).size).toBe(101)
    expect(log.state().failing).toBeUndefined()
  })

  test('a record grows no longer than it may, so that its time says something', async () => {
    let nowMs = 1_000
    const { state, written } = open({ now: () => nowMs, growMs: 100 })
    state.broken = true
    await log.record({ ...alike, actor: 'key:first' }, 1)
    await eventually(() => log.state().failing !== undefined)
    await log.record(alike, 1)
    await log.record(alike, 1)
    nowMs += 100
    await log.record(alike, 1)
    state.broken = false
    await eventually(() => log.state().waiting === 0)
    expect(written().map(({ count, createdAtMs }) => [count, createdAtMs])).toEqual([
      [1, 1_000],
      [2, 1_000],
      [1, 1_100],
    ])
  })

  test('a full buffer counts what it drops, and says so', async () => {
    const said: string[] = []
    const alert = (_fields: object, text: string): void => void said.push(text)
    const { state, sum } = open({ capacity: 10, log: { ...silent, error: alert } })
    state.broken = true
    const actors = Array.from({ length: 25 }, (_, i) => ({ ...alike, actor: `key:${i}` }))
    await Promise.all(actors.map((denial) => log.record(denial, 1)))
    await log.record(alike, 1)
    expect(log.state()).toMatchObject({ denials: 26, waiting: 10, dropped: 16 })
    expect(said).toEqual([expect.stringContaining('ALERT')])
    state.broken = false
    await eventually(() => log.state().waiting === 0)
    expect(sum()).toBe(10)
    expect(said.length).toBe(2)
  })
})

describe('its end', () => {
  test('writes what waits, those that would have waited for others too', async () => {
    const { sum } = open({ pauseMs: 60_000 })
    await log.record(alike, 10_000)
    await log.record(alike, 1)
    await log.close()
    expect(sum()).toBe(2)
  })

  test('gives up what cannot be written in time, and counts it', async () => {
    const { state } = open({ closeTimeoutMs: 1 })
    state.broken = true
    await log.record(alike, 1)
    await log.close()
    await log.record(alike, 1)
    expect(log.state()).toMatchObject({ waiting: 0, dropped: 2 })
  })
})
