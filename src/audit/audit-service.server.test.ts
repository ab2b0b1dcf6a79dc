import { create } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AuditKind, AuditService, ListAuditRecordsRequestSchema } from '../../gen/marketplace/v1/audit_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { systemActor } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import type { Caller } from '../identity/principal.ts'
import { newId } from '../ids.ts'
import { createAuditService } from './audit-service.ts'
import type { Denial } from './denial.ts'
import { writeDenials } from './write-denials.ts'

let server: PostgresServer
let service: ReturnType<typeof createAuditService>
const [ours, theirs] = [newId(), newId()]
const { listAuditRecords } = AuditService.method
const action = 'marketplace.v1.KeyService/ListKeys'
const firstMs = Date.UTC(2026, 10, 1)

beforeAll(async () => {
  server = await startPostgresServer()
  service = createAuditService({ sql: server.sql })
  // A denial a second, by turns of either organization; several of a batch have one time.
  for (let second = 0; second < 20; second++) {
    const denials = Array.from({ length: 3 }, (_, i) => ({
      ...denial,
      actor: `key:${i}`,
      organizationId: i === 0 ? theirs : ours,
      id: newId(),
      createdAtMs: firstMs + second * 1_000,
      kind: 'denial' as const,
      count: 2,
      before: null,
      after: null,
    }))
    await writeDenials(server.sql, denials, false)
  }
  await server.sql.begin((tx) =>
    recordChange(tx, systemActor('test'), {
      type: 'consumer.updated',
      id: 'c1',
      organizationId: ours,
      before: { name: 'a', overrides: { requestsPerSecond: '5' } },
      after: { name: 'b' },
      reason: 'asked for by its owner',
    }),
  )
}, 60_000)

afterAll(() => server?.stop())

const denial: Denial = {
  action,
  actor: '',
  reason: 'CONSUMER_MISMATCH field=consumer_id',
  resource: 'consumer/c2',
  organizationId: '',
  requestId: newId(),
  address: '::1',
  userAgent: 'grpc-node',
}

type Request = Omit<Parameters<typeof create<typeof ListAuditRecordsRequestSchema>>[1] & object, '$typeName'>

const list = (request: Request, by: Caller = administrator) =>
  invoke(listAuditRecords, service.listAuditRecords, create(ListAuditRecordsRequestSchema, request), by)

function caller(roles: Caller['roles'], organizationId: string | undefined): Caller {
  return { ...administrator, kind: 'key', subject: 'user:somebody', roles, organizationId }
}

describe('the list of the audit log', () => {
  test('tells of a change who made it, what was before and after, and why', async () => {
    const { records } = await list({ kind: AuditKind.CHANGE })
    expect(records).toMatchObject([
      {
        action: 'consumer.updated',
        actor: 'system:test',
        resource: 'consumer/c1',
        organizationId: ours,
        reason: 'asked for by its owner',
        count: 1,
        before: { name: 'a', overrides: { requestsPerSecond: '5' } },
        after: { name: 'b' },
        hash: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    ])
  })

  test('tells of a denial whose it was, what it was about, and how often', async () => {
    const { records } = await list({ kind: AuditKind.DENIAL, pageSize: 1 })
    expect(records).toMatchObject([
      { action, resource: 'consumer/c2', count: 2, address: '::1', userAgent: 'grpc-node' },
    ])
    expect(records[0]?.before).toBeUndefined()
  })

  test('has every record once over all of its pages, newest first', async () => {
    const seen: { id: string; ms: number }[] = []
    for (let pageToken = ''; ; ) {
      const page = await list({ pageSize: 7, pageToken })
      for (const { id, time } of page.records) seen.push({ id, ms: Number(time?.seconds) })
      pageToken = page.nextPageToken
      if (pageToken === '') break
    }
    expect(new Set(seen.map(({ id }) => id)).size).toBe(61)
    expect(seen.length).toBe(61)
    expect(seen.map(({ ms }) => ms)).toEqual(seen.map(({ ms }) => ms).sort((a, b) => b - a))
  })

  test.each([
    ['kind', { kind: AuditKind.DENIAL }, 60],
    ['action', { action: 'consumer.updated' }, 1],
    ['actor', { actor: 'key:1' }, 20],
    ['resource', { resource: 'consumer/c2' }, 60],
    ['organization', { organizationId: theirs }, 20],
    ['start', { startTime: timestampFromMs(firstMs + 15_000) }, 16],
    ['end', { endTime: timestampFromMs(firstMs + 5_000) }, 15],
    ['several', { actor: 'key:1', organizationId: ours, startTime: timestampFromMs(firstMs + 15_000) }, 5],
    ['several that no record fits', { actor: 'key:0', organizationId: ours }, 0],
  ])('is filtered by %s', async (_name, request, count) => {
    const { records, nextPageToken } = await list({ ...request, pageSize: 1_000 })
    expect(records.length).toBe(count)
    expect(nextPageToken).toBe('')
  })

  test('shows whoever reaches one organization the records of that one only', async () => {
    const { records } = await list({ pageSize: 1_000 }, caller(['org_admin'], theirs))
    expect(records.length).toBe(20)
    expect(new Set(records.map(({ organizationId }) => organizationId))).toEqual(new Set([theirs]))
    const foreign = list({ organizationId: ours }, caller(['org_admin'], theirs))
    await expect(foreign).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(list({}, caller(['org_admin'], undefined))).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    expect((await list({ pageSize: 1_000 }, caller(['auditor'], theirs))).records.length).toBe(61)
  })

  test('refuses a token that is none of its own', async () => {
    await expect(list({ pageToken: 'bm90IG1pbmU' })).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT' })
  })

  test.each([
    ['kind', 'audit_records_kind_idx'],
    ['action', 'audit_records_action_idx'],
    ['actor', 'audit_records_actor_idx'],
    ['resource', 'audit_records_resource_idx'],
    ['organization_id', 'audit_records_organization_id_idx'],
  ])('is read by %s in the order of an index', async (column, index) => {
    const plan = await server.sql.begin(async (tx) => {
      await tx.unsafe('set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off')
      return tx`explain select * from audit_records
        where ${tx(column)} = 'change' order by created_at desc, id desc limit 51`
    })
    expect(JSON.stringify(plan)).toContain(index)
    expect(JSON.stringify(plan)).not.toContain('Sort')
  })
})
