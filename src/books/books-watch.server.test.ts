import pino from 'pino'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import type { LedgerReading } from '../metering/ledger-audit.ts'
import type { Books } from './books.ts'
import { type BooksWatch, watchBooks } from './books-watch.ts'

const ledger: LedgerReading = {
  sums: [],
  repeatedIds: [],
  quarantined: [],
  quarantinedUnreadable: 0,
  recorded: new Set(),
  attempts: new Map(),
}

let postgres: PostgresServer

beforeAll(async () => {
  postgres = await startPostgresServer()
})
afterAll(() => postgres?.stop())

/** Watches books in which these counters say something that the ledger does not know of. */
function watch(counters: { key: string; used: number }[], repaired: string[] = []): BooksWatch {
  const books = watchBooks({
    sql: postgres.sql,
    read: async (month): Promise<Books> => {
      const limits = { counters: counters.map((counter) => ({ ...counter, held: 0 })), reservations: [], events: [] }
      return { month, limits: { ...limits, unreadable: 0 }, ledger, backends: undefined }
    },
    repair: async (keys) => {
      repaired.push(...keys)
      counters.length = 0
    },
    log: pino({ level: 'silent' }),
    now: Date.now,
    everyMs: 250,
    pauseMs: 1,
  })
  onTestFinished(() => books.stop())
  return books
}

test('a counter that differs shows in the figures, and is read anew from the ledger', async () => {
  const key = `tokens_per_month|consumer:c||${new Date().toISOString().slice(0, 7)}`
  const repaired: string[] = []
  const seen: number[] = []
  const books = watch([{ key, used: 7 }], repaired)
  await eventually(() => {
    const state = books.state()
    if (state !== undefined && seen.at(-1) !== state.difference) seen.push(state.difference)
    return seen.at(-1) === 0
  })
  expect(seen).toEqual([7, 0])
  expect(repaired).toEqual([key])
})

test('one replica audits at a time, and another takes over when it is gone', async () => {
  const first = watch([])
  await eventually(() => first.state() !== undefined)
  const second = watch([])
  const at = first.state()?.checkedAtMs ?? 0
  await eventually(() => (first.state()?.checkedAtMs ?? 0) > at + 100)
  expect(second.state()).toBeUndefined()
  await first.stop()
  await eventually(() => second.state() !== undefined)
})

test('stopping does not wait for an audit that does not end', async () => {
  const { promise: held, reject: release } = Promise.withResolvers<Books>()
  const { promise: reading, resolve: onReading } = Promise.withResolvers<void>()
  const warnings: string[] = []
  const books = watchBooks({
    sql: postgres.sql,
    read: () => {
      onReading()
      return held
    },
    repair: async () => {},
    log: { ...silentLog, warn: (_: object, text: string) => void warnings.push(text) },
    now: Date.now,
    stopTimeoutMs: 20,
  })
  await reading
  await books.stop()
  expect(warnings).toEqual(['stopped before the audit of the books was over'])
  release(new Error('given up'))
})
