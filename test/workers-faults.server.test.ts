/** What `tollgate serve --workers n` refuses, and what becomes of its processes when they are killed. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { at, list, number, parseJson } from './support/json.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { makeTenant } from './support/tenant.ts'
import { scratchDir, spawnTollgate, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0032'
let postgres: PostgresServer
let redis: RedisServer
let backend: PracticeBackend
let dataDir: string
let settings: Record<string, string>

beforeAll(async () => {
  dataDir = await scratchDir()
  postgres = await startPostgresServer({ migrated: false })
  redis = await startRedisServer()
  backend = await startPracticeBackend()
  settings = { DATABASE_URL: postgres.url, REDIS_URL: redis.url, TOLLGATE_ADMIN_KEY: adminKey }
})

afterAll(async () => {
  await backend?.close()
  await redis?.stop()
  await postgres?.stop()
  await rm(dataDir, { recursive: true, force: true })
})

async function ending(
  args: readonly string[],
  env: Record<string, string>,
): Promise<{ code: unknown; said: string[] }> {
  const { child, output } = spawnTollgate(args, { HOST: '127.0.0.1', PORT: '0', TOLLGATE_DATA_DIR: dataDir, ...env })
  const [code] = await once(child, 'close')
  return {
    code,
    said: output()
      .split('\n')
      .filter((line) => line.startsWith('tollgate:')),
  }
}

const start = (workers: string, env: Record<string, string> = {}): Promise<Tollgate> =>
  startTollgate({ command: 'serve', entry: 'bundle', dataDir, env: { WORKERS: workers, ...settings, ...env } })

async function pidsOf(tollgate: Tollgate): Promise<number[]> {
  const health = parseJson(await (await fetch(`${tollgate.address}/health`)).text())
  return list(at(health, 'workers', 'list')).map((worker) => number(at(worker, 'pid')))
}

/** One that is a zombie of the machine's first process is gone, too. */
const isGone = (pid: number): boolean => !existsSync(`/proc/${pid}/fd/0`)

test('several workers with embedded limits are refused, with what to do', async () => {
  const { code, said } = await ending(['serve', '--workers', '2'], {})
  expect(code).toBe(2)
  expect(said).toEqual(['tollgate: One setting is wrong:'])
})

test('the demo refuses to be several processes', async () => {
  const { code, said } = await ending(['dev', '--workers', '2'], settings)
  expect(code).toBe(2)
  expect(said).toHaveLength(1)
})

test('what no worker can start with ends with one error', async () => {
  const { code, said } = await ending(['serve', '--workers', '3'], { ...settings, REDIS_URL: 'redis://127.0.0.1:1' })
  expect(code).toBe(1)
  expect(said).toEqual([expect.stringContaining('Redis at redis://127.0.0.1:1 cannot be reached')])
})

test('workers whose primary is killed end by themselves', async () => {
  const tollgate = await start('2')
  const pids = await pidsOf(tollgate)
  await tollgate.kill9()
  await eventually(() => pids.every(isGone))
})

test('a second signal ends all of them at once, with calls that go on', async () => {
  const tollgate = await start('2')
  const pids = await pidsOf(tollgate)
  const url = `${backend.url}/v1/chat/completions?fault=${encodeURIComponent('delay=60000')}`
  const { serviceId, key } = await makeTenant(tollgate, adminKey, 'slow', url)
  const call = fetch(`${tollgate.address}/api/v1/consume/${serviceId}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify({ model: 'practice', messages: [{ role: 'user', content: 'x' }] }),
  }).catch(() => undefined)
  await eventually(() => backend.stats().inFlight === 1)
  process.kill(tollgate.pid, 'SIGTERM')
  // It has heard the first one: nobody listens.
  await eventually(async () => {
    const socket = connect(Number(new URL(tollgate.address).port), '127.0.0.1')
    const [outcome] = await Promise.race([
      once(socket, 'connect').then(() => ['connected']),
      once(socket, 'error').then(() => ['refused']),
    ]).catch(() => ['refused'])
    socket.destroy()
    return outcome === 'refused'
  })
  process.kill(tollgate.pid, 'SIGTERM')
  expect(await tollgate.ended).toEqual([1, null])
  await eventually(() => pids.every(isGone))
  await call
  await eventually(() => backend.stats().inFlight === 0)
})

test('what workers used while Redis was away is taken up by a start with fewer of them', async () => {
  const env = { LIMITS_WHEN_REDIS_IS_AWAY: 'local', REDIS_COMMAND_TIMEOUT_MS: '300' }
  const tollgate = await start('3', env)
  const { serviceId, key, consumerId } = await makeTenant(
    tollgate,
    adminKey,
    'away',
    `${backend.url}/v1/chat/completions`,
  )
  const call = (): Promise<boolean> =>
    fetch(`${tollgate.address}/api/v1/consume/${serviceId}`, {
      method: 'POST',
      // A connection each, so that all workers have some.
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}`, connection: 'close' },
      body: JSON.stringify({ model: 'practice', messages: [{ role: 'user', content: 'x' }] }),
    }).then(
      async (response) => (await response.text()) !== '' && response.ok,
      () => false,
    )
  expect(await call()).toBe(true)
  await redis.terminate()
  // Usage must wait in the folders: it cannot get to the ledger either.
  await postgres.sql`alter table usage_records rename to usage_records_away`
  let answered = 1
  await eventually(async () => {
    for (const isAnswered of await Promise.all(Array.from({ length: 6 }, call))) answered += Number(isAnswered)
    return answered >= 30
  })
  const pids = await pidsOf(tollgate)
  for (const pid of [tollgate.pid, ...pids]) process.kill(pid, 'SIGKILL')
  await tollgate.ended
  await eventually(() => pids.every(isGone))
  expect((await readdir(dataDir)).filter((name) => name.startsWith('away')).sort()).toEqual([
    'away',
    'away-2',
    'away-3',
  ])

  await postgres.sql`alter table usage_records_away rename to usage_records`
  await redis.restart()
  const alone = await start('1', env)
  const recorded = await eventually(async () => {
    const [row] = await postgres.sql<[{ count: number }]>`
      select count(*)::int as count from usage_records where consumer_id = ${consumerId} and status = 'succeeded'`
    return row.count >= answered && row.count
  })
  expect(recorded).toBe(answered)
  expect((await readdir(dataDir)).filter((name) => name.startsWith('away'))).toEqual(['away'])
  await alone.stop()
})
