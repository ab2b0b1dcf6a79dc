/** Several processes behind one port: `tollgate serve --workers n`, from the bundle. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { get } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { booksAtRest } from './faults/books-command.ts'
import { eventually } from './support/eventually.ts'
import { at, type Json, list, number, parseJson, string } from './support/json.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { startSteadyLoad, streamFault } from './support/steady-load.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0031'
let postgres: PostgresServer
let redis: RedisServer
let backend: PracticeBackend
let folder: string
let tollgate: Tollgate
let settings: Record<string, string>

beforeAll(async () => {
  folder = await scratchDir()
  postgres = await startPostgresServer({ migrated: false })
  redis = await startRedisServer()
  backend = await startPracticeBackend({ logPath: join(folder, 'backend.jsonl') })
  settings = {
    WORKERS: '2',
    DATABASE_URL: postgres.url,
    REDIS_URL: redis.url,
    TOLLGATE_ADMIN_KEY: adminKey,
    BREAKER_FAILURES: '10000',
    // Leases of calls that a killed worker had open run out soon.
    DEFAULT_DEADLINE_MS: '5000',
    MAX_DEADLINE_MS: '5000',
  }
  tollgate = await startTollgate({ command: 'serve', entry: 'bundle', env: settings })
})

afterAll(async () => {
  await tollgate?.stop()
  await backend?.close()
  await redis?.stop()
  await postgres?.stop()
  await rm(folder, { recursive: true, force: true })
})

const tenant = (name: string, overrides = {}): Promise<Tenant> => {
  const many = { requestsPerSecond: 1_000_000n, requestBurst: 1_000_000n }
  return makeTenant(tollgate, adminKey, name, `${backend.url}/v1/chat/completions?fault=${streamFault}`, {
    ...many,
    ...overrides,
  })
}

/** Over a connection of its own, so that it comes to the worker whose turn it is. */
async function page(path: string, headers: Record<string, string> = {}): Promise<string> {
  const request = get(`${tollgate.address}${path}`, { agent: false, headers })
  const [response] = await once(request, 'response')
  return await text(response)
}

interface SeenWorker {
  readonly slot: number
  readonly pid: number
  readonly state: string
  readonly deaths: number
}

async function workers(): Promise<{ status: string; list: SeenWorker[] }> {
  const health = parseJson(await page('/health'))
  const seen = list(at(health, 'workers', 'list')).map((worker: Json) => ({
    slot: number(at(worker, 'slot')),
    pid: number(at(worker, 'pid')),
    state: string(at(worker, 'state')),
    deaths: number(at(worker, 'deaths')),
  }))
  return { status: string(at(health, 'status')), list: seen }
}

async function metric(begin: string): Promise<number | undefined> {
  const lines = (await page('/metrics')).split('\n').filter((line) => line.startsWith(begin))
  return lines.length === 0 ? undefined : lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

async function expectBalance(): Promise<void> {
  const report = await booksAtRest(settings, join(folder, 'backend.jsonl'), 60_000, new AbortController().signal)
  expect(report).toEqual({ exitCode: 0, differences: [], amount: 0, unfinished: 0 })
}

function isAlive(pid: number): boolean {
  try {
    // A process that ended and that nobody asked about yet is dead.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

test('connections are handed to the workers in turn', async () => {
  await tenant('spread')
  const replicas: string[] = []
  for (let i = 0; i < 8; i++) {
    const states = parseJson(await page('/v1/endpointStates', { authorization: `Bearer ${adminKey}` }))
    replicas.push(string(at(states, 'replica')))
  }
  expect(new Set(replicas).size).toBe(2)
  for (const replica of replicas) expect(replicas.filter((other) => other === replica)).toHaveLength(4)
})

test('a rate limit holds over all workers', async () => {
  const { serviceId, key } = await tenant('limited', { requestsPerSecond: 1n, requestBurst: 20n })
  const startedMs = Date.now()
  const statuses = await Promise.all(
    Array.from({ length: 200 }, async () => {
      const response = await fetch(`${tollgate.address}/api/v1/consume/${serviceId}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
        body: JSON.stringify({ model: 'practice', messages: [{ role: 'user', content: 'x' }] }),
      })
      await response.arrayBuffer()
      return response.status
    }),
  )
  const refill = Math.ceil((Date.now() - startedMs) / 1000)
  const admitted = statuses.filter((status) => status === 200).length
  expect(admitted).toBeGreaterThanOrEqual(20)
  expect(admitted).toBeLessThanOrEqual(20 + refill)
  expect(statuses.filter((status) => status !== 200 && status !== 429)).toEqual([])
})

test('a scrape of any worker shows what all of them did, also those that are gone', async () => {
  const { serviceId, key } = await tenant('scraped')
  const load = startSteadyLoad(tollgate.address, { name: 'scraped', serviceId, key })
  await eventually(() => Object.values(load.answered).every((count) => count >= 5), { what: load.told })
  await load.stop()
  expect(load.failures).toEqual([])
  const answered = Object.values(load.answered).reduce((sum, count) => sum + count)
  const counted = `consumption_requests_total{service_id="${serviceId}",status="succeeded"}`
  for (let i = 0; i < 4; i++) expect(await metric(counted)).toBe(answered)
  // A histogram, too, of all its label sets.
  expect(await metric(`marketplace_request_duration_seconds_count{service="${serviceId}"}`)).toBe(answered)
  expect(await metric('tollgate_workers_expected')).toBe(2)
  expect(await metric('tollgate_workers_serving')).toBe(2)
  expect(await metric('tollgate_workers_silent')).toBe(0)

  const [first] = (await workers()).list
  process.kill(first?.pid ?? 0, 'SIGKILL')
  await eventually(async () => {
    const { status, list: seen } = await workers()
    return status === 'ok' && seen.every(({ pid }) => pid !== first?.pid)
  })
  for (let i = 0; i < 4; i++) expect(await metric(counted)).toBe(answered)
  expect(await metric('tollgate_workers_replaced_total')).toBe(1)
})

test('a restart of all workers under load fails no call, in any protocol, and the books balance', async () => {
  const { serviceId, key } = await tenant('restarted')
  const before = (await workers()).list.map(({ pid }) => pid)
  const load = startSteadyLoad(tollgate.address, { name: 'restarted', serviceId, key })
  await eventually(() => Object.values(load.answered).every((count) => count >= 5), { what: load.told })
  process.kill(tollgate.pid, 'SIGHUP')
  await eventually(() => tollgate.output().includes('all workers were restarted'), { timeoutMs: 90_000 })
  const atRestart: Readonly<Record<string, number>> = { ...load.answered }
  await eventually(() => Object.entries(load.answered).every(([kind, count]) => count >= 5 + (atRestart[kind] ?? 0)))
  await load.stop()
  expect(load.failures).toEqual([])
  // Each of the two had to leave the workers of before.
  expect(load.connections()).toBeGreaterThanOrEqual(4)
  const { status, list: after } = await workers()
  expect(status).toBe('ok')
  expect(after.filter(({ pid }) => before.includes(pid))).toEqual([])
  expect(after.map(({ state }) => state)).toEqual(['serving', 'serving'])
  const answered = Object.values(load.answered).reduce((sum, count) => sum + count)
  expect(await metric(`consumption_requests_total{service_id="${serviceId}",status="succeeded"}`)).toBe(answered)
  expect(await metric('tollgate_workers_restarted_total')).toBe(2)
  await expectBalance()
})

test('when a worker is killed the others serve on, it is replaced, and the books balance', async () => {
  const { serviceId, key } = await tenant('killed')
  const load = startSteadyLoad(tollgate.address, { name: 'killed', serviceId, key })
  await eventually(() => Object.values(load.answered).every((count) => count >= 5), { what: load.told })
  const [, second] = (await workers()).list
  process.kill(second?.pid ?? 0, 'SIGKILL')
  await eventually(async () => (await workers()).status === 'degraded')
  const atDeath = { ...load.answered }
  await eventually(async () => {
    const { status, list: seen } = await workers()
    return status === 'ok' && seen.some(({ slot, deaths }) => slot === second?.slot && deaths === 1)
  })
  await eventually(() => load.answered.gRPC > atDeath.gRPC && load.answered['HTTP/1.1'] > atDeath['HTTP/1.1'])
  await load.stop()
  // What it had open at that moment is cut, and nothing else: a call and a stream of each caller at most.
  expect(load.failures.length).toBeLessThanOrEqual(16)
  await expectBalance()
})

test('SIGTERM ends all of them, in order', async () => {
  const pids = (await workers()).list.map(({ pid }) => pid)
  expect(await tollgate.terminate()).toBe(0)
  expect(pids.filter(isAlive)).toEqual([])
})
