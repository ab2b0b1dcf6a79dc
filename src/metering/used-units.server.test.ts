import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { correctionOf } from './correction.ts'
import { writeBatch, writeBatchIsolating } from './ledger.ts'
import { ensurePartitions } from './month-partitions.ts'
import { quarantine } from './quarantine.ts'
import { totalTokens, type UsageEvent } from './usage-event.ts'
import { type UsageScope, type UsedUnitsQuery, usedUnits } from './used-units.ts'

const timeout = 120_000
const month = { monthStartMs: Date.UTC(2026, 9, 1), monthEndMs: Date.UTC(2026, 10, 1) }
const inMonth = Date.UTC(2026, 9, 31, 23, 59, 59, 999)
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
  await ensurePartitions(server.sql, inMonth)
  await server.sql`alter table usage_records add constraint no_poison check (model <> 'poison')`
}, timeout)

afterAll(() => server?.stop(), timeout)

beforeEach(() => server.sql`truncate usage_records, usage_seen, usage_hourly, usage_quarantine`.then(() => {}))

const scope: UsageScope = { kind: 'consumer', id: 'consumer-a', serviceId: 'service-a' }

function used(changes: Partial<UsedUnitsQuery> = {}): Promise<number> {
  return usedUnits(server.sql, { scope, unit: 'tokens', waiting: [], ...month, ...changes })
}

/** 42 tokens and 1,234,567 nano-USD, in the last millisecond of the month. */
function event(changes: Partial<UsageEvent> = {}): UsageEvent {
  return usageEvent({ startMs: inMonth, ...changes })
}

test('sums what a scope used in the month, and nothing else', { timeout }, async () => {
  const others = [
    { consumerId: 'consumer-b' },
    { serviceId: 'service-b' },
    { keyId: 'key-b' },
    { organizationId: 'organization-b' },
    { currency: 'EUR' },
    { startMs: month.monthEndMs },
    { startMs: month.monthStartMs - 1 },
    { startMs: month.monthStartMs },
  ]
  const events = [event(), ...others.map(event)]
  // Each where an event can be: in the ledger, on its way, in quarantine.
  const places: ((waiting: UsageEvent[]) => Promise<unknown>)[] = [
    async () => {},
    () =>
      quarantine(
        server.sql,
        events.map((event) => ({ event, reason: 'test' })),
      ),
    () => writeBatch(server.sql, events),
  ]
  for (const put of places) {
    await put(events)
    const at = async (scope: UsageScope, unit: UsedUnitsQuery['unit'] = 'tokens'): Promise<number> => {
      const ofScope = (event: UsageEvent): boolean =>
        event[`${scope.kind}Id`] === scope.id && (scope.serviceId ?? event.serviceId) === event.serviceId
      return used({ scope, unit, waiting: events.filter(ofScope) })
    }
    expect(await at(scope)).toBe(5 * 42)
    expect(await at({ ...scope, serviceId: undefined })).toBe(6 * 42)
    expect(await at({ kind: 'organization', id: 'organization-a', serviceId: undefined })).toBe(6 * 42)
    expect(await at({ kind: 'key', id: 'key-b', serviceId: undefined })).toBe(42)
    expect(await at({ kind: 'service', id: 'service-a', serviceId: undefined })).toBe(6 * 42)
    expect(await at(scope, { currency: 'USD' })).toBe(4 * 1_234_567)
    expect(await at(scope, { currency: 'EUR' })).toBe(1_234_567)
    expect(await at({ ...scope, id: 'nobody' })).toBe(0)
  }
})

test('counts an event once while it moves from its log to ledger or quarantine', { timeout }, async () => {
  const events = Array.from({ length: 300 }, (_, n) => event({ model: n % 10 === 0 ? 'poison' : 'sound' }))
  const [first, second] = events.slice(1)
  if (first === undefined || second === undefined) throw new Error('no events')
  const corrections = [first, second].flatMap((record) => correctionOf(record, { ...record, costNanos: 1 }, randomUUID))
  const all = [...events, ...corrections]
  const total = all.reduce((sum, { tokens }) => sum + totalTokens(tokens), 0)
  const waiting = new Set(all)
  let isMoving = true
  const move = async (): Promise<void> => {
    for (let from = 0; from < all.length; from += 7) {
      // The last of a batch come again with the next one.
      const batch = all.slice(from, from + 10)
      await writeBatchIsolating(server.sql, batch)
      for (const moved of batch.slice(0, 7)) waiting.delete(moved)
    }
  }
  const seen: number[] = []
  const read = async (): Promise<void> => {
    while (isMoving) {
      seen.push(await used({ waiting: [...waiting] }))
    }
  }
  const readers = Promise.all([read(), read()])
  await move().finally(() => {
    isMoving = false
  })
  await readers
  expect(seen.length).toBeGreaterThan(20)
  expect(new Set(seen)).toEqual(new Set([total]))
  expect(waiting.size).toBe(0)
  expect(await used()).toBe(total)
})

test('an event that left quarantine for the ledger counts once before its entry is gone', { timeout }, async () => {
  const released = event()
  await quarantine(server.sql, [{ event: released, reason: 'test' }])
  await writeBatch(server.sql, [released])
  expect(await used({ waiting: [released] })).toBe(42)
})

test('what is no event, or counts nothing, adds nothing and breaks nothing', { timeout }, async () => {
  const damaged: UsageEvent[] = [
    JSON.parse('null'),
    JSON.parse('{"consumerId":"consumer-a","serviceId":"service-a"}'),
    event({ id: 'x' }),
    event({ organizationId: 'a\0b' }),
    event({ costNanos: 2 ** 60 }),
    event({ startMs: Number.NaN }),
    event({ requests: 0 }),
  ]
  await quarantine(
    server.sql,
    damaged.map((event) => ({ event, reason: 'test' })),
  )
  await server.sql`insert into usage_quarantine (digest, reason, event) values ('x', 'by hand', '{"no')`
  expect(await used({ waiting: damaged.slice(2) })).toBe(0)
})

test('a sum beyond what can be counted is the most that can', { timeout }, async () => {
  const most = event({ costNanos: Number.MAX_SAFE_INTEGER })
  await writeBatch(server.sql, [most, event({ costNanos: Number.MAX_SAFE_INTEGER })])
  expect(await used({ unit: { currency: 'USD' }, waiting: [event()] })).toBe(Number.MAX_SAFE_INTEGER)
})
