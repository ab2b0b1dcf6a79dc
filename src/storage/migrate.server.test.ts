import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { migrate } from './migrate.ts'
import { asStorageError } from './postgres.ts'

const timeout = 60_000
let server: PostgresServer
let folder: string

beforeAll(async () => {
  server = await startPostgresServer({ migrated: false })
  folder = await mkdtemp(join(tmpdir(), 'tollgate-migrations-'))
}, timeout)

afterAll(async () => {
  await server?.stop()
  await rm(folder, { recursive: true, force: true })
}, timeout)

test('applies each file once, however many replicas start at once', { timeout }, async () => {
  const results = await Promise.all([1, 2, 3, 4].map(() => migrate(server.sql, { log: silentLog })))
  const applied = results.flat()
  expect(applied).toContain('0002_usage.sql')
  expect(new Set(applied).size).toBe(applied.length)
  const rows = await server.sql<{ name: string }[]>`select name from schema_migrations order by name`
  expect(rows.map((row) => row.name)).toEqual(applied.toSorted())
  expect(await migrate(server.sql, { log: silentLog })).toEqual([])
})

test('refuses a file that changed after it was applied, and leaves a failing one unapplied', { timeout }, async () => {
  const options = { log: silentLog, directory: pathToFileURL(`${folder}/`) }
  await writeFile(join(folder, '0901_first.sql'), 'create table first_one (n int8); insert into first_one values (1);')
  expect(await migrate(server.sql, options)).toEqual(['0901_first.sql'])

  await writeFile(join(folder, '0902_second.sql'), 'create table second_one (n int8); select 1 / 0;')
  await expect(migrate(server.sql, options)).rejects.toThrow('division by zero')
  expect(await server.sql`select to_regclass('second_one') as found`).toEqual([{ found: null }])

  await writeFile(join(folder, '0901_first.sql'), 'create table first_one (n int4);')
  await expect(migrate(server.sql, options)).rejects.toThrow(/0901_first\.sql was changed after/)
})

test('refuses two files with one number', { timeout }, async () => {
  const twins = await mkdtemp(join(tmpdir(), 'tollgate-twins-'))
  await writeFile(join(twins, '0001_a.sql'), 'select 1')
  await writeFile(join(twins, '0001_b.sql'), 'select 1')
  const directory = pathToFileURL(`${twins}/`)
  await expect(migrate(server.sql, { log: silentLog, directory })).rejects.toThrow('number 0001')
  await rm(twins, { recursive: true })
})

test('parses int8 as a number, and fails instead of losing digits', { timeout }, async () => {
  expect(
    await server.sql`select ${'9007199254740991'}::int8 as n, sum(x)::int8 as s from unnest(array[1,2]) x`,
  ).toEqual([{ n: Number.MAX_SAFE_INTEGER, s: 3 }])
  const query = server.sql`select ${'9007199254740992'}::int8 as n`
  await expect(query).rejects.toThrow('beyond the safe integers')
  expect(await server.sql`select 1 as n`).toEqual([{ n: 1 }])
})

test('tells an unreachable database from a refused statement', { timeout }, async () => {
  const refused = await server.sql`select 1 / 0`.catch(asStorageError)
  expect(refused).toMatchObject({ reason: 'INTERNAL' })
  const cancelled = await server.sql
    .begin(async (tx) => {
      await tx`set local statement_timeout = 1`
      await tx`select pg_sleep(60)`
    })
    .catch(asStorageError)
  expect(cancelled).toMatchObject({ reason: 'STORAGE_UNAVAILABLE', retryAfterMs: 1_000 })
})
