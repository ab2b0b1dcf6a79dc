import { execFile } from 'node:child_process'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { demoFacts, startTollgate, type Tollgate } from './support/tollgate.ts'

const main = new URL('../src/main.ts', import.meta.url).pathname
let tollgate: Tollgate
let facts: Record<string, string>
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-cli-'))
  tollgate = await startTollgate({ command: 'dev' })
  facts = await demoFacts(tollgate)
})

afterAll(async () => {
  await tollgate?.stop()
  await rm(folder, { recursive: true, force: true })
})

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs the command with nothing of this environment but PATH; `env` over what names the demo's gate. */
function run(words: readonly string[], env: Record<string, string> = {}, stdin = ''): Promise<Ended> {
  const { promise, resolve } = Promise.withResolvers<Ended>()
  const known = { TOLLGATE_ADDRESS: tollgate.address, TOLLGATE_KEY: facts.adminKey ?? '' }
  const child = execFile(
    process.execPath,
    [main, ...words],
    { cwd: folder, env: { PATH: process.env.PATH, HOME: folder, ...known, ...env } },
    (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
  )
  child.stdin?.end(stdin)
  return promise
}

function json(ended: Ended): unknown {
  expect(ended.stderr).toBe('')
  expect(ended.code).toBe(0)
  return JSON.parse(ended.stdout)
}

test('a team is set up from nothing to its first key, which is shown once', async () => {
  const org = json(await run(['orgs', 'create', 'Search', '--json']))
  const organizationId = String(Reflect.get(Object(org), 'id'))
  const words = ['consumers', 'create', 'ranking', '--organization-id', organizationId, '--tier', 'premium', '--json']
  const consumer = json(await run(words))
  expect(consumer).toMatchObject({ organizationId, name: 'ranking', tier: 'TIER_PREMIUM' })
  const consumerId = String(Reflect.get(Object(consumer), 'id'))
  const made = await run(['keys', 'create', '--consumer-id', consumerId, '--name', 'first'])
  expect(made.stdout).toMatch(/key: +tg_live_/)
  expect(made.stderr).toContain('cannot be shown again')
  const listed = await run(['keys', 'list', '--consumer-id', consumerId])
  expect(listed.stdout).toMatch(/^ID +NAME/)
  expect(listed.stdout).toContain('first')
  expect(listed.stdout).not.toContain('tg_live_')
})

test('a service comes from a file, with flags over it', async () => {
  const file = join(folder, 'service.yaml')
  await writeFile(
    file,
    'service:\n  name: from-file\n  endpoints:\n    - url: https://llm.example/v1/chat/completions\n',
  )
  const service = json(await run(['services', 'register', '--file', file, '--version', '1.2.3', '--json']))
  expect(service).toMatchObject({ name: 'from-file', version: '1.2.3', status: 'SERVICE_STATUS_ACTIVE' })
  expect((await run(['services', 'list'])).stdout).toMatch(/from-file +1\.2\.3 +active/)
})

describe('what destroys', () => {
  test('asks first, and does nothing where nobody can answer', async () => {
    const { consumerId = '' } = facts
    const made = json(
      await run(['keys', 'create', '--consumer-id', consumerId, '--json']).then((ended) => ({ ...ended, stderr: '' })),
    )
    const keyId = String(Reflect.get(Object(Reflect.get(Object(made), 'apiKey')), 'id'))
    const words = ['keys', 'revoke', keyId, '--consumer-id', consumerId]
    const asked = await run(words)
    expect(asked).toMatchObject({ code: 1, stdout: '' })
    expect(asked.stderr).toContain('say --yes')
    expect((await run([...words, '--yes'])).stdout).toContain('revoke time')
  })
})

describe('what goes wrong is said with its remedy', () => {
  test.each([
    [['usage', 'stats', 'practice'], {}, 'consumer_id'],
    [['consumers', 'get', 'nobody'], {}, 'CONSUMER_NOT_FOUND'],
    [['consumers', 'list'], { TOLLGATE_KEY: 'wrong' }, 'Check TOLLGATE_KEY'],
    [['consumers', 'list'], { TOLLGATE_KEY: '' }, 'Set TOLLGATE_KEY'],
    [['consumers', 'list'], { TOLLGATE_ADDRESS: 'http://127.0.0.1:1' }, 'No gate answers at'],
    [['consumers', 'list', '--profile', 'away'], {}, 'There is no profile "away"'],
    [['consumers', 'list', '--key-file', 'absent'], {}, 'absent cannot be read'],
    [['consumers', 'create', 'x', '--tier', 'gold'], {}, '--tier expects one of'],
    [['services', 'register', '--file', 'absent.yaml'], {}, 'absent.yaml'],
  ])('%j %j', async (words, env, text) => {
    const ended = await run(words, env)
    expect(ended).toMatchObject({ code: 1, stdout: '' })
    expect(ended.stderr).toContain(text)
    expect(ended.stderr).not.toContain(facts.adminKey)
  })
})

test('a profile says where to go and as whom, and only its owner reads it', async () => {
  const away = { TOLLGATE_ADDRESS: '', TOLLGATE_KEY: '' }
  const set = ['profile', 'set', 'demo', '--address', tollgate.address, '--key-stdin']
  expect(await run(set, away, `${facts.adminKey}\n`)).toMatchObject({ code: 0 })
  expect((await stat(join(folder, '.config/tollgate/profiles.json'))).mode & 0o777).toBe(0o600)
  expect((await run(['profile', 'list'], away)).stdout).toMatch(/demo +http\S+ +kept here +yes/)
  expect((await run(['consumers', 'list', '--profile', 'demo'], { TOLLGATE_KEY: '' })).stdout).toContain(
    'Enterprise team',
  )
  expect(await run(['profile', 'remove', 'demo'], away)).toMatchObject({ code: 0 })
})

test('rows go on over pages, up to the limit', async () => {
  const rows = json(await run(['services', 'list', '--limit', '1', '--json']))
  expect(rows).toHaveLength(1)
  expect((await run(['services', 'list', '--limit', '1'])).stdout).toContain('and more')
})

test('the doctor looks at what the settings name, and fails on what cannot be reached', async () => {
  const well = await run(['doctor', '--json'], { TOLLGATE_DATA_DIR: folder })
  expect(well.code).toBe(0)
  const ill = await run(['doctor'], {
    TOLLGATE_DATA_DIR: folder,
    DATABASE_URL: 'postgres://user:never-shown@127.0.0.1:1/x',
    REDIS_URL: 'redis://127.0.0.1:1',
    KAFKA_BROKERS: '127.0.0.1:1',
    POLICY_ENGINE_URL: 'grpc://127.0.0.1:1',
    JWT_ISSUER: 'http://127.0.0.1:1',
    JWT_AUDIENCE: 'gate',
    EVENTS_FILE: join(folder, 'absent', 'events.jsonl'),
  })
  expect(ill.code).toBe(1)
  expect(ill.stdout).toMatch(/FAILED +Postgres: .*\n +Check DATABASE_URL/)
  expect(ill.stdout).toMatch(/FAILED +Redis: .*\n +Check REDIS_URL/)
  expect(ill.stdout).toMatch(/FAILED +Kafka: /)
  expect(ill.stdout).toMatch(/FAILED +policy engine: .*\n +Check POLICY_ENGINE_URL/)
  expect(ill.stdout).toMatch(/FAILED +token issuers: .*\n +Check JWT_ISSUER/)
  expect(ill.stdout).toMatch(/FAILED +events: .*\n +Set EVENTS_FILE/)
  expect(ill.stdout).not.toContain('never-shown')
})
