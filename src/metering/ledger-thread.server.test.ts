import { once } from 'node:events'
import type { Worker } from 'node:worker_threads'
import pino from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { type RedisServer, startRedisServer } from '../../test/support/redis-server.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { admission, settlement } from '../limits/conformance-support.ts'
import type { Limits } from '../limits/limits.ts'
import { LocalFolders } from '../limits/local-support.ts'
import { createRedisLimits } from '../limits/redis-limits.ts'
import { connectRedis } from '../storage/redis.ts'
import { createDrain } from './drain.ts'
import { batchOf } from './event-batch.ts'
import { LedgerThread, type LedgerThreadOptions } from './ledger-thread.ts'
import { ensurePartitions } from './month-partitions.ts'
import { createThreadDrain } from './thread-drain.ts'

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
  const common = { target, applicationName: 'ledger-thread', maxConnections: 2, stream: undefined, log: silentLog }
  ledger = await LedgerThread.start({ ...common, ...changes })
  return ledger
}

/** Eight callers that call until the end; that returns the ids of what was settled. */
function underLoad(limits: Limits): { end(): Promise<string[]> } {
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
  return {
    async end() {
      isOver = true
      await Promise.all(callers)
      return ids
    },
  }
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
  const calls = underLoad(limits)
  for (let kill = 0; kill < 8; kill++) {
    const { written } = drain.state()
    await expect.poll(() => drain.state().written, { timeout: 30_000, interval: 1 }).toBeGreaterThan(written)
    await threads.at(-1)?.terminate()
  }
  const ids = await calls.end()
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
  await expect(writer.write(batchOf([usageEvent()]))).rejects.toThrow(/the thread that writes the ledger ended/)
  expect(errors).toEqual(['the thread that writes the ledger ended; it is begun again'])
})

test('a batch that is being written when the thread ends is rejected', { timeout }, async () => {
  const writer = await begin()
  await server.sql.begin(async (tx) => {
    await tx`lock table usage_seen in access exclusive mode`
    const writing = writer.write(batchOf([usageEvent()]))
    const rejected = expect(writing).rejects.toThrow(/the thread that writes the ledger ended/)
    await threads[0]?.terminate()
    await rejected
  })
})

test('says in the log of the process what happens to its connections', { timeout }, async () => {
  const lines: string[] = []
  const log = { ...silentLog, info: (fields: object, text: string) => lines.push(`${text} ${Object.keys(fields)}`) }
  const writer = await begin({ log })
  await writer.write(batchOf([usageEvent()]))
  await server.kill9()
  await server.restart()
  await expect.poll(() => lines, { timeout: 30_000 }).toContain('lost a connection to postgres reason')
})

test('writes what it was given before it ends, and nothing after that', { timeout }, async () => {
  const writer = await begin()
  const events = Array.from({ length: 500 }, () => usageEvent())
  const ended = threads[0] === undefined ? undefined : once(threads[0], 'exit')
  const writing = writer.write(batchOf(events))
  await writer.close()
  await ended
  expect(await writing).toMatchObject({ written: 500 })
  await expect(writer.write(batchOf(events))).rejects.toThrow(/closed/)
  expect(writer.failing()).toBeUndefined()
})

describe('a thread that drains Redis', () => {
  let redisServer: RedisServer

  beforeAll(async () => {
    redisServer = await startRedisServer()
  }, timeout)

  afterAll(() => redisServer?.stop(), timeout)

  test('has every settled call in the ledger once, however often it is killed, and leaves the log empty', {
    timeout,
  }, async () => {
    const { url } = redisServer
    const redis = await connectRedis({ url, log: silentLog })
    const stream = { url, commandTimeoutMs: 1_000, instanceId: 'gate' }
    const thread = await begin({ stream, restartMinMs: 1, restartMaxMs: 20 })
    const log = pino({ level: 'silent' })
    const onAppend = (): void => thread.nudge()
    const limits = await createRedisLimits({ redis, instanceId: 'gate', seed: async () => 0, log, onAppend })
    const drain = createThreadDrain({ usageLog: limits.usageLog, thread, log, sweepEveryMs: 20 })
    drain.start()
    const calls = underLoad(limits)
    for (let kill = 0; kill < 4; kill++) {
      const { written } = drain.state()
      await expect.poll(() => drain.state().written, { timeout: 30_000, interval: 1 }).toBeGreaterThan(written)
      await threads.at(-1)?.terminate()
    }
    const ids = await calls.end()
    expect(await drain.drained(60_000)).toBe(true)
    await expect.poll(() => drain.state().failing).toBeUndefined()
    await drain.stop()
    expect(await ledgerIds()).toEqual(ids.toSorted())
    await thread.close()
    await limits.close()
    // The readers that were killed hold nothing any more; a day later they are forgotten.
    expect(await redis.xpending('tg:{limits}:usage', 'ledger')).toEqual([0, null, null, null])
    redis.disconnect()
  })

  test('says what is wrong while Redis is away, and goes on when it is back', { timeout }, async () => {
    const { url } = redisServer
    const redis = await connectRedis({ url, log: silentLog })
    const thread = await begin({ stream: { url, commandTimeoutMs: 500, instanceId: 'gate' } })
    const log = pino({ level: 'silent' })
    const limits = await createRedisLimits({ redis, instanceId: 'gate', seed: async () => 0, log })
    const drain = createThreadDrain({ usageLog: limits.usageLog, thread, log, sweepEveryMs: 20 })
    drain.start()
    await expect.poll(() => thread.drained().isConnected, { timeout: 30_000 }).toBe(true)
    await redisServer.kill9()
    await expect.poll(() => thread.drained().isConnected, { timeout: 30_000 }).toBe(false)
    await expect.poll(() => drain.state().failing, { timeout: 30_000 }).toBeTypeOf('string')
    await redisServer.restart()
    await expect.poll(() => redis.status, { timeout: 30_000 }).toBe('ready')
    const call = admission([], { ifAbandoned: usageEvent() })
    await limits.admit(call)
    await limits.settle(settlement(call, []))
    expect(await drain.drained(60_000)).toBe(true)
    await expect.poll(() => drain.state().failing, { timeout: 30_000 }).toBeUndefined()
    await drain.stop()
    expect(await ledgerIds()).toEqual([call.ifAbandoned.id])
    await limits.close()
    redis.disconnect()
  })
})
