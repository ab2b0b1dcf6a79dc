import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { silentLog } from '../../test/support/postgres-server.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts'
import { connectPostgres, pingPostgres, type Sql } from './postgres.ts'

const timeout = 60_000
const cleanups: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
}, timeout)

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tollgate-embedded-'))
  await chmod(path, 0o755)
  cleanups.push(() => rm(path, { recursive: true, force: true }))
  return path
}

async function start(dataDir: string): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataDir, log: silentLog })
  cleanups.push(() => server.stop())
  return server
}

function connect(server: EmbeddedPostgres): Sql {
  const sql = connectPostgres({ ...server, log: silentLog, maxConnections: 2 })
  cleanups.push(() => sql.end(1_000))
  return sql
}

test('keeps its data over a stop and a second start', { timeout }, async () => {
  const dataDir = join(await folder(), 'pg')
  const first = await start(dataDir)
  const before = connect(first)
  await before`create table kept (n int8)`
  await before`insert into kept values (41)`
  await before.end()
  await first.stop()

  const sql = connect(await start(dataDir))
  expect(await sql`select n + 1 as n from kept`).toEqual([{ n: 42 }])
})

test('is durable, listens on no TCP port, and keeps its socket to itself', { timeout }, async () => {
  const server = await start(join(await folder(), 'pg'))
  const [row] = await connect(server)`
    select current_setting('listen_addresses') as tcp, current_setting('fsync') as fsync,
      current_setting('synchronous_commit') as commit, current_setting('server_encoding') as encoding`
  expect(row).toEqual({ tcp: '', fsync: 'on', commit: 'on', encoding: 'UTF8' })
  expect((await stat(join(server.socketPath, '..'))).mode & 0o777).toBe(0o700)
})

test('adopts the server that a killed process left behind, and can stop it', { timeout }, async () => {
  const dataDir = join(await folder(), 'pg')
  const orphan = await start(dataDir)
  const adopted = await start(dataDir)
  expect(adopted.pid).toBe(orphan.pid)
  expect(await pingPostgres(connect(adopted))).toEqual({ ok: true, detail: '' })
  await adopted.stop()
  await expect(stat(join(dataDir, 'data', 'postmaster.pid'))).rejects.toThrow('ENOENT')
})

test('starts over the pid file of a killed server, even when its pid lives on as another program', {
  timeout,
}, async () => {
  const dataDir = join(await folder(), 'pg')
  const first = await start(dataDir)
  process.kill(first.pid, 'SIGKILL')
  await first.stop()
  await writeFile(join(dataDir, 'data', 'postmaster.pid'), `${process.pid}\n${join(dataDir, 'data')}\n`)
  const second = await start(dataDir)
  expect(second.pid).not.toBe(first.pid)
  expect((await pingPostgres(connect(second))).ok).toBe(true)
})

test('moves its socket to a short folder when the path is too long for one', { timeout }, async () => {
  const dataDir = join(await folder(), 'a'.repeat(60), 'b'.repeat(60))
  const server = await start(dataDir)
  expect(Buffer.byteLength(server.socketPath)).toBeLessThan(103)
  expect((await pingPostgres(connect(server))).ok).toBe(true)
  await rm(join(server.socketPath, '..'), { recursive: true, force: true })
})

test('names both versions when the data belongs to another major version', { timeout }, async () => {
  const dataDir = join(await folder(), 'pg')
  await mkdir(join(dataDir, 'data'), { recursive: true })
  await writeFile(join(dataDir, 'data', 'PG_VERSION'), '12\n')
  await expect(start(dataDir)).rejects.toThrow(/written by PostgreSQL 12, the embedded server is 18/)
})

test.runIf(process.getuid?.() === 0)(
  'runs as root although the parent folder keeps everybody out',
  { timeout },
  async () => {
    const closed = await folder()
    await chmod(closed, 0o700)
    const places: object[] = []
    const log = { ...silentLog, info: (fields: object) => void places.push(fields) }
    const server = await startEmbeddedPostgres({ dataDir: join(closed, 'pg'), log })
    cleanups.push(() => server.stop())
    expect((await pingPostgres(connect(server))).ok).toBe(true)
    expect(places).toContainEqual({ wanted: join(closed, 'pg'), home: expect.stringContaining('/var/lib/tollgate/') })
    cleanups.unshift(() => rm(join(server.socketPath, '..', '..'), { recursive: true, force: true }))
  },
)
