import { afterAll, beforeAll, expect, test } from 'vitest'
import { denialEntry } from '../../test/support/audit-entries.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { verifyAudit } from './verify-audit.ts'
import { writeDenials } from './write-denials.ts'

let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
}, 60_000)

afterAll(() => server?.stop())

test('a batch of which nobody knows whether it was written is there once, and what was not written joins it', async () => {
  const [first, second] = [denialEntry(), denialEntry()]
  await writeDenials(server.sql, [first], false)
  await writeDenials(server.sql, [first, second], true)
  await writeDenials(server.sql, [first, second], true)
  const rows = await server.sql<{ id: string }[]>`select id from audit_records order by id`
  expect(rows.map(({ id }) => id)).toEqual([first.id, second.id].sort())
  await expect(writeDenials(server.sql, [first], false)).rejects.toThrow('audit_records_id_key')
})

test('texts are stored as they are hashed, bounded, and without the secret of a key', async () => {
  const key = `tg_live_8Nq2hT0aBcD_${'s'.repeat(49)}`
  const odd = denialEntry({
    actor: `a\u0000b${'x'.repeat(5_000)}`,
    reason: '\ud800 lone',
    resource: `service/${key}`,
    userAgent: `curl ${key} 😀`,
    before: JSON.stringify({ key, text: '\u0000' }),
  })
  await writeDenials(server.sql, [odd], false)
  const [row] = await server.sql<Record<string, string>[]>`select * from audit_records where id = ${odd.id}`
  expect(row?.actor?.length).toBeLessThanOrEqual(512)
  expect(row?.user_agent).toBe('curl tg_live_8Nq2hT0aBcD_… 😀')
  expect(row?.before).toBe('{"key":"tg_live_8Nq2hT0aBcD_…","text":"\\u0000"}')
  expect(JSON.stringify(row)).not.toContain('sss')
  expect((await verifyAudit(server.sql, [])).findings).toEqual([])
})
