import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { denialEntry } from '../../test/support/audit-entries.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { systemActor } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { auditHash } from './audit-record.ts'
import { type AuditRow, recordOf } from './audit-store.ts'
import type { ChainHead } from './check-chain.ts'
import { verifyAudit } from './verify-audit.ts'
import { writeDenials } from './write-denials.ts'

let server: PostgresServer
/** Heads when the log was half as long. */
let anchors: readonly ChainHead[]
/** The chain that is tampered with; it has at least 12 records, and the anchor lies between 5 and the last but two. */
const chain = 5

const denial = (i: number) => denialEntry({ actor: `key:${i}`, userAgent: 'grpc-node ß 😀 \ud800' })

/** Denials and changes by writers that wait for nobody. */
async function write(): Promise<void> {
  const writers = Array.from({ length: 8 }, async (_, writer) => {
    for (let i = 0; i < 20; i++) {
      await writeDenials(server.sql, [denial(i), denial(i)], false)
      const change = {
        type: 'consumer.updated',
        id: `${writer}`,
        organizationId: 'o',
        after: { name: `"${i}ß` },
      } as const
      await server.sql.begin((tx) => recordChange(tx, systemActor('test'), change))
    }
  })
  await Promise.all(writers)
}

beforeAll(async () => {
  server = await startPostgresServer()
  await write()
  anchors = (await verifyAudit(server.sql, [])).heads
  await write()
}, 60_000)

afterAll(() => server?.stop())

const guards = async (state: 'disable' | 'enable always'): Promise<void> => {
  await server.sql.unsafe(`
    alter table audit_records ${state} trigger audit_records_are_final, ${state} trigger audit_records_stay;
    alter table audit_chains ${state} trigger audit_chains_grow, ${state} trigger audit_chains_stay`)
}

describe('an audit log', () => {
  test('that many wrote at once is whole, and has not been rewritten', async () => {
    const { records, findings } = await verifyAudit(server.sql, anchors)
    expect(findings).toEqual([])
    expect(records).toBe(2 * 8 * 20 * 3)
    expect(anchors.find((anchor) => anchor.chain === chain)?.length).toBeGreaterThan(5)
  })

  test('says how far its check is', async () => {
    const told: [number, number][] = []
    await verifyAudit(server.sql, [], (done, total) => told.push([done, total]))
    expect(told.at(-1)).toEqual([960, 960])
  })

  test.each([
    'update audit_records set count = 2',
    'delete from audit_records',
    'truncate audit_records',
    'update audit_chains set length = length - 1',
    'delete from audit_chains',
    'set session_replication_role = replica; update audit_records set count = 2',
  ])('is guarded against: %s', async (statement) => {
    await expect(server.sql.begin((tx) => tx.unsafe(statement))).rejects.toThrow('never changed')
  })
})

describe('with its guards taken away, whoever', () => {
  let saved: AuditRow[]
  let heads: readonly ChainHead[]

  beforeAll(async () => {
    saved = await server.sql<AuditRow[]>`select * from audit_records`
    heads = (await verifyAudit(server.sql, [])).heads
    await guards('disable')
    await server.sql.unsafe(
      'create table saved_records as table audit_records; create table saved_chains as table audit_chains',
    )
    await server.sql.unsafe(`alter table audit_records drop constraint audit_records_pkey, drop constraint audit_records_id_key;
      alter table audit_records drop constraint audit_records_chain_fkey`)
  })

  afterEach(async () => {
    await server.sql.unsafe(`truncate audit_records; truncate audit_chains;
      insert into audit_records select * from saved_records; insert into audit_chains select * from saved_chains`)
    expect((await verifyAudit(server.sql, anchors)).findings).toEqual([])
  })

  const length = () => heads.find((head) => head.chain === chain)?.length ?? 0
  const anchored = () => anchors.find((head) => head.chain === chain)?.length ?? 0
  const idOf = (sequence: number) => saved.find((row) => row.chain === chain && row.sequence === sequence)?.id ?? ''
  const here = `chain = ${chain} and sequence`

  /** Hashes the chain anew from a record on, as somebody would who knows how. */
  async function rehash(from: number, last = Number.POSITIVE_INFINITY): Promise<void> {
    const rows = await server.sql<AuditRow[]>`
      select * from audit_records where chain = ${chain} and sequence >= ${from - 1} order by sequence`
    let previous = rows.find(({ sequence }) => sequence === from - 1)?.hash ?? ''
    for (const row of rows) {
      if (row.sequence < from || row.sequence > last) continue
      const hash = auditHash({ ...recordOf(row), previousHash: previous })
      await server.sql`update audit_records set previous_hash = ${previous}, hash = ${hash}
        where chain = ${chain} and sequence = ${row.sequence}`
      previous = hash
    }
    if (last === Number.POSITIVE_INFINITY) {
      await server.sql`update audit_chains set hash = ${previous}, length = ${rows.at(-1)?.sequence ?? 0}
        where chain = ${chain}`
    }
  }

  const columns = [
    'created_at',
    'kind',
    'action',
    'actor',
    'resource',
    'organization_id',
    'reason',
    'count',
    'request_id',
  ]
  const values: Readonly<Record<string, string>> = {
    created_at: "created_at + interval '1 ms'",
    kind: "case kind when 'change' then 'denial' else 'change' end",
    count: 'count + 1',
    before: "'{}'",
    after: "coalesce(after, '{}') || ' '",
    id: 'gen_random_uuid()',
  }
  test.each(['id', ...columns, 'address', 'user_agent', 'before', 'after', 'previous_hash', 'hash'])(
    'changes one %s is found, with the record',
    async (column) => {
      await server.sql.unsafe(
        `update audit_records set ${column} = ${values[column] ?? `${column} || 'x'`} where ${here} = 4`,
      )
      const { findings } = await verifyAudit(server.sql, [])
      const id = column === 'id' ? expect.any(String) : idOf(4)
      expect(findings).toMatchObject([{ kind: 'changed', chain, sequence: 4, id }])
    },
  )

  const cases: Readonly<Record<string, { tamper: string; found: () => readonly object[] }>> = {
    'changes one byte': {
      tamper: `update audit_records set actor = overlay(actor placing 'X' from 1 for 1) where ${here} = 7`,
      found: () => [{ kind: 'changed', chain, sequence: 7, id: idOf(7) }],
    },
    'removes a record': {
      tamper: `delete from audit_records where ${here} = 4`,
      found: () => [{ kind: 'missing', chain, sequence: 4, id: '' }],
    },
    'removes the first records': {
      tamper: `delete from audit_records where ${here} <= 3`,
      found: () => [{ kind: 'missing', chain, sequence: 1, detail: 'records 1 to 3 are missing' }],
    },
    'removes a record and closes the gap': {
      tamper: `delete from audit_records where ${here} = 4;
        update audit_records set sequence = sequence - 1 where ${here} = 5`,
      found: () => [
        { kind: 'changed', chain, sequence: 4, id: idOf(5) },
        { kind: 'missing', chain, sequence: 5 },
      ],
    },
    'cuts the end off': {
      tamper: `delete from audit_records where ${here} > 8`,
      found: () => [{ kind: 'missing', chain, sequence: 9, detail: expect.stringContaining('cut off') }],
    },
    'removes all of a chain': {
      tamper: `delete from audit_records where chain = ${chain}`,
      found: () => [{ kind: 'missing', chain, sequence: 1 }],
    },
    'removes a chain with its head': {
      tamper: `delete from audit_records where chain = ${chain}; delete from audit_chains where chain = ${chain}`,
      found: () => [{ kind: 'head', chain }],
    },
    'inserts a record between two': {
      tamper: `insert into audit_records select * from audit_records where ${here} = 4;
        update audit_records set id = 'ffffffff-0000-7000-8000-000000000000'
          where ctid = (select max(ctid) from audit_records where ${here} = 4)`,
      found: () => [{ kind: 'inserted', chain, sequence: 4, id: 'ffffffff-0000-7000-8000-000000000000' }],
    },
    'inserts a record before the first': {
      tamper: `insert into audit_records select * from audit_records where ${here} = 4;
        update audit_records set sequence = 0, id = '00000000-0000-7000-8000-000000000000'
          where ctid = (select max(ctid) from audit_records where ${here} = 4)`,
      found: () => [{ kind: 'inserted', chain, sequence: 0, id: '00000000-0000-7000-8000-000000000000' }],
    },
    'inserts a chain': {
      tamper: `insert into audit_records select * from audit_records where ${here} = 1;
        update audit_records set chain = 99 where ctid = (select max(ctid) from audit_records where ${here} = 1)`,
      found: () => [
        { kind: 'changed', chain: 99, sequence: 1 },
        { kind: 'head', chain: 99 },
      ],
    },
    'swaps two records': {
      tamper: `update audit_records set sequence = 11 - sequence where ${here} in (5, 6)`,
      found: () => [
        { kind: 'changed', chain, sequence: 5, id: idOf(6) },
        { kind: 'changed', chain, sequence: 6, id: idOf(5) },
      ],
    },
    'changes the length in a head': {
      tamper: `update audit_chains set length = length + 1 where chain = ${chain}`,
      found: () => [{ kind: 'missing', chain, sequence: length() + 1 }],
    },
    'changes the hash in a head': {
      tamper: `update audit_chains set hash = repeat('0', 64) where chain = ${chain}`,
      found: () => [{ kind: 'head', chain, sequence: length(), id: idOf(length()) }],
    },
  }
  test.each(Object.entries(cases))('%s is found, with the record', async (_name, { tamper, found }) => {
    await server.sql.unsafe(tamper)
    const { findings, findingCount } = await verifyAudit(server.sql, [])
    expect(findings).toMatchObject(found())
    expect(findingCount).toBe(found().length)
  })

  test('copies a record into another chain is found, with the copy', async () => {
    const other = heads.find((head) => head.chain === 6)?.length ?? 0
    await server.sql`insert into audit_records select * from audit_records where chain = ${chain} and sequence = 4`
    await server.sql`update audit_records set chain = 6, sequence = ${other + 1}, id = '00000000-0000-7000-8000-000000000000'
      where ctid = (select max(ctid) from audit_records where chain = ${chain} and sequence = 4)`
    const { findings } = await verifyAudit(server.sql, [])
    const where = { chain: 6, sequence: other + 1, id: '00000000-0000-7000-8000-000000000000' }
    expect(findings).toMatchObject([
      { kind: 'changed', ...where },
      { kind: 'inserted', ...where },
    ])
  })

  test('swaps two chains is found in both', async () => {
    await server.sql.unsafe(`update audit_records set chain = 11 - chain where chain in (5, 6);
      update audit_chains set chain = -1 where chain = 5; update audit_chains set chain = 5 where chain = 6;
      update audit_chains set chain = 6 where chain = -1`)
    const { findings } = await verifyAudit(server.sql, [])
    expect(new Set(findings.map((finding) => finding.chain))).toEqual(new Set([5, 6]))
  })

  test('changes a record with its hash is found, with the record', async () => {
    await server.sql`update audit_records set reason = 'nothing' where chain = ${chain} and sequence = 4`
    await rehash(4, 4)
    expect((await verifyAudit(server.sql, [])).findings).toMatchObject([
      { kind: 'replaced', chain, sequence: 4, id: idOf(4) },
    ])
  })

  test('changes the last record with its hash is found, with the record', async () => {
    await server.sql`update audit_records set reason = 'nothing' where chain = ${chain} and sequence = ${length()}`
    await rehash(length(), length())
    const where = { chain, sequence: length(), id: idOf(length()) }
    expect((await verifyAudit(server.sql, [])).findings).toMatchObject([{ kind: 'head', ...where }])
  })

  test('writes a chain anew to its end, head and all, is found by an anchor after that, and by nothing else', async () => {
    await server.sql`update audit_records set reason = 'nothing' where chain = ${chain} and sequence = 4`
    await rehash(4)
    expect((await verifyAudit(server.sql, [])).findings).toEqual([])
    const { findings } = await verifyAudit(server.sql, anchors)
    expect(findings).toMatchObject([{ kind: 'anchor', chain, sequence: anchored(), id: idOf(anchored()) }])
  })

  test('cuts the end off and sets the head back is found by an anchor behind it, and by nothing else', async () => {
    await server.sql`delete from audit_records where chain = ${chain} and sequence > 4`
    await rehash(4)
    expect((await verifyAudit(server.sql, [])).findings).toEqual([])
    expect((await verifyAudit(server.sql, anchors)).findings).toMatchObject([{ kind: 'anchor', chain, sequence: 5 }])
  })
})
