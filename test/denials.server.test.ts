import { createClient } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AuditKind, AuditService } from '../gen/marketplace/v1/audit_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
let postgres: PostgresServer
let backend: PracticeBackend
let tollgate: Tollgate
/** The caller, and somebody else. */
let own: Tenant
let other: Tenant

const start = () =>
  startTollgate({ command: 'serve', env: { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey } })

beforeAll(async () => {
  postgres = await startPostgresServer({ owned: true })
  backend = await startPracticeBackend({ host: '127.0.0.1', port: 0, defaultDelayMs: 0 })
  tollgate = await start()
  own = await makeTenant(tollgate, adminKey, 'own', `${backend.url}/v1`)
  other = await makeTenant(tollgate, adminKey, 'other', `${backend.url}/v1`)
}, 120_000)

afterAll(async () => {
  await tollgate?.stop()
  await backend?.close()
  await postgres?.stop()
})

const keyIdOf = ({ key }: Tenant) => key.split('_')[2] ?? ''
const actorOf = (tenant: Tenant) => `key:${keyIdOf(tenant)}`

async function refused(call: Promise<unknown>): Promise<unknown> {
  return await call.then(
    () => {
      throw new Error('the call was not refused')
    },
    (error: unknown) => error,
  )
}

async function lastOf(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _message of stream);
}

async function denialsOf(actor: string) {
  const list = tollgate.client(AuditService, adminKey)
  return (await list.listAuditRecords({ kind: AuditKind.DENIAL, actor, pageSize: 1_000 })).records
}

const sum = async (): Promise<number> => {
  const [row] = await postgres.sql<[{ sum: number }]>`
    select coalesce(sum(count), 0)::int8 as sum from audit_records where kind = 'denial'`
  return row.sum
}

describe('a denial', () => {
  const secret = 'the merger is on Friday'
  const payload = chat(secret)
  /** A caller that puts its key where it does not belong. */
  const as = (tenant: Tenant) => ({
    headers: { authorization: `Bearer ${tenant.key}`, 'user-agent': tenant.key, 'content-type': 'application/json' },
  })
  const connect = (useBinaryFormat: boolean) =>
    createClient(
      ConsumptionService,
      createConnectTransport({ baseUrl: tollgate.address, httpVersion: '1.1', useBinaryFormat }),
    )
  const usage = () => tollgate.client(UsageService, own.key)
  const openai = async (stream: boolean) => {
    const body = JSON.stringify({ model: other.serviceId, messages: [{ role: 'user', content: secret }], stream })
    const answer = await fetch(`${tollgate.address}/v1/chat/completions`, { method: 'POST', body, ...as(own) })
    throw new Error(`${answer.status} ${await answer.text()}`)
  }
  const consumerId = () => other.consumerId
  const cases: Readonly<
    Record<string, { call: () => Promise<unknown>; action: RegExp; reason: string; about: () => string }>
  > = {
    "another's usage": {
      call: () => usage().listUsageRecords({ consumerId: consumerId() }),
      action: /UsageService\/ListUsageRecords$/,
      reason: 'CONSUMER_MISMATCH field=consumer_id',
      about: () => `consumer/${consumerId()}`,
    },
    "another's quota": {
      call: () =>
        tollgate.client(ConsumptionService, own.key).checkQuota({ serviceId: own.serviceId, consumerId: consumerId() }),
      action: /ConsumptionService\/CheckQuota$/,
      reason: 'CONSUMER_MISMATCH field=consumer_id',
      about: () => `consumer/${consumerId()}`,
    },
    "another's keys": {
      call: () => tollgate.client(KeyService, own.key).createKey({ consumerId: consumerId() }),
      action: /KeyService\/CreateKey$/,
      reason: 'CONSUMER_MISMATCH field=consumer_id',
      about: () => `consumer/${consumerId()}`,
    },
    'the audit log': {
      call: () => tollgate.client(AuditService, own.key).listAuditRecords({}),
      action: /AuditService\/ListAuditRecords$/,
      reason: 'PERMISSION_MISSING permission=audit.read',
      about: () => '',
    },
    'the registry': {
      call: () => tollgate.client(Registry, own.key).registerService({ service: { name: 'x', version: '1.0.0' } }),
      action: /Registry\/RegisterService$/,
      reason: 'PERMISSION_MISSING permission=services.write',
      about: () => '',
    },
    'the audit log over HTTP': {
      call: async () => {
        const answer = await fetch(`${tollgate.address}/v1/audit/records`, as(own))
        throw new Error(`${answer.status} ${await answer.text()}`)
      },
      action: /AuditService\/ListAuditRecords$/,
      reason: 'PERMISSION_MISSING permission=audit.read',
      about: () => '',
    },
    'a service without a grant over Connect JSON': {
      call: () => connect(false).routeRequest({ serviceId: other.serviceId, payload }, as(own)),
      action: /ConsumptionService\/RouteRequest$/,
      reason: 'POLICY_DENIED policyId=builtin/grants',
      about: () => `service/${other.serviceId}`,
    },
    'a service without a grant in a stream over gRPC': {
      call: () =>
        lastOf(tollgate.client(ConsumptionService, own.key).streamRequest({ serviceId: other.serviceId, payload })),
      action: /ConsumptionService\/StreamRequest$/,
      reason: 'POLICY_DENIED policyId=builtin/grants',
      about: () => `service/${other.serviceId}`,
    },
    'a service without a grant over the OpenAI API': {
      call: () => openai(false),
      action: /^POST \/v1\/chat\/completions$/,
      reason: 'POLICY_DENIED policyId=builtin/grants',
      about: () => `service/${other.serviceId}`,
    },
    'a service without a grant in a stream over the OpenAI API': {
      call: () => openai(true),
      action: /^POST \/v1\/chat\/completions$/,
      reason: 'POLICY_DENIED policyId=builtin/grants',
      about: () => `service/${other.serviceId}`,
    },
  }

  test.each(Object.entries(cases))(
    'of %s is in the audit log before its answer',
    async (_name, { call, action, reason, about }) => {
      const before = await sum()
      expect(String(await refused(call()))).toMatch(/permission_denied|^Error: 403/)
      expect(await sum()).toBe(before + 1)
      const [newest] = await denialsOf(actorOf(own))
      expect(newest).toMatchObject({
        action: expect.stringMatching(action),
        reason,
        resource: about(),
        organizationId: own.organizationId,
        address: '127.0.0.1',
      })
      expect(newest?.requestId).toMatch(/^[0-9a-f-]{36}$/)
    },
  )

  test('of whoever holds a revoked key is in the log; a wrong key is not', async () => {
    const keys = tollgate.client(KeyService, adminKey)
    const { key, apiKey } = await keys.createKey({ consumerId: own.consumerId })
    await keys.revokeKey({ consumerId: own.consumerId, keyId: apiKey?.id ?? '' })
    await refused(tollgate.client(UsageService, key).listUsageRecords({}))
    expect(await denialsOf(`key:${apiKey?.id}`)).toMatchObject([
      { reason: 'CREDENTIAL_REVOKED', resource: `key/${apiKey?.id}`, organizationId: own.organizationId },
    ])
    const before = await sum()
    await refused(tollgate.client(UsageService, `${key.slice(0, -1)}!`).listUsageRecords({}))
    await refused(tollgate.client(UsageService, 'nobody').listUsageRecords({}))
    expect(await sum()).toBe(before)
  })

  test('leaves neither prompt nor key in any column, wherever its caller put them', async () => {
    const names = { serviceId: own.serviceId, consumerId: own.key }
    await refused(connect(true).checkQuota(names, as(own)))
    await refused(usage().listUsageRecords({ consumerId: secret }))
    const rows = await postgres.sql<{ row: string }[]>`select audit_records::text as row from audit_records`
    expect(rows.length).toBeGreaterThan(5)
    const text = rows.map(({ row }) => row).join('\n')
    expect(text).not.toContain('merger')
    for (const { key } of [own, other]) expect(text).not.toContain(key.slice(20))
    expect(text).not.toContain(adminKey)
  })
})

describe('a flood', () => {
  test('of 10,000 identical denials leaves few records, whose counts add up', async () => {
    const before = await sum()
    const records = (await denialsOf(actorOf(other))).length
    const clients = Array.from({ length: 4 }, () =>
      createClient(
        UsageService,
        createGrpcTransport({
          baseUrl: tollgate.address,
          interceptors: [
            (next) => (request) => {
              request.header.set('authorization', `Bearer ${other.key}`)
              return next(request)
            },
          ],
        }),
      ),
    )
    const caller = async (index: number): Promise<void> => {
      const client = clients[index % clients.length]
      for (let call = 0; call < 4; call++)
        await refused(client?.listUsageRecords({ consumerId: own.consumerId }) ?? Promise.reject())
    }
    await Promise.all(Array.from({ length: 2_500 }, (_, index) => caller(index)))
    // Whoever was answered after a second was so before its record was written.
    await eventually(async () => (await sum()) >= before + 10_000)
    expect(await sum()).toBe(before + 10_000)
    expect((await denialsOf(actorOf(other))).length - records).toBeLessThan(100)
  }, 120_000)
})

describe('a process that is killed', () => {
  test('leaves every denial that it answered within a second', async () => {
    const answered: string[] = []
    const before = await sum()
    const client = tollgate.client(UsageService, own.key)
    const callers = Array.from({ length: 20 }, async () => {
      for (;;) {
        const consumerId = crypto.randomUUID()
        const startedMs = performance.now()
        const error = await refused(client.listUsageRecords({ consumerId }))
        if (!String(error).includes('permission_denied')) return
        if (performance.now() - startedMs < 1_000) answered.push(`consumer/${consumerId}`)
      }
    })
    await eventually(() => answered.length > 100)
    await tollgate.kill9()
    await Promise.all(callers)
    const rows = await postgres.sql<{ resource: string }[]>`select resource from audit_records where kind = 'denial'`
    const kept = new Set(rows.map(({ resource }) => resource))
    expect(answered.filter((resource) => !kept.has(resource))).toEqual([])
    expect(await sum()).toBeGreaterThanOrEqual(before + answered.length)
    tollgate = await start()
  }, 60_000)
})

describe('while Postgres is away', () => {
  test('calls are denied all the same, and the log has them when it is back', async () => {
    const client = tollgate.client(UsageService, own.key)
    const before = await sum()
    await refused(client.listUsageRecords({ consumerId: other.consumerId }))
    await postgres.shutDown()
    const asked = Array.from({ length: 30 }, () => client.listUsageRecords({ consumerId: crypto.randomUUID() }))
    const errors = await Promise.all(asked.map(refused))
    expect(new Set(errors.map((error) => String(error).includes('permission_denied')))).toEqual(new Set([true]))
    const health = async () =>
      (await (await fetch(`${tollgate.address}/health/detailed`)).json()) as { components: unknown }
    await eventually(async () => JSON.stringify(await health()).includes('"audit":{"status":"degraded"'))
    const metrics = await (await fetch(`${tollgate.address}/metrics`)).text()
    expect(metrics).toMatch(/^tollgate_audit_denials_waiting 30$/m)
    expect(metrics).toMatch(/^tollgate_audit_denials_dropped_total 0$/m)
    await postgres.restart()
    await eventually(async () => (await sum()) === before + 31)
    await eventually(async () => JSON.stringify(await health()).includes('"audit":{"status":"ok"'))
  }, 60_000)
})
