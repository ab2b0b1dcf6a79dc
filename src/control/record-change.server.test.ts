import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ApiKeySchema, CreateKeyResponseSchema } from '../../gen/marketplace/v1/keys_pb.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { appendAudit } from '../audit/append-audit.ts'
import { type AuditEntry, type AuditRecord, auditHash } from '../audit/audit-record.ts'
import { newId } from '../ids.ts'
import { systemActor } from './actor.ts'
import { recordChange } from './record-change.ts'
import { resourceJson } from './resource-json.ts'

const timeout = 60_000
let server: PostgresServer
const actor = { ...systemActor('test'), requestId: 'r', address: '::1', userAgent: 'grpc-node' }

beforeAll(async () => {
  server = await startPostgresServer()
}, timeout)

afterAll(() => server?.stop())

function changeOf(id: string) {
  return { type: 'service.registered', id, organizationId: 'o', after: { name: 'ß "x"' }, reason: 'asked' } as const
}

describe('a change', () => {
  test('has its row and its audit record, with who, from where, why and what', async () => {
    const id = newId()
    const position = await server.sql.begin((tx) => recordChange(tx, actor, changeOf(id)))
    const changes = await server.sql`select * from changes where resource_id = ${id}`
    expect(changes).toMatchObject([
      {
        position,
        type: 'service.registered',
        resource_kind: 'service',
        actor: 'system:test',
        resource: { name: 'ß "x"' },
      },
    ])
    const audit = await server.sql`select * from audit_records where resource = ${`service/${id}`}`
    expect(audit).toMatchObject([
      {
        kind: 'change',
        action: 'service.registered',
        actor: 'system:test',
        reason: 'asked',
        before: null,
        address: '::1',
      },
    ])
  })

  test('that does not commit leaves nothing, and no gap in a chain', async () => {
    const id = newId()
    const failing = server.sql.begin(async (tx) => {
      await recordChange(tx, actor, changeOf(id))
      throw new Error('not this time')
    })
    await expect(failing).rejects.toThrow('not this time')
    expect(await server.sql`select 1 from changes where resource_id = ${id}`).toEqual([])
    expect(await server.sql`select 1 from audit_records where resource = ${`service/${id}`}`).toEqual([])
  })

  test('has a position that rises in the order of commits, whoever writes at once', async () => {
    const seen: number[] = []
    let writing = true
    const watching = (async () => {
      let last = 0
      while (writing) {
        const rows = await server.sql<{ position: number }[]>`
          select position from changes where position > ${last} order by position`
        for (const { position } of rows) seen.push(position)
        last = rows.at(-1)?.position ?? last
      }
      const rest = await server.sql<
        { position: number }[]
      >`select position from changes where position > ${last} order by position`
      for (const { position } of rest) seen.push(position)
    })()
    const writer = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await server.sql.begin((tx) => recordChange(tx, actor, changeOf(newId())))
    }
    await Promise.all([writer(), writer(), writer(), writer()])
    writing = false
    await watching
    const all = await server.sql<{ position: number }[]>`select position from changes order by position`
    expect(seen).toEqual(all.map(({ position }) => position))
  })
})

describe('the audit log', () => {
  test('keeps whole chains under writers that wait for nobody', async () => {
    const held = Promise.withResolvers<void>()
    const denial: AuditEntry = { ...entry, kind: 'denial', action: 'marketplace.v1.Registry/GetService' }
    const holder = server.sql.begin(async (tx) => {
      await appendAudit(tx, denial)
      await held.promise
    })
    for (let i = 0; i < 40; i++) await server.sql.begin((tx) => appendAudit(tx, denial))
    held.resolve()
    await holder
    const rows = await server.sql<Row[]>`select * from audit_records order by chain, sequence`
    const heads = await server.sql<{ chain: number; length: number; hash: string }[]>`select * from audit_chains`
    for (const { chain, length, hash } of heads) {
      const records = rows.filter((row) => row.chain === chain)
      expect(records.map(({ sequence }) => sequence)).toEqual(Array.from({ length }, (_, index) => index + 1))
      let previous = ''
      for (const row of records) {
        expect(row.previous_hash).toBe(previous)
        expect(auditHash(recordOf(row))).toBe(row.hash)
        previous = row.hash
      }
      expect(hash).toBe(previous)
    }
  })

  test.each(["update audit_records set reason = ''", 'delete from audit_records', 'truncate audit_records cascade'])(
    'refuses %s',
    async (statement) => {
      await server.sql.begin((tx) => recordChange(tx, actor, changeOf(newId())))
      await expect(server.sql.begin((tx) => tx.unsafe(statement))).rejects.toThrow('never changed')
    },
  )
})

test('a resource with a secret leaves no trail, not even a wrong one', () => {
  expect(resourceJson(ApiKeySchema, { id: 'k', name: 'n' })).toEqual({ id: 'k', name: 'n' })
  expect(() => resourceJson(CreateKeyResponseSchema, { key: 'x' })).toThrow('must not leave a trail')
})

const entry = {
  actor: 'key:k',
  resource: '',
  organizationId: '',
  reason: '',
  count: 1,
  requestId: '',
  address: '',
  userAgent: '',
  before: null,
  after: null,
}

interface Row extends Omit<AuditEntry, 'organizationId' | 'requestId' | 'userAgent'> {
  readonly id: string
  readonly chain: number
  readonly sequence: number
  readonly created_at: Date
  readonly organization_id: string
  readonly request_id: string
  readonly user_agent: string
  readonly previous_hash: string
  readonly hash: string
}

function recordOf(row: Row): AuditRecord {
  return {
    ...row,
    createdAtMs: row.created_at.getTime(),
    organizationId: row.organization_id,
    requestId: row.request_id,
    userAgent: row.user_agent,
    previousHash: row.previous_hash,
  }
}
