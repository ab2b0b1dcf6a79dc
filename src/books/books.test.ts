import { expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import type { LedgerReading } from '../metering/ledger-audit.ts'
import { totalTokens } from '../metering/usage-event.ts'
import { auditBooks } from './audit.ts'
import { type Books, compareBooks } from './books.ts'

const event = usageEvent({ startMs: Date.UTC(2026, 10, 30, 23, 59, 59, 999) })
const tokens = totalTokens(event.tokens)
const scope = { consumerId: event.consumerId, serviceId: event.serviceId, month: '2026-11' }

const emptyLedger: LedgerReading = {
  sums: [],
  repeatedIds: [],
  quarantined: [],
  quarantinedUnreadable: 0,
  recorded: new Set(),
  attempts: new Map(),
}

function books(limits: Partial<Books['limits']>, ledger: Partial<LedgerReading> = {}, month?: string): Books {
  return {
    month,
    limits: { counters: [], reservations: [], events: [], unreadable: 0, ...limits },
    ledger: { ...emptyLedger, ...ledger },
    backends: undefined,
  }
}

const counters = [{ ...scope, tokens }]
const kinds = (compared: Books): string[] => compareBooks(compared).findings.map(({ kind }) => kind)

test('a call is counted once wherever it is on its way from reservation to ledger', () => {
  const holds = [{ ...scope, tokens }]
  const sums = {
    ...{ ...scope, currency: 'USD', wrongRows: 0, ledgerRecords: 1, ledgerTokens: tokens, ledgerCostNanos: 1 },
    ...{ rollupRecords: 1, rollupTokens: tokens, rollupCostNanos: 1 },
  }
  const logged = { event, acknowledged: false }
  const recorded = new Set([event.id])
  expect(kinds(books({ counters, reservations: [{ event, holds }] }))).toEqual([])
  expect(kinds(books({ counters, events: [logged] }))).toEqual([])
  expect(kinds(books({ counters, events: [logged, logged] }))).toEqual([])
  expect(kinds(books({ counters, events: [logged] }, { sums: [sums], recorded }))).toEqual([])
  expect(kinds(books({ counters, events: [{ event, acknowledged: true }] }, { sums: [sums], recorded }))).toEqual([])
  expect(kinds(books({ counters }, { sums: [sums] }))).toEqual([])
  expect(kinds(books({ counters }, { quarantined: [event] }))).toEqual([])
  expect(kinds(books({ counters }))).toEqual(['counter'])
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
  const limits = { counters: [{ ...scope, tokens: 5 }], events: [{ event, acknowledged: false }] }
  expect(compareBooks(books(limits, {}, '2026-12'))).toMatchObject({ scopes: [], findings: [] })
  expect(kinds(books(limits, {}, '2026-11'))).toEqual(['counter'])
})

const off = (by: number): Books => books({ counters: [{ ...scope, tokens: by }] })

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
