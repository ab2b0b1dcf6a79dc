import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { eventually } from './support/eventually.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { spawnTollgate, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
let folder: string
let postgres: PostgresServer
let tollgate: Tollgate

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-audit-'))
  postgres = await startPostgresServer()
  tollgate = await start()
  await addOrganizations('first')
}, 60_000)

afterAll(async () => {
  await tollgate?.stop()
  await postgres?.stop()
  if (folder !== undefined) await rm(folder, { recursive: true, force: true })
})

const start = () =>
  startTollgate({ command: 'serve', env: { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey } })

async function addOrganizations(name: string): Promise<void> {
  const consumers = tollgate.client(ConsumerService, adminKey)
  for (let i = 0; i < 20; i++) await consumers.createOrganization({ organization: { name: `${name} ${i}` } })
}

async function verify(...args: string[]): Promise<{ code: number; text: string }> {
  const { child, output } = spawnTollgate(['audit', 'verify', ...args], { DATABASE_URL: postgres.url })
  const [code] = await once(child, 'close')
  return { code: Number(code), text: output() }
}

/** Runs statements with the guards off, as an owner of the tables can. */
async function tamper(statement: string): Promise<void> {
  await postgres.sql.unsafe(`alter table audit_records disable trigger user; ${statement};
    alter table audit_records enable always trigger audit_records_are_final, enable always trigger audit_records_stay`)
}

describe('tollgate audit verify', () => {
  test('finds a log whole that gates write to, and says what it cannot know', async () => {
    const { code, text } = await verify()
    expect(text).toContain('Records: 20 in 16 chains')
    expect(text).toContain('The audit log is whole.')
    expect(text).toContain('Not compared with heads')
    expect(code).toBe(0)
  })

  test('writes heads, and later compares with them', async () => {
    const file = join(folder, 'heads.json')
    const first = await verify('--heads', file)
    expect(first.text).toContain('was not there')
    expect(first.code).toBe(0)
    const { at } = JSON.parse(await readFile(file, 'utf8'))
    await addOrganizations('second')
    const second = await verify('--heads', file)
    expect(second.text).toContain(`nothing was rewritten that was there at ${at}`)
    expect(second.code).toBe(0)
    expect(JSON.parse(await readFile(file, 'utf8')).at > at).toBe(true)
  })

  test('names the record of which somebody changed one byte, and leaves the heads as they are', async () => {
    const file = join(folder, 'heads.json')
    const before = await readFile(file, 'utf8')
    const [row] = await postgres.sql<[{ id: string; chain: number; sequence: number; actor: string }]>`
      select id, chain, sequence, actor from audit_records order by id limit 1`
    const byte = (actor: string) => `update audit_records set actor = '${actor}' where id = '${row.id}'`
    await tamper(byte('administratoR'))
    const { code, text } = await verify('--heads', file)
    expect(text).toContain('1 finding')
    expect(text).toContain(`changed: chain ${row.chain}, record ${row.sequence} (${row.id})`)
    expect(code).toBe(1)
    const json = await verify('--json')
    expect(json.code).toBe(1)
    expect(JSON.parse(json.text)).toMatchObject({
      verdict: 'tampered',
      records: 40,
      findingCount: 1,
      findings: [{ kind: 'changed', chain: row.chain, sequence: row.sequence, id: row.id }],
    })
    expect(await readFile(file, 'utf8')).toBe(before)
    await tamper(byte(row.actor))
    expect((await verify('--heads', file)).code).toBe(0)
  })

  test("takes a line of a gate's log for heads", async () => {
    await tollgate.stop()
    tollgate = await start()
    const line = await eventually(() =>
      tollgate
        .output()
        .split('\n')
        .find((each) => each.includes('heads of the audit log')),
    )
    const file = join(folder, 'line.json')
    await writeFile(file, line)
    await addOrganizations('third')
    const whole = await verify('--heads', file)
    expect(whole.text).toContain('nothing was rewritten that was there at 20')
    expect(whole.code).toBe(0)
  })

  test('says what is wrong where it cannot check, with an exit code of its own', async () => {
    const file = join(folder, 'none.json')
    await writeFile(file, '{"heads": [1]}')
    const wrongFile = await verify('--heads', file)
    expect(wrongFile.text).toContain('holds no heads')
    expect(wrongFile.code).toBe(2)
    expect((await verify('--nonsense')).code).toBe(2)
    const { child, output } = spawnTollgate(['audit', 'verify'], { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' })
    const [code] = await once(child, 'close')
    expect(output()).toContain('Check DATABASE_URL')
    expect(code).toBe(2)
  })
})
