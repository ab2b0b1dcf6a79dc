import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { MemoryUsageLog, usageEvent } from '../../test/support/usage-events.ts'
import { createDrain, type Drain, type DrainOptions } from './drain.ts'
import { writeBatch } from './ledger.ts'
import { LedgerThread } from './ledger-thread.ts'
import { ensurePartitions } from './month-partitions.ts'
import type { UsageEvent } from './usage-event.ts'

const timeout = 120_000
let server: PostgresServer
let ledger: LedgerThread
let usageLog: MemoryUsageLog
const drains: Drain[] = []

beforeAll(async () => {
  server = await startPostgresServer({ owned: true })
  await ensurePartitions(server.sql, Date.now())
  const { target } = server
  ledger = await LedgerThread.start({
    target,
    applicationName: 'drain',
    maxConnections: 3,
    stream: undefined,
    log: silentLog,
  })
}, timeout)

afterAll(async () => {
  await ledger?.close()
  await server?.stop()
}, timeout)

beforeEach(async () => {
  usageLog = new MemoryUsageLog()
  await server.sql`truncate usage_records, usage_seen, usage_hourly, usage_quarantine`
})

afterEach(async () => {
  for (const drain of drains.splice(0)) await drain.stop()
}, timeout)

function drainOf(options: Partial<DrainOptions> = {}): Drain {
  const drain = createDrain({
    usageLog,
    ledger,
    log: silentLog,
    retryMaxMs: 100,
    sweepEveryMs: 20,
    ...options,
  })
  drains.push(drain)
  return drain
}

function someEvents(count: number): UsageEvent[] {
  return Array.from({ length: count }, (_, n) => usageEvent({ consumerId: `consumer-${n % 5}`, costNanos: n }))
}

/** Counts what readers of the log hold, and how many read at once, from now on. */
function watchReads(): { readonly held: number; readonly mostHeld: number; readonly mostAtOnce: number } {
  const counts = { held: 0, mostHeld: 0, mostAtOnce: 0 }
  const read = usageLog.read.bind(usageLog)
  const acknowledge = usageLog.acknowledge.bind(usageLog)
  let readers = 0
  usageLog.read = async (...args) => {
    readers += 1
    counts.mostAtOnce = Math.max(counts.mostAtOnce, readers)
    const batch = await read(...args).finally(() => {
      readers -= 1
    })
    counts.held += batch.size
    counts.mostHeld = Math.max(counts.mostHeld, counts.held)
    return batch
  }
  usageLog.acknowledge = async (entries) => {
    await acknowledge(entries)
    counts.held -= entries.length
  }
  return counts
}

/** Ids in the ledger; also checks that the rollup agrees. */
async function ledgerIds(): Promise<string[]> {
  const rows = await server.sql<{ id: string }[]>`select id from usage_records order by id`
  const [rollup] = await server.sql`
    select coalesce(sum(requests), 0)::int8 as requests,
      coalesce(sum(cost_nanos), 0)::int8 = (select coalesce(sum(cost_nanos), 0) from usage_records) as agrees
    from usage_hourly`
  expect(rollup).toEqual({ requests: rows.length, agrees: true })
  return rows.map((row) => row.id)
}

function idsOf(events: readonly UsageEvent[]): string[] {
  return events.map((event) => event.id).toSorted()
}

test('carries the log to the ledger in batches, and acknowledges what is committed', { timeout }, async () => {
  const events = someEvents(25)
  usageLog.append(...events)
  const sizes: number[] = []
  const drain = drainOf({ batchMax: 10, onBatch: (result) => sizes.push(result.written) })
  expect([await drain.drainOnce(), await drain.drainOnce(), await drain.drainOnce(), await drain.drainOnce()]).toEqual([
    10, 10, 5, 0,
  ])
  expect(sizes).toEqual([10, 10, 5])
  expect(await ledgerIds()).toEqual(idsOf(events))
  expect(await usageLog.backlog()).toBe(0)
  expect(drain.state()).toMatchObject({ written: 25, duplicates: 0, failing: undefined })
  expect(drain.state().lastWriteMs).toBeGreaterThan(0)
})

test('what a crashed reader had written but not acknowledged is in the ledger once', { timeout }, async () => {
  const events = someEvents(30)
  usageLog.append(...events)
  const half = await usageLog.read(15, 0, AbortSignal.timeout(timeout))
  await writeBatch(server.sql, half.events())
  usageLog.abandon()

  const drain = drainOf()
  drain.start()
  expect(await drain.drained()).toBe(true)
  expect(await ledgerIds()).toEqual(idsOf(events))
  expect(drain.state()).toMatchObject({ written: 15, duplicates: 15 })
})

test('writes two batches at the same time and holds no third, and reads one after the other', { timeout }, async () => {
  const events = someEvents(100)
  usageLog.append(...events)
  const reads = watchReads()
  const writing = () => server.sql<{ count: number }[]>`
    select count(*)::int as count from pg_locks
    where relation = 'usage_records'::regclass and mode = 'RowExclusiveLock' and not granted`
  await server.sql.begin(async (tx) => {
    await tx`lock table usage_records in share mode`
    drainOf({ batchMax: 10 }).start()
    await expect.poll(writing, { timeout: 30_000 }).toEqual([{ count: 2 }])
    expect(reads.held).toBe(20)
  })
  await expect.poll(async () => usageLog.backlog(), { timeout: 30_000 }).toBe(0)
  expect(await ledgerIds()).toEqual(idsOf(events))
  expect(reads).toMatchObject({ held: 0, mostHeld: 20, mostAtOnce: 1 })
})

test('a lane that cannot acknowledge holds up no other, and its batch is in the ledger once after a crash', {
  timeout,
}, async () => {
  const events = someEvents(95)
  usageLog.append(...events)
  const acknowledge = usageLog.acknowledge.bind(usageLog)
  usageLog.acknowledge = async (entries) => {
    if (entries.some(({ position }) => position === '1')) throw new Error('the log is away')
    await acknowledge(entries)
  }
  const drain = drainOf({ batchMax: 10, stopTimeoutMs: 500 })
  drain.start()
  await expect.poll(async () => usageLog.backlog(), { timeout: 30_000 }).toBe(10)
  expect(drain.state()).toMatchObject({ written: 95, duplicates: 0, failing: 'the log is away' })
  await drain.stop()

  usageLog.acknowledge = acknowledge
  usageLog.abandon()
  const next = drainOf({ batchMax: 10 })
  next.start()
  expect(await next.drained()).toBe(true)
  expect(next.state()).toMatchObject({ written: 0, duplicates: 10 })
  expect(await ledgerIds()).toEqual(idsOf(events))
})

test('while Postgres is away each lane holds one batch and reads no other, and then all of it arrives once', {
  timeout,
}, async () => {
  const reads = watchReads()
  const drain = drainOf({ batchMax: 10, lanes: 3 })
  await server.shutDown()
  const events = someEvents(100)
  usageLog.append(...events)
  drain.start()
  await expect.poll(() => reads.held, { timeout: 30_000 }).toBe(30)
  await expect.poll(() => drain.state(), { timeout: 30_000 }).toMatchObject({ written: 0, backlog: 100 })
  await server.restart()
  expect(await drain.drained()).toBe(true)
  expect(await ledgerIds()).toEqual(idsOf(events))
  expect(drain.state()).toMatchObject({ written: 100, duplicates: 0, failing: undefined })
  expect(reads).toMatchObject({ held: 0, mostHeld: 30 })
})

test('stop flushes what the log still holds', { timeout }, async () => {
  const drain = drainOf({ batchMax: 7 })
  drain.start()
  const events = someEvents(40)
  usageLog.append(...events)
  await drain.stop()
  expect(await ledgerIds()).toEqual(idsOf(events))
})

test('an orderly outage: the drain says so, keeps everything, and catches up', { timeout }, async () => {
  const drain = drainOf()
  drain.start()
  const before = someEvents(5)
  usageLog.append(...before)
  expect(await drain.drained()).toBe(true)

  await server.shutDown()
  const during = someEvents(50)
  usageLog.append(...during)
  await expect.poll(() => drain.state().failing, { timeout: 30_000 }).toBeTypeOf('string')
  await expect.poll(() => drain.state().backlog, { timeout: 30_000 }).toBe(50)

  await server.restart()
  expect(await drain.drained()).toBe(true)
  expect(await ledgerIds()).toEqual(idsOf([...before, ...during]))
  expect(drain.state()).toMatchObject({ written: 55, failing: undefined })
})

test('kill -9 of Postgres between and amid batches: each event is in the ledger exactly once', {
  timeout,
}, async () => {
  const drain = drainOf({ batchMax: 200 })
  drain.start()
  const events: UsageEvent[] = []
  for (let round = 0; round < 4; round++) {
    const some = someEvents(3_000)
    events.push(...some)
    const written = drain.state().written
    usageLog.append(...some)
    await expect.poll(() => drain.state().written, { timeout: 30_000, interval: 1 }).toBeGreaterThan(written)
    await server.kill9()
    await server.restart()
  }
  expect(await drain.drained(60_000)).toBe(true)
  expect(await ledgerIds()).toEqual(idsOf(events))
})

test('stop during an outage ends in time, and the log keeps its entries', { timeout }, async () => {
  const drain = drainOf({ batchMax: 2, stopTimeoutMs: 500 })
  drain.start()
  await server.shutDown()
  const events = someEvents(5)
  usageLog.append(...events)
  await expect.poll(() => drain.state().failing, { timeout: 30_000 }).toBeTypeOf('string')
  await drain.stop()
  expect(await usageLog.backlog()).toBe(5)
  await server.restart()
  usageLog.abandon()
  const next = drainOf()
  await next.drainOnce()
  expect(await ledgerIds()).toEqual(idsOf(events))
})

test('a bad event goes to quarantine and holds up nobody', { timeout }, async () => {
  await server.sql`alter table usage_records add constraint no_poison check (model <> 'poison')`
  const sound = someEvents(20)
  usageLog.append(...sound.slice(0, 9), usageEvent({ model: 'poison' }), usageEvent({ id: 'none' }), ...sound.slice(9))
  const drain = drainOf()
  await drain.drainOnce()
  await server.sql`alter table usage_records drop constraint no_poison`
  expect(await usageLog.backlog()).toBe(0)
  expect(drain.state()).toMatchObject({ written: 20, quarantined: 2 })
  expect(await ledgerIds()).toEqual(idsOf(sound))
})

test('a failing usage log is a failing drain, and no crash', { timeout }, async () => {
  let isBroken = true
  const read = usageLog.read.bind(usageLog)
  usageLog.read = async (...args) => {
    if (isBroken) throw new Error('the log is away')
    return read(...args)
  }
  const drain = drainOf()
  drain.start()
  await expect.poll(() => drain.state().failing).toBe('the log is away')
  isBroken = false
  await expect.poll(() => drain.state().failing, { timeout: 30_000 }).toBeUndefined()
})

test('an acknowledgement that fails is repeated without writing again', { timeout }, async () => {
  usageLog.append(...someEvents(4))
  const acknowledge = usageLog.acknowledge.bind(usageLog)
  usageLog.acknowledge = async () => {
    usageLog.acknowledge = acknowledge
    throw new Error('the log is away')
  }
  const drain = drainOf()
  await expect(drain.drainOnce()).rejects.toThrow('the log is away')
  expect(await drain.drainOnce()).toBe(4)
  expect(drain.state()).toMatchObject({ written: 4, duplicates: 0 })
  expect(await usageLog.backlog()).toBe(0)
})

test('sweeps abandoned reservations while it runs', { timeout }, async () => {
  drainOf().start()
  await expect.poll(() => usageLog.sweeps, { timeout: 30_000 }).toBeGreaterThan(2)
})
