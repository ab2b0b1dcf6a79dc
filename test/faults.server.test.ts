/**
 * Tries to lose and to double money: real processes are killed, stopped and restarted under load, and afterwards the
 * ledger is compared with what callers were told and with what the backend itself wrote down.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { startEmbeddedPostgres } from '../src/storage/embedded-postgres.ts'
import { connectPostgres, type Sql } from '../src/storage/postgres.ts'
import { type Books, doubled, overcharged, readBooks, unbalanced, unpaid, unrecorded } from './support/audit.ts'
import { eventually } from './support/eventually.ts'
import { type Load, type LoadOptions, random, startLoad } from './support/load.ts'
import { type PostgresServer, silentLog, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'

const seed = Number(process.env.TOLLGATE_TEST_SEED ?? Date.now() % 1_000_000_000)
const adminKey = 'an-administrator-key-for-tests-only-0003'
const perToken = { inputNanosPerMillion: 500_000_000n, outputNanosPerMillion: 1_500_000_000n }

/** A consumer, and a backend of its own whose log is the oracle. */
interface Party {
  readonly tenant: Tenant
  readonly backend: PracticeBackend
  readonly log: string
  readonly load: Load
}

/** Makes a party and puts it under load. */
async function startParty(
  name: string,
  folder: string,
  tollgate: Tollgate,
  load: Pick<LoadOptions, 'gateway' | 'timeoutMs'>,
): Promise<Party> {
  const log = join(folder, `${name}.jsonl`)
  const backend = await startPracticeBackend({ logPath: log })
  const url = `${backend.url}/v1/chat/completions`
  const plenty = { requestsPerSecond: 100_000n, requestBurst: 100_000n, tokensPerMonth: 1_000_000_000n }
  const tenant = await makeTenant(tollgate, adminKey, name, url, plenty, { case: 'perToken', value: perToken })
  return { tenant, backend, log, load: startLoad({ seed, tenant, ...load }) }
}

const booksOf = (sql: Sql, { tenant, log }: Party): Promise<Books> => readBooks(sql, tenant.consumerId, log)

/** What is wrong when everything has come to rest: each line is money lost, doubled or taken for nothing. */
async function wrongs(sql: Sql, party: Party): Promise<string[]> {
  const books = await booksOf(sql, party)
  const { answers, failures } = party.load
  const calls = answers.length + failures.length
  const surplus = books.records.length > calls ? [`${books.records.length} records of ${calls} calls`] : []
  const missing = [...unrecorded(answers, books), ...unpaid(books)]
  return [...doubled(books), ...missing, ...overcharged(books), ...surplus, ...(await unbalanced(sql))]
}

/** Waits until the probe finds nothing; tells what is left when time is up. */
async function empty(probe: () => Promise<string[]>): Promise<void> {
  let left: string[] = []
  const check = async (): Promise<boolean> => {
    left = await probe()
    return left.length === 0
  }
  await eventually(check, { what: () => `nothing to be left of this:\n${left.join('\n')}` })
}

async function tokensOf(sql: Sql, party: Party): Promise<number> {
  const { records } = await booksOf(sql, party)
  return records.reduce((sum, record) => sum + record.tokens, 0)
}

async function usedOf(tollgate: Tollgate, { tenant }: Party): Promise<number> {
  const { used } = await tollgate.client(ConsumptionService, tenant.key).checkQuota({ serviceId: tenant.serviceId })
  return Number(used)
}

async function answered(load: Load, count: number): Promise<void> {
  const what = () => `${count} answers; ${load.answers.length} so far, last failure ${load.failures.at(-1)?.error}`
  await eventually(() => load.answers.length >= count, { what })
}

/** Answers that come from now on. */
const more = (load: Load, count: number): Promise<void> => answered(load, load.answers.length + count)

describe(`tollgate serve, seed ${seed}`, () => {
  const parties = new Map<string, Party>()
  let folder: string
  let postgres: PostgresServer
  let redis: RedisServer
  let tollgate: Tollgate
  let current: Promise<Tollgate>

  const start = (redisTimeoutMs = 5_000): Promise<Tollgate> =>
    startTollgate({
      command: 'serve',
      env: {
        DATABASE_URL: postgres.url,
        REDIS_URL: redis.url,
        // Long where a fault is not about it: a busy machine is none.
        REDIS_COMMAND_TIMEOUT_MS: String(redisTimeoutMs),
        TOLLGATE_ADMIN_KEY: adminKey,
        BREAKER_FAILURES: '10000',
      },
    })

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tollgate-faults-'))
    postgres = await startPostgresServer({ migrated: false, owned: true })
    redis = await startRedisServer()
    tollgate = await start()
    current = Promise.resolve(tollgate)
  })

  afterAll(async () => {
    await tollgate?.stop()
    for (const { backend } of parties.values()) await backend.close()
    await redis?.stop()
    await postgres?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  /** Runs `faults` under load; afterwards what was answered must be in the ledger as it was told. */
  async function underLoad(
    name: string,
    faults: (load: Load, party: Party) => Promise<void>,
    timeoutMs?: number,
  ): Promise<void> {
    const options = timeoutMs === undefined ? {} : { timeoutMs }
    const party = await startParty(name, folder, tollgate, { gateway: () => current, ...options })
    const { load } = party
    parties.set(name, party)
    try {
      await answered(load, 40)
      await faults(load, party)
    } finally {
      await load.stop()
    }
    await empty(async () => unrecorded(load.answers, await booksOf(postgres.sql, party)))
  }

  async function abandoned(party: Party): Promise<string[]> {
    const { records } = await booksOf(postgres.sql, party)
    return records.filter(({ status }) => status === 'abandoned').map(({ requestId }) => requestId)
  }

  const unplanned = (load: Load): string[] =>
    load.failures.filter(({ isPlanned }) => !isPlanned).map(({ reason, error }) => `${reason} ${error.message}`)

  const health = async (): Promise<unknown> => {
    const body: unknown = await (await fetch(`${tollgate.address}/health/detailed`)).json()
    return typeof body === 'object' && body !== null && 'status' in body ? body.status : undefined
  }

  test('keeps what it answered when it is killed, alone and together with Redis', async () => {
    const next = random(seed)
    const kill = async (load: Load, party: Party): Promise<void> => {
      await more(load, 20 + Math.floor(next() * 60))
      current = tollgate.kill9().then(() => start())
      tollgate = await current
      await more(load, 20 + Math.floor(next() * 60))
      await redis.kill9()
      // Calls that were being served come back to a gate that can record nothing, and that then dies.
      await eventually(() => party.backend.stats().inFlight === 0)
      await eventually(() => load.failures.some(({ reason }) => reason === 'LIMITS_UNAVAILABLE'))
      current = tollgate.kill9().then(async () => {
        await redis.restart()
        return start()
      })
      tollgate = await current
      await more(load, 60)
    }
    // Short deadlines, because leases end 15 s after them.
    await underLoad('gateway-killed', kill, 2_000)
  })

  test('refuses calls while Redis is killed, loses nothing of it, and recovers by itself', async () => {
    await underLoad('redis-killed', async (load) => {
      await redis.kill9()
      await eventually(() => load.failures.some(({ reason }) => reason === 'LIMITS_UNAVAILABLE'))
      expect(await health()).toBe('down')
      // Calls that were served when it died are given up on; what they used is recorded later all the same.
      await eventually(() => tollgate.output().includes('usage could not be recorded'))
      await redis.restart()
      await more(load, 60)
      await eventually(async () => (await health()) === 'ok')
      for (const { reason, error, isPlanned } of load.failures) {
        if (!isPlanned) expect([reason, error.code]).toEqual(['LIMITS_UNAVAILABLE', Code.Unavailable])
      }
    })
  })

  test('answers every call while Postgres is killed, and the ledger catches up', async () => {
    await underLoad('postgres-killed', async (load) => {
      await postgres.kill9()
      await more(load, 100)
      expect(await health()).toBe('degraded')
      await postgres.restart()
      await more(load, 20)
      await eventually(async () => (await health()) === 'ok')
      expect(unplanned(load)).toEqual([])
    })
  })

  test('loses nothing when one of two replicas stands still for longer than it waits for Redis', async () => {
    const replica = await start(500)
    try {
      current = Promise.resolve(replica)
      await underLoad('gateway-stopped', async (load) => {
        const goOnMs = Date.now() + 2_000
        process.kill(replica.pid, 'SIGSTOP')
        try {
          await eventually(() => Date.now() >= goOnMs)
        } finally {
          process.kill(replica.pid, 'SIGCONT')
        }
        await more(load, 60)
      })
    } finally {
      current = Promise.resolve(tollgate)
      await replica.stop()
    }
  })

  // At the end, because a call whose gateway died is recorded when its lease runs out: its deadline and 15 s.
  const names = ['gateway-killed', 'redis-killed', 'postgres-killed', 'gateway-stopped']
  test.each(names)('in the end ledger, quota and the backend agree: %s', async (name) => {
    const party = parties.get(name)
    if (party === undefined) throw new Error('this load did not run')
    await empty(() => wrongs(postgres.sql, party))
    let figures = ''
    const agree = async (): Promise<boolean> => {
      const [used, tokens] = [await usedOf(tollgate, party), await tokensOf(postgres.sql, party)]
      figures = `the quota's ${used} tokens to be the ledger's ${tokens}`
      return used === tokens
    }
    await eventually(agree, { what: () => figures })
    expect(await wrongs(postgres.sql, party)).toEqual([])
    if (name !== 'gateway-killed') expect(await abandoned(party)).toEqual([])
  })
})

test(`tollgate dev keeps what it answered when it is killed twice, seed ${seed}`, async () => {
  const dataDir = await scratchDir()
  const start = (): Promise<Tollgate> =>
    startTollgate({ command: 'dev', dataDir, env: { TOLLGATE_ADMIN_KEY: adminKey, BREAKER_FAILURES: '10000' } })
  let tollgate = await start()
  let current = Promise.resolve(tollgate)
  const party = await startParty('embedded', dataDir, tollgate, { gateway: () => current })
  const { load } = party
  const next = random(seed)
  try {
    for (let kill = 0; kill < 2; kill += 1) {
      await more(load, 40 + Math.floor(next() * 60))
      current = tollgate.kill9().then(start)
      tollgate = await current
      await more(load, 60)
    }
    await load.stop()
    const used = await usedOf(tollgate, party)
    expect(await tollgate.terminate()).toBe(0)
    // Its own Postgres went with it: it is started once more, to be read.
    const postgres = await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), log: silentLog })
    const sql = connectPostgres({ ...postgres, log: silentLog })
    try {
      expect(await wrongs(sql, party)).toEqual([])
      expect(await tokensOf(sql, party)).toBe(used)
    } finally {
      await sql.end({ timeout: 2 })
      await postgres.stop()
    }
  } finally {
    await load.stop()
    await tollgate.stop()
    await party.backend.close()
    await rm(dataDir, { recursive: true, force: true })
  }
})
