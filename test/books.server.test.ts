import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type Audit, auditBooks } from '../src/books/audit.ts'
import { readBooks } from '../src/books/read-books.ts'
import { encodeEvent } from '../src/limits/event-codec.ts'
import { periodKey } from '../src/limits/limit-keys.ts'
import { readRedisLimits } from '../src/limits/redis-audit.ts'
import { RedisKeys, usageGroup } from '../src/limits/redis-keys.ts'
import { type LedgerQuestion, readLedger } from '../src/metering/ledger-audit.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { readPracticeLog } from '../src/practice/log.ts'
import { connectRedis, type RedisClient } from '../src/storage/redis.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { scratchDir, spawnTollgate, startTollgate, type Tollgate } from './support/tollgate.ts'
import { usageEvent } from './support/usage-events.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const month = new Date().toISOString().slice(0, 7)

async function runBooks(env: Record<string, string>, ...args: string[]): Promise<{ code: number; text: string }> {
  const { child, output } = spawnTollgate(['books', ...args], env)
  const [code] = await once(child, 'close')
  return { code: Number(code), text: output() }
}

describe('tollgate books, on a real Postgres and a real Redis', () => {
  const keys = new RedisKeys()
  let folder: string
  let logPath: string
  let postgres: PostgresServer
  let server: RedisServer
  let redis: RedisClient
  let backend: PracticeBackend
  let tollgate: Tollgate
  let tenant: Tenant

  const env = () => ({
    DATABASE_URL: postgres.url,
    REDIS_URL: server.url,
    TOLLGATE_ADMIN_KEY: adminKey,
    BREAKER_FAILURES: '100',
  })
  const books = (...args: string[]) => runBooks(env(), ...args)
  /** Adds to what the counter of the consumer's tokens says was used. */
  const moveCounter = async (tokens: number) => {
    const scope = { kind: 'consumer', id: tenant.consumerId, serviceId: tenant.serviceId } as const
    const key = keys.limit(periodKey('tokens_per_month', scope, month))
    const [used, ...rest] = String(await redis.call('get', key)).split(' ')
    await redis.call('set', key, [Number(used) + tokens, ...rest].join(' '), 'KEEPTTL')
  }
  const streamKey = () => keys.usage()
  const call = (content: string, model?: string) =>
    tollgate
      .client(ConsumptionService, tenant.key)
      .routeRequest({ serviceId: tenant.serviceId, payload: chat(content, model) })

  /** Kind, expected and found of every difference. */
  async function differences(...args: string[]): Promise<[kind: string, difference: number][]> {
    const { code, text } = await books('--json', ...args)
    const audit: Audit & { verdict: string } = JSON.parse(text)
    expect(audit.moving).toEqual([])
    expect([code, audit.verdict]).toEqual(audit.differences.length > 0 ? [1, 'different'] : [0, 'balanced'])
    return audit.differences.map(({ kind, expected, found }) => [kind, found - expected])
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tollgate-books-'))
    logPath = join(folder, 'backend.jsonl')
    postgres = await startPostgresServer({ migrated: false })
    server = await startRedisServer()
    redis = await connectRedis({ url: server.url, log: pino({ level: 'silent' }) })
    backend = await startPracticeBackend({ logPath })
    tollgate = await startTollgate({ command: 'serve', env: env() })
    tenant = await makeTenant(tollgate, adminKey, 'books', `${backend.url}/v1/chat/completions`)
  })

  afterAll(async () => {
    await tollgate?.stop()
    await backend?.close()
    redis?.disconnect()
    await server?.stop()
    await postgres?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  test('balance after calls that went well and calls that did not, with the backend log as witness', async () => {
    for (const model of ['practice', 'practice:status=503', 'practice:missing-usage', 'practice:html']) {
      await Promise.allSettled(Array.from({ length: 4 }, (_, i) => call(`${model} ${i}`, model)))
    }
    const usage = tollgate.client(UsageService, tenant.key)
    await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({ pageSize: 1000 })
      return usageRecords.filter(({ requests }) => requests === 1).length >= 16
    })
    expect(await differences('--backend-log', logPath)).toEqual([])
    const { code, text } = await books('--month', month)
    expect(text).toContain('The books balance.')
    expect(code).toBe(0)
    expect((await books('--month', '2020-01')).text).toContain('records: 0')
  })

  test('never call a gate wrong that is being used', async () => {
    let running = true
    // Eight callers, each with a call open at nearly every moment.
    const load = Array.from({ length: 8 }, async (_, index) => {
      while (running) await call(`load ${index}`, 'practice:delay=20').catch(() => undefined)
    })
    try {
      // Three times, and on until one of them looked while calls were open, as nearly every one does.
      let open = 0
      for (let run = 0; run < 3 || (open === 0 && run < 12); run += 1) {
        const { code, text } = await books('--json', '--backend-log', logPath)
        const audit: Audit & { verdict: string } = JSON.parse(text)
        expect(audit.differences).toEqual([])
        expect([code, audit.verdict]).toEqual(audit.moving.length > 0 ? [2, 'moving'] : [0, 'balanced'])
        open += audit.counters[0]?.held ?? 0
      }
      expect(open).toBeGreaterThan(0)
    } finally {
      running = false
      await Promise.all(load)
    }
    await eventually(async () => (await books()).code === 0)
  })

  test('a call between two stores at every reading is moving, and wrong at none', async () => {
    const records = async (): Promise<number> => {
      const [row] = await postgres.sql<{ count: number }[]>`select count(*)::int8 as count from usage_records`
      return row?.count ?? 0
    }
    let calls = 0
    const stores = {
      async limits() {
        const reading = await readRedisLimits(redis)
        const before = await records()
        calls += 1
        await call(`between ${calls}`)
        await eventually(async () => (await records()) > before)
        return reading
      },
      ledger: (question: LedgerQuestion) => readLedger(postgres.sql, question),
    }
    const read = () => readBooks(stores, { month: undefined, backends: undefined })
    const audit = await auditBooks({ read, pause: async () => undefined, mostReadings: 4 })
    expect(audit).toMatchObject({ differences: [], readings: 4 })
    // The last call is in the ledger, and its tokens are in no counter that was read.
    const moved = audit.moving.map(({ kind, expected, found }) => [kind, Math.sign(found - expected)])
    expect(moved).toEqual([['counter', -1]])
    expect(calls).toBe(4)
    expect(await differences()).toEqual([])
  })

  test('an open reservation is what it holds, and its call is not lost when the gate dies', async () => {
    const answer = call('never answered', 'practice:silence').catch(() => undefined)
    await eventually(() => backend.stats().inFlight > 0)
    await tollgate.kill9()
    await answer
    expect(await differences('--backend-log', logPath)).toEqual([])
    const audit: Audit = JSON.parse((await books('--json')).text)
    expect(audit.counters[0]).toMatchObject({ used: audit.scopes[0]?.ledger, held: audit.counters[0]?.reserved })
    expect(audit.counters[0]?.held).toBeGreaterThan(0)
  })

  test('name a record that is gone: the rollup, the counter and the call are left over', async () => {
    await postgres.sql`create table kept as select * from usage_records
      where status = 'succeeded' and usage_source = 'provider' limit 1`
    const [record] = await postgres.sql<[{ id: string; tokens: number }]>`
      select id, input_tokens + output_tokens as tokens from kept`
    await postgres.sql`delete from usage_records where id = ${record.id}`
    expect((await differences('--backend-log', logPath)).sort()).toEqual([
      ['counter', record.tokens],
      ['lost', -record.tokens],
      ['rollup', record.tokens],
    ])
    const { code, text } = await books('--backend-log', logPath)
    expect(code).toBe(1)
    expect(text).toContain('3 differences in the books:')
    expect(text).toMatch(new RegExp(`call left no record .* ${record.id}`))
    await postgres.sql`insert into usage_records select * from kept`
    expect(await differences('--backend-log', logPath)).toEqual([])
  })

  test('name an event that is recorded twice', async () => {
    await postgres.sql`insert into usage_records (select (jsonb_populate_record(kept,
      jsonb_build_object('start_time', start_time + interval '1 millisecond'))).* from kept)`
    expect((await differences()).map(([kind]) => kind).sort()).toEqual(['counter', 'repeated', 'rollup'])
    await postgres.sql`delete from usage_records using kept
      where usage_records.id = kept.id and usage_records.start_time > kept.start_time`
    expect(await differences()).toEqual([])
  })

  test('name a rollup that was counted twice, also when only money or its histogram is wrong', async () => {
    await postgres.sql`update usage_hourly set requests = 2 * requests, input_tokens = input_tokens + 7`
    expect(await differences()).toContainEqual(['rollup', expect.any(Number)])
    await postgres.sql`update usage_hourly set requests = requests / 2, input_tokens = input_tokens - 7`
    await postgres.sql`update usage_hourly set cost_nanos = cost_nanos + 1 where cost_nanos > 0`
    expect(await differences()).toContainEqual(['rollup', 0])
    await postgres.sql`update usage_hourly set cost_nanos = cost_nanos - 1 where cost_nanos > 0`
    await postgres.sql`update usage_hourly set latencies = latencies + latency_histogram(7)`
    expect(await differences()).toContainEqual(['rollup', 0])
    await postgres.sql`update usage_hourly set latencies = latencies - latency_histogram(7)`
    expect(await differences()).toEqual([])
  })

  test('name a counter that moved on its own', async () => {
    await moveCounter(5)
    expect(await differences()).toEqual([['counter', 5]])
    await moveCounter(-5)
    expect(await differences()).toEqual([])
  })

  test('know an event on its way, and name it when it is dropped', async () => {
    const { organizationId, consumerId, serviceId } = tenant
    const tokens = { input: 30, cachedInput: 0, cacheWriteInput: 0, output: 12, reasoningOutput: 0 }
    const event = usageEvent({ organizationId, consumerId, serviceId, tokens })
    await moveCounter(42)
    const id = String(await redis.call('xadd', streamKey(), '*', 'event', encodeEvent(event)))
    expect(await differences()).toEqual([])
    await redis.call('xreadgroup', 'GROUP', usageGroup, 'reader', 'STREAMS', streamKey(), '>')
    expect(await differences()).toEqual([])
    await redis.call('xack', streamKey(), usageGroup, id)
    expect((await differences()).sort()).toEqual([
      ['counter', 42],
      ['dropped', -42],
    ])
    await redis.call('xdel', streamKey(), id)
    expect(await differences()).toEqual([['counter', 42]])
    // Quarantine holds what the ledger could not take: not lost, and not in the ledger.
    await postgres.sql`insert into usage_quarantine (digest, reason, event) values ('x', 'by hand', ${encodeEvent(event)})`
    expect(await differences()).toEqual([])
    await postgres.sql`delete from usage_quarantine`
    await moveCounter(-42)
  })

  test('name an entry of the usage log that is no event', async () => {
    const id = String(await redis.call('xadd', streamKey(), '*', 'event', 'nonsense'))
    expect(await differences()).toEqual([['unreadable', 1]])
    await redis.call('xdel', streamKey(), id)
  })

  test('name what record and backend do not agree on', async () => {
    const lines = (await readFile(logPath, 'utf8')).trimEnd().split('\n')
    const index = readPracticeLog(logPath).findIndex(({ outcome }) => outcome === 'served')
    const served = readPracticeLog(logPath)[index]
    const other = join(folder, 'other.jsonl')
    const against = async (changed: readonly string[]) => {
      await writeFile(other, `${changed.join('\n')}\n`)
      return differences('--backend-log', other)
    }
    const { usage } = served ?? {}
    if (served === undefined || usage === null || usage === undefined) throw new Error('no call was served')
    expect(await against(lines.toSpliced(index, 1))).toEqual([['phantom', expect.any(Number)]])
    const more = { ...served, usage: { ...usage, completionTokens: usage.completionTokens + 3 } }
    expect(await against(lines.with(index, JSON.stringify(more)))).toEqual([['tokens', -3]])
    const again = { ...served, seq: 1_000_000 }
    expect(await against([...lines, JSON.stringify(again)])).toEqual([['called_again', 1]])
  })

  test('say with 2 what could not be read, and what to do', async () => {
    expect(await books('--backend-log', join(folder, 'nothing.jsonl'))).toMatchObject({
      code: 2,
      text: expect.stringContaining('does not exist: give the file'),
    })
    expect(await books('--month', '2026-13')).toMatchObject({ code: 2, text: expect.stringContaining('YYYY-MM') })
    const empty = { ...env(), DATABASE_URL: postgres.url.replace('/tollgate?', '/postgres?') }
    if (empty.DATABASE_URL !== postgres.url) {
      expect(await runBooks(empty)).toMatchObject({ code: 2, text: expect.stringContaining('tollgate migrate') })
    }
    await server.kill9()
    expect(await books()).toMatchObject({ code: 2, text: expect.stringContaining('Check REDIS_URL') })
  })
})

test('tollgate books reads embedded stores while the gate is stopped, and says so while it runs', async () => {
  const dataDir = await scratchDir()
  const env = { TOLLGATE_DATA_DIR: dataDir }
  const logPath = join(dataDir, 'backend.jsonl')
  const backend = await startPracticeBackend({ logPath })
  const tollgate = await startTollgate({ command: 'serve', dataDir, env: { TOLLGATE_ADMIN_KEY: adminKey } })
  try {
    const { serviceId, key } = await makeTenant(tollgate, adminKey, 'embedded', `${backend.url}/v1/chat/completions`)
    await tollgate.client(ConsumptionService, key).routeRequest({ serviceId, payload: chat('hello') })
    expect(await runBooks(env)).toMatchObject({ code: 2, text: expect.stringContaining('stop it first') })
    await tollgate.terminate()
    const { code, text } = await runBooks(env, '--backend-log', logPath)
    expect(text).toContain('records: 1;')
    expect(text).toContain('The books balance.')
    expect(code).toBe(0)
  } finally {
    await tollgate.stop()
    await backend.close()
    await rm(dataDir, { recursive: true, force: true })
  }
})
