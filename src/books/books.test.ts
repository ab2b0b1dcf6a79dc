import { expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import { newId } from '../ids.ts'
import { counterKeysOf } from '../limits/limit-keys.ts'
import type { CounterReading } from '../limits/limits-reading.ts'
import { attemptIdOf } from '../metering/attempt-id.ts'
import type { LedgerReading } from '../metering/ledger-audit.ts'
import { totalTokens } from '../metering/usage-event.ts'
import { auditBooks } from './audit.ts'
import { type BackendCalls, compareBackends } from './backend-calls.ts'
import { type Books, compareBooks } from './books.ts'

const event = usageEvent({ startMs: Date.UTC(2026, 10, 30, 23, 59, 59, 999) })
const tokens = totalTokens(event.tokens)
const { organizationId, consumerId, keyId, serviceId, costNanos } = event
const usage = { organizationId, consumerId, keyId, serviceId, month: '2026-11', currency: 'USD' }
const keys = counterKeysOf(usage)

const emptyLedger: LedgerReading = {
  sums: [],
  repeatedIds: [],
  quarantined: [],
  quarantinedUnreadable: 0,
  recorded: new Set(),
  attempts: new Map(),
}

/** A log that has one line for an attempt. */
function backendOf(attemptId: string): BackendCalls {
  return new Map([[attemptId, { attemptId, month: '2026-11', times: 1, tokens: event.tokens }]])
}

function books(limits: Partial<Books['limits']>, ledger: Partial<LedgerReading> = {}, month?: string): Books {
  return {
    month,
    limits: { counters: [], reservations: [], events: [], unreadable: 0, ...limits },
    ledger: { ...emptyLedger, ...ledger },
    backends: undefined,
  }
}

/** Of every scope, as a call of the event leaves them. */
function countersOf(state: 'used' | 'held'): CounterReading[] {
  const of = (units: number) => (state === 'used' ? { used: units, held: 0 } : { used: 0, held: units })
  return [...keys.tokens.map((key) => ({ key, ...of(tokens) })), ...keys.cost.map((key) => ({ key, ...of(costNanos) }))]
}

const counters = countersOf('used')
/** One counter of the consumer's tokens. */
function counterOf(used: number): CounterReading[] {
  return keys.tokens.slice(1, 2).map((key) => ({ key, used, held: 0 }))
}

const kinds = (compared: Books): string[] => compareBooks(compared).findings.map(({ kind }) => kind)

test('a call is counted once wherever it is on its way from reservation to ledger', () => {
  const held = countersOf('held')
  const holds = held.map(({ key, held }) => ({ key, units: held }))
  const sums = {
    ...{ ...usage, wrongRows: 0, ledgerRecords: 1, ledgerTokens: tokens, ledgerCostNanos: costNanos },
    ...{ rollupRecords: 1, rollupTokens: tokens, rollupCostNanos: costNanos },
  }
  const logged = { event, acknowledged: false }
  const recorded = new Set([event.id])
  expect(kinds(books({ counters: held, reservations: [{ event, holds }] }))).toEqual([])
  expect(kinds(books({ counters: held }))).toEqual(held.map(() => 'held'))
  expect(kinds(books({ counters, events: [logged] }))).toEqual([])
  expect(kinds(books({ counters, events: [logged, logged] }))).toEqual([])
  expect(kinds(books({ counters, events: [logged] }, { sums: [sums], recorded }))).toEqual([])
  expect(kinds(books({ counters, events: [{ event, acknowledged: true }] }, { sums: [sums], recorded }))).toEqual([])
  expect(kinds(books({ counters }, { sums: [sums] }))).toEqual([])
  expect(kinds(books({ counters }, { quarantined: [event] }))).toEqual([])
  expect(kinds(books({ counters }))).toEqual(counters.map(() => 'counter'))
  const unknown = counters.map((counter) => ({ ...counter, used: undefined }))
  expect(kinds(books({ counters: unknown }))).toEqual([])
})

test('an event that is acknowledged in one place and waits in another is on its way', () => {
  const events = [
    { event, acknowledged: true },
    { event, acknowledged: false },
  ]
  expect(kinds(books({ counters, events }))).toEqual([])
})

test('a counter that the store does not know cannot be wrong', () => {
  expect(kinds(books({ counters: undefined, events: [{ event, acknowledged: false }] }))).toEqual([])
})

test('another month does not count', () => {
  const limits = { counters: counterOf(5), events: [{ event, acknowledged: false }] }
  expect(compareBooks(books(limits, {}, '2026-12'))).toMatchObject({ scopes: [], findings: [] })
  expect(kinds(books(limits, {}, '2026-11'))).toEqual(['counter'])
})

const off = (by: number): Books => books({ counters: counterOf(by) })

/** Reads these in turn; the last one again and again. */
function audit(readings: readonly Books[]): ReturnType<typeof auditBooks> {
  let next = 0
  const read = async (): Promise<Books> => readings[Math.min(next++, readings.length - 1)] ?? off(0)
  return auditBooks({ read, pause: async () => undefined, mostReadings: 5 })
}

test('a difference counts when a second reading shows the same figures', async () => {
  expect(await audit([off(0)])).toMatchObject({ readings: 1, differences: [], moving: [] })
  expect(await audit([off(7), off(0)])).toMatchObject({ readings: 2, differences: [], moving: [] })
  expect(await audit([off(7)])).toMatchObject({ readings: 2, differences: [{ kind: 'counter', found: 7 }], moving: [] })
})

test('what changes with every reading is moving, not wrong', async () => {
  const readings = [1, 2, 3, 4, 5].map(off)
  expect(await audit(readings)).toMatchObject({ readings: 5, differences: [], moving: [{ found: 5 }] })
})

test('units that no reservation holds are wrong when nothing was settled meanwhile, and moving when calls were', async () => {
  const held = (calls: number): Books => {
    const ledger = { ledgerRecords: calls, ledgerTokens: calls * tokens, ledgerCostNanos: calls * costNanos }
    const rollup = { rollupRecords: calls, rollupTokens: calls * tokens, rollupCostNanos: calls * costNanos }
    const counters = counterOf(calls * tokens).map((counter) => ({ ...counter, held: 448 }))
    return books({ counters }, { sums: [{ ...usage, wrongRows: 0, ...ledger, ...rollup }] })
  }
  expect(await audit([held(1)])).toMatchObject({ readings: 2, differences: [{ kind: 'held', found: 448 }], moving: [] })
  const passing = [1, 2, 3, 4, 5].map(held)
  expect(await audit(passing)).toMatchObject({ readings: 5, differences: [], moving: [{ kind: 'held', found: 448 }] })
})

test.each([1, 2, 3])('the record of attempt %i has what the backend said to that attempt', (attempt) => {
  const recorded = { ...usageEvent({ attempt }), corrects: '' }
  const { id, usageSource } = recorded
  const known = new Map([
    [id, { id, consumerId, serviceId, month: '2026-11', attempt, tokens: event.tokens, usageSource, succeeded: true }],
  ])
  const find = (sent: string) => compareBackends(backendOf(sent), known, undefined).map(({ kind }) => kind)
  expect(find(attemptIdOf(id, attempt))).toEqual([])
  expect(find(attemptIdOf(id, attempt === 1 ? 2 : 1))).toEqual(['phantom'])
})

test('a call is not lost when its gate died in a later attempt, and is when nobody knows of any', () => {
  const backend = backendOf(attemptIdOf(event.id, 2))
  expect(compareBackends(backend, new Map([[event.id, 'open']]), undefined)).toEqual([])
  expect(compareBackends(backend, new Map([[newId(), 'open']]), undefined)).toMatchObject([{ kind: 'lost' }])
})

test('what replicas hold in slices is held like what reservations hold', () => {
  const held = countersOf('held')
  const slices = held.map(({ key, held }) => ({ key, units: held }))
  expect(kinds(books({ counters: held, slices }))).toEqual([])
  expect(kinds(books({ counters: held, slices: slices.slice(1) }))).toEqual(['held'])
  expect(kinds(books({ counters: [], slices }))).toEqual([])
})
