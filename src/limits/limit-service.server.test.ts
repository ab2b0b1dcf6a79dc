import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampMs } from '@bufbuild/protobuf/wkt'
import { type Client, createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type Limit,
  LimitName,
  type LimitSchema,
  LimitScope,
  LimitService,
} from '../../gen/marketplace/v1/limits_pb.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { refusal } from '../../test/support/refusal.ts'
import { createSnapshots, type Snapshots } from '../registry/snapshots.ts'
import { as, type Fixture, keys, startFixture, wires } from '../server/fixture.ts'
import { register } from '../server/rpc.ts'
import { createLimitService } from './limit-service.ts'

type LimitInit = MessageInitShape<typeof LimitSchema>

const admin = as(keys.admin)
const unknown = '00000000-0000-4000-8000-0000000000ff'
let server: PostgresServer
let snapshots: Snapshots
let fixture: Fixture
let limits: Client<typeof LimitService>

beforeAll(async () => {
  server = await startPostgresServer()
  snapshots = createSnapshots({ sql: server.sql, log: silentLog, pollMs: 3_600_000 })
  await snapshots.start()
  fixture = await startFixture({
    services: [register(LimitService, createLimitService({ sql: server.sql, snapshots }))],
  })
  limits = createClient(LimitService, wires.grpc(fixture.server.address))
}, 60_000)

afterAll(async () => {
  await fixture?.close()
  await snapshots?.close()
  await server?.stop()
})

/** An organization with a consumer and its key, and a service. */
async function subjects() {
  const [organizationId, consumerId, serviceId] = [randomUUID(), randomUUID(), randomUUID()]
  const keyId = consumerId.slice(0, 8)
  await server.sql`insert into organizations (id, name) values (${organizationId}, ${organizationId})`
  await server.sql`
    insert into consumers (id, organization_id, name, tier, status)
    values (${consumerId}, ${organizationId}, 'c', 'basic', 'active')`
  await server.sql`
    insert into api_keys (id, consumer_id, secret_hash, secret_tag) values (${keyId}, ${consumerId}, '$argon2id$', 0)`
  await server.sql`
    insert into services (id, name, version, status, default_max_output_tokens)
    values (${serviceId}, ${serviceId}, '1.0.0', 'active', 1)`
  return { organizationId, consumerId, keyId, serviceId }
}

function perSecond(subjectId: string, changes: LimitInit = {}): LimitInit {
  return { scope: LimitScope.CONSUMER, subjectId, name: LimitName.REQUESTS_PER_SECOND, amount: 7n, ...changes }
}

describe('SetLimit', () => {
  it('keeps a limit of every scope and name, and the snapshot holds it when it answers', async () => {
    const { organizationId, consumerId, keyId, serviceId } = await subjects()
    const { ORGANIZATION, CONSUMER, KEY, SERVICE, SERVICE_CONSUMER } = LimitScope
    const made = [
      { scope: ORGANIZATION, subjectId: organizationId, name: LimitName.COST_PER_MONTH, amount: 5n, currency: 'EUR' },
      { scope: CONSUMER, subjectId: consumerId, serviceId, name: LimitName.TOKENS_PER_MONTH, amount: 0n },
      { scope: KEY, subjectId: keyId, name: LimitName.CONCURRENT_REQUESTS, amount: 1n },
      { scope: KEY, subjectId: keyId, name: LimitName.REQUESTS_PER_MINUTE, amount: 2n },
      { scope: SERVICE, subjectId: serviceId, name: LimitName.TOKENS_PER_MINUTE, amount: 3n },
      { scope: SERVICE_CONSUMER, subjectId: serviceId, name: LimitName.REQUESTS_PER_SECOND, amount: 4n, burst: 9n },
    ]
    for (const limit of made) {
      const stored = await limits.setLimit({ limit }, admin)
      expect(stored).toMatchObject({ ...limit, serviceId: limit.serviceId ?? '', currency: limit.currency ?? '' })
      expect(stored.updateTime).toBeDefined()
    }
    const { limitRules } = snapshots.current()
    const plain = { serviceId: undefined, burst: undefined, currency: undefined }
    expect(limitRules.get(`organization:${organizationId}`)).toEqual([
      {
        ...plain,
        scope: 'organization',
        subjectId: organizationId,
        name: 'cost_per_month',
        amount: 5,
        currency: 'EUR',
      },
    ])
    expect(limitRules.get(`consumer:${consumerId}`)).toEqual([
      { ...plain, scope: 'consumer', subjectId: consumerId, serviceId, name: 'tokens_per_month', amount: 0 },
    ])
    expect(limitRules.get(`key:${keyId}`)?.map((rule) => rule.name)).toEqual([
      'concurrent_requests',
      'requests_per_minute',
    ])
    expect(limitRules.get(`service:${serviceId}`)).toMatchObject([{ name: 'tokens_per_minute', amount: 3 }])
    expect(limitRules.get(`service_consumer:${serviceId}`)).toMatchObject([{ amount: 4, burst: 9 }])
  })

  it('keeps the least and the most of each name', async () => {
    const { consumerId } = await subjects()
    const amounts = [
      [LimitName.REQUESTS_PER_SECOND, 1n, 1_000_000n, 100_000_000n],
      [LimitName.REQUESTS_PER_MINUTE, 1n, 50_000_000n],
      [LimitName.TOKENS_PER_MINUTE, 1n, 50_000_000n],
      [LimitName.CONCURRENT_REQUESTS, 1n, 1_000_000n],
      [LimitName.TOKENS_PER_MONTH, 0n, 1_000_000_000_000n],
      [LimitName.COST_PER_MONTH, 0n, 8_000_000_000_000_000n],
    ] as const
    for (const [name, least, most, burst] of amounts) {
      const currency = name === LimitName.COST_PER_MONTH ? 'EUR' : ''
      for (const amount of [least, most]) {
        const limit = perSecond(consumerId, { name, amount, currency, ...(burst !== undefined && { burst }) })
        expect(await limits.setLimit({ limit }, admin)).toMatchObject({ amount })
      }
    }
  })

  it('replaces the values of the one that is there, its burst too', async () => {
    const { consumerId, serviceId } = await subjects()
    await limits.setLimit({ limit: perSecond(consumerId, { burst: 8n }) }, admin)
    await limits.setLimit({ limit: perSecond(consumerId, { serviceId, amount: 1n }) }, admin)
    await limits.setLimit({ limit: perSecond(consumerId, { amount: 9n }) }, admin)
    expect(snapshots.current().limitRules.get(`consumer:${consumerId}`)).toMatchObject([
      { serviceId: undefined, amount: 9, burst: undefined },
      { serviceId, amount: 1 },
    ])
  })

  it('changes nothing when repeated: neither the time, nor the version that gateways follow', async () => {
    const { consumerId } = await subjects()
    const limit = perSecond(consumerId)
    const first = await limits.setLimit({ limit }, admin)
    const before = await server.sql`select version from control_version`
    expect(await limits.setLimit({ limit }, admin)).toEqual(first)
    expect(await server.sql`select version from control_version`).toEqual(before)
    await server.sql`update limit_rules set updated_at = '2026-01-01' where subject_id = ${consumerId}`
    const changed = await limits.setLimit({ limit: { ...limit, amount: 8n } }, admin)
    expect(changed.updateTime && timestampMs(changed.updateTime)).toBeGreaterThan(Date.parse('2026-01-01'))
  })

  it.each([
    ['organization', LimitScope.ORGANIZATION, 'ORGANIZATION_NOT_FOUND', 'organizationId'],
    ['consumer', LimitScope.CONSUMER, 'CONSUMER_NOT_FOUND', 'consumerId'],
    ['key', LimitScope.KEY, 'KEY_NOT_FOUND', 'keyId'],
    ['service', LimitScope.SERVICE, 'SERVICE_NOT_FOUND', 'serviceId'],
    ['service', LimitScope.SERVICE_CONSUMER, 'SERVICE_NOT_FOUND', 'serviceId'],
  ])('names an unknown %s and its field', async (_, scope, reason, key) => {
    for (const subjectId of [unknown, 'nonsense']) {
      expect(await refusal(limits.setLimit({ limit: perSecond(subjectId, { scope }) }, admin))).toMatchObject({
        code: 5,
        reason,
        metadata: { [key]: subjectId, field: 'limit.subject_id' },
        fields: [{ field: 'limit.subject_id' }],
      })
    }
  })

  it('names an unknown service of a consumer’s limit, and stores nothing', async () => {
    const { consumerId } = await subjects()
    const limit = perSecond(consumerId, { serviceId: unknown })
    expect(await refusal(limits.setLimit({ limit }, admin))).toMatchObject({
      reason: 'SERVICE_NOT_FOUND',
      fields: [{ field: 'limit.service_id' }],
    })
    expect((await limits.listLimits({ subjectId: consumerId }, admin)).limits).toEqual([])
  })

  it('refuses wrong fields, each with what is wrong', async () => {
    const limit = { burst: 0n, currency: 'euro', amount: 0n, name: LimitName.REQUESTS_PER_MINUTE, serviceId: 's' }
    const { reason, fields } = await refusal(
      limits.setLimit({ limit: { ...limit, scope: LimitScope.SERVICE, subjectId: '' } }, admin),
    )
    expect(reason).toBe('INVALID_ARGUMENT')
    const texts = fields.map(({ field, description }) => `${field}: ${description}`).join('\n')
    for (const text of ['service_id must', 'amount must be 1 to 50000000', 'burst is only', 'currency must be']) {
      expect(texts).toContain(`limit: ${text}`)
    }
    expect(texts).toContain('limit.subject_id: ')
    expect(texts).toContain('limit.burst: ')
  })
})

describe('DeleteLimit', () => {
  it('takes one away, here at once; the others stay', async () => {
    const { consumerId, serviceId } = await subjects()
    await limits.setLimit({ limit: perSecond(consumerId) }, admin)
    await limits.setLimit({ limit: perSecond(consumerId, { serviceId }) }, admin)
    const name = LimitName.REQUESTS_PER_SECOND
    await limits.deleteLimit({ scope: LimitScope.CONSUMER, subjectId: consumerId, serviceId, name }, admin)
    expect(snapshots.current().limitRules.get(`consumer:${consumerId}`)).toMatchObject([{ serviceId: undefined }])
  })

  it('is LIMIT_NOT_FOUND for one that is not there', async () => {
    const request = { scope: LimitScope.KEY, subjectId: 'k', name: LimitName.TOKENS_PER_MINUTE }
    const before = await server.sql`select version from control_version`
    expect(await refusal(limits.deleteLimit(request, admin))).toMatchObject({
      code: 5,
      reason: 'LIMIT_NOT_FOUND',
      metadata: { scope: 'key', subjectId: 'k', name: 'tokens_per_minute' },
    })
    expect(await server.sql`select version from control_version`).toEqual(before)
  })
})

describe('ListLimits', () => {
  it('shows each once, page by page, and only those asked for', async () => {
    const { organizationId, consumerId, keyId, serviceId } = await subjects()
    const scopes = [
      perSecond(consumerId),
      perSecond(consumerId, { serviceId }),
      perSecond(consumerId, { name: LimitName.CONCURRENT_REQUESTS }),
      perSecond(keyId, { scope: LimitScope.KEY, serviceId }),
      perSecond(organizationId, { scope: LimitScope.ORGANIZATION }),
      perSecond(serviceId, { scope: LimitScope.SERVICE }),
      perSecond(serviceId, { scope: LimitScope.SERVICE_CONSUMER }),
    ]
    const made = await Promise.all(scopes.map((limit) => limits.setLimit({ limit }, admin)))

    const seen = []
    let pageToken = ''
    do {
      const page = await limits.listLimits({ pageSize: 2, pageToken }, admin)
      expect(page.limits.length).toBeLessThanOrEqual(2)
      seen.push(...page.limits)
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toHaveLength((await server.sql`select from limit_rules`).length)
    expect(seen).toEqual(expect.arrayContaining(made))

    const of = async (request: Parameters<typeof limits.listLimits>[0]) => {
      const found = (await limits.listLimits(request, admin)).limits
      return made.flatMap((limit, i) => (found.some((other) => isSame(limit, other)) ? [i] : []))
    }
    expect(await of({ subjectId: consumerId })).toEqual([0, 1, 2])
    expect(await of({ scope: LimitScope.KEY })).toEqual([3])
    expect(await of({ serviceId })).toEqual([1, 3, 5, 6])
    expect(await of({ scope: LimitScope.CONSUMER, serviceId })).toEqual([1])
  })

  it('names a subject or a service that is not there, and its field', async () => {
    const { consumerId, serviceId } = await subjects()
    const none = { code: 5, reason: 'LIMIT_NOT_FOUND', fields: [{ field: 'subject_id' }] }
    for (const subjectId of [unknown, 'nonsense']) {
      expect(await refusal(limits.listLimits({ subjectId }, admin))).toMatchObject(none)
    }
    // A consumer's id is no organization's.
    const asked = { scope: LimitScope.ORGANIZATION, subjectId: consumerId }
    expect(await refusal(limits.listLimits(asked, admin))).toMatchObject({
      code: 5,
      reason: 'ORGANIZATION_NOT_FOUND',
      fields: [{ field: 'subject_id' }],
    })
    expect(await refusal(limits.listLimits({ serviceId: unknown }, admin))).toMatchObject({
      code: 5,
      reason: 'SERVICE_NOT_FOUND',
      fields: [{ field: 'service_id' }],
    })
    // What is there and has no limit is no error.
    expect(await limits.listLimits({ subjectId: consumerId, serviceId }, admin)).toMatchObject({ limits: [] })
    expect(await limits.listLimits({ scope: LimitScope.SERVICE, subjectId: serviceId }, admin)).toMatchObject({})
  })

  it('refuses a token that is none of its own', async () => {
    for (const parts of [['a'], ['planet', 'a', '', 'cost_per_month'], ['key', 'a', '', 'beauty']]) {
      const pageToken = Buffer.from(JSON.stringify(parts)).toString('base64url')
      expect(await refusal(limits.listLimits({ pageToken }, admin))).toMatchObject({
        reason: 'INVALID_ARGUMENT',
        fields: [{ field: 'page_token' }],
      })
    }
  })
})

it('none of it is for a consumer’s key', async () => {
  const own = as(keys.own)
  const key = { scope: LimitScope.CONSUMER, subjectId: unknown, name: LimitName.REQUESTS_PER_SECOND }
  const missing = { code: 7, reason: 'PERMISSION_MISSING' }
  const write = { ...missing, metadata: { permission: 'limits.write' } }
  expect(await refusal(limits.setLimit({ limit: perSecond(unknown) }, own))).toMatchObject(write)
  expect(await refusal(limits.deleteLimit(key, own))).toMatchObject(write)
  expect(await refusal(limits.listLimits({}, own))).toMatchObject({
    ...missing,
    metadata: { permission: 'limits.read' },
  })
})

function isSame(a: Limit, b: Limit): boolean {
  return (['scope', 'subjectId', 'serviceId', 'name'] as const).every((field) => a[field] === b[field])
}

describe('what changes limits', () => {
  it('leaves its trail: what was before and after, and why, once for each change', async () => {
    const { organizationId, consumerId, keyId, serviceId } = await subjects()
    const name = LimitName.REQUESTS_PER_MINUTE
    const limit = { scope: LimitScope.CONSUMER, subjectId: consumerId, serviceId, name }
    await limits.setLimit({ limit: { ...limit, amount: 10n }, reason: 'asked for' }, admin)
    await limits.setLimit({ limit: { ...limit, amount: 10n }, reason: 'again' }, admin)
    await limits.setLimit({ limit: { ...limit, amount: 20n } }, admin)
    await limits.deleteLimit({ ...limit, reason: 'not needed' }, admin)
    await refusal(limits.deleteLimit(limit, admin))
    const resource = `limit/consumer/${consumerId}/${serviceId}/requests_per_minute`
    const trail = await server.sql`
      select action, actor, organization_id, reason, before::jsonb ->> 'amount' as before,
        after::jsonb ->> 'amount' as after
      from audit_records where resource = ${resource} order by id`
    const change = { action: 'limit.set', actor: 'administrator', organization_id: organizationId, reason: '' }
    expect(trail).toEqual([
      { ...change, reason: 'asked for', before: null, after: '10' },
      { ...change, before: '10', after: '20' },
      { ...change, action: 'limit.deleted', reason: 'not needed', before: '20', after: null },
    ])
    const ofKey = { scope: LimitScope.KEY, subjectId: keyId, name, amount: 1n }
    await limits.setLimit({ limit: ofKey }, admin)
    const [owner] =
      await server.sql`select organization_id from audit_records where resource = ${`limit/key/${keyId}/requests_per_minute`}`
    expect(owner).toEqual({ organization_id: organizationId })
  })

  it('says what was before, also when several add the same limit at once', async () => {
    const { consumerId } = await subjects()
    const limit = { scope: LimitScope.CONSUMER, subjectId: consumerId, name: LimitName.TOKENS_PER_MINUTE }
    const amounts = Array.from({ length: 8 }, (_, i) => BigInt(i + 1))
    await Promise.all(amounts.map((amount) => limits.setLimit({ limit: { ...limit, amount } }, admin)))
    const trail = await server.sql<{ before: string | null; after: string }[]>`
      select a.before::jsonb ->> 'amount' as before, a.after::jsonb ->> 'amount' as after
      from audit_records a join changes c on c.request_id = a.request_id
      where a.resource = ${`limit/consumer/${consumerId}/tokens_per_minute`} order by c.position`
    expect(trail.length).toBe(8)
    expect(trail.map(({ before }) => before)).toEqual([null, ...trail.slice(0, -1).map(({ after }) => after)])
  })
})
