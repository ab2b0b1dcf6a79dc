import { once } from 'node:events'
import type { Worker } from 'node:worker_threads'
import pino from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { admission, settlement } from '../limits/conformance-support.ts'
import { LocalFolders } from '../limits/local-support.ts'
import { createDrain } from './drain.ts'
import { LedgerThread, type LedgerThreadOptions } from './ledger-thread.ts'
import { ensurePartitions } from './month-partitions.ts'

const timeout = 120_000
const folders = new LocalFolders()
let server: PostgresServer
let ledger: LedgerThread | undefined
/** Each thread that a test's ledger was. */
let threads: Worker[] = []

function note(worker: Worker): void {
  threads.push(worker)
}

beforeAll(async () => {
  server = await startPostgresServer({ owned: true })
  await ensurePartitions(server.sql, Date.now())
}, timeout)

afterAll(() => server?.stop(), timeout)

beforeEach(async () => {
  threads = []
  process.on('worker', note)
  await server.sql`truncate usage_records, usage_seen, usage_hourly, usage_quarantine`
})

afterEach(async () => {
  process.off('worker', note)
  await ledger?.close()
  await folders.clear()
}, timeout)

async function begin(changes: Partial<LedgerThreadOptions> = {}): Promise<LedgerThread> {
  const { target } = server
  const common = { target, applicationName: 'ledger-thread', maxConnections: 2, log: silentLog }
  ledger = await LedgerThread.start({ ...common, ...changes })
  return ledger
}

async function ledgerIds(): Promise<string[]> {
  const rows = await server.sql<{ id: string }[]>`select id from usage_records order by id`
  return rows.map(({ id }) => id)
}

test('every settled call is in the ledger once, however often the thread is killed meanwhile', {
  timeout,
}, async () => {
  const writer = await begin({ restartMinMs: 1, restartMaxMs: 20 })
  const limits = await folders.start(await folders.make())
  const log = pino({ level: 'silent' })
  const drain = createDrain({ usageLog: limits.usageLog, ledger: writer, log, batchMax: 50, retryMaxMs: 50 })
  drain.start()
  const ids: string[] = []
  let isOver = false
  const callers = Array.from({ length: 8 }, async () => {
    while (!isOver) {
      const call = admission([], { ifAbandoned: usageEvent() })
      await limits.admit(call)
      await limits.settle(settlement(call, []))
      ids.push(call.ifAbandoned.id)
    }
  })
  for (let kill = 0; kill < 8; kill++) {
    const { written } = drain.state()
    await expect.poll(() => drain.state().written, { timeout: 30_000, interval: 1 }).toBeGreaterThan(written)
    await threads.at(-1)?.terminate()
  }
  isOver = true
  await Promise.all(callers)
  expect(await drain.drained(60_000)).toBe(true)
  await drain.stop()
  expect(threads.length).toBeGreaterThan(8)
  expect(await ledgerIds()).toEqual(ids.toSorted())
  expect(drain.state().failing).toBeUndefined()
})

test('while the thread is away, that is what is wrong, and what it was asked to write is asked for again', {
  timeout,
}, async () => {
  const errors: string[] = []
  const log = { ...silentLog, error: (_: object, text: string) => errors.push(text) }
  const writer = await begin({ restartMinMs: 60_000, log })
  await threads[0]?.terminate()
  expect(writer.failing()).toMatch(/^the thread that writes the ledger ended/)
  await expect(writer.write([usageEvent()])).rejects.toThrow(/the thread that writes the ledger ended/)
  expect(errors).toEqual(['the thread that writes the ledger ended; it is begun again'])
})

test('a batch that is being written when the thread ends is rejected', { timeout }, async () => {
  const writer = await begin()
  await server.sql.begin(async (tx) => {
    await tx`lock table usage_seen in access exclusive mode`
    const writing = writer.write([usageEvent()])
    const rejected = expect(writing).rejects.toThrow(/the thread that writes the ledger ended/)
    await threads[0]?.terminate()
    await rejected
  })
})

test('says in the log of the process what happens to its connections', { timeout }, async () => {
  const lines: string[] = []
  const log = { ...silentLog, info: (fields: object, text: string) => lines.push(`${text} ${Object.keys(fields)}`) }
  const writer = await begin({ log })
  await writer.write([usageEvent()])
  await server.kill9()
  await server.restart()
  await expect.poll(() => lines, { timeout: 30_000 }).toContain('lost a connection to postgres reason')
})

test('writes what it was given before it ends, and nothing after that', { timeout }, async () => {
  const writer = await begin()
  const events = Array.from({ length: 500 }, () => usageEvent())
  const ended = threads[0] === undefined ? undefined : once(threads[0], 'exit')
  const writing = writer.write(events)
  await writer.close()
  await ended
  expect(await writing).toMatchObject({ written: 500 })
  await expect(writer.write(events)).rejects.toThrow(/closed/)
  expect(writer.failing()).toBeUndefined()
})
