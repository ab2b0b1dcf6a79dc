/**
 * Every RPC that changes the control plane leaves its trail in the audit log. Which RPCs those are, the contract says: a new
 * one that is not in the table below fails this test.
 */
import { type DescMethod, type DescService, getOption, type JsonValue } from '@bufbuild/protobuf'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AuditService } from '../gen/marketplace/v1/audit_pb.ts'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { EventService } from '../gen/marketplace/v1/events_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { LimitService } from '../gen/marketplace/v1/limits_pb.ts'
import { MarketplaceApi } from '../gen/marketplace/v1/marketplace_api_pb.ts'
import { access } from '../gen/marketplace/v1/options_pb.ts'
import { PolicyService } from '../gen/marketplace/v1/policies_pb.ts'
import { PolicyEngine } from '../gen/marketplace/v1/policy_pb.ts'
import { ProjectService } from '../gen/marketplace/v1/projects_pb.ts'
import { RegistryApi } from '../gen/marketplace/v1/registry_api_pb.ts'
import { Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { UserService } from '../gen/marketplace/v1/users_pb.ts'
import { newId } from '../src/ids.ts'
import { isObject } from '../src/is-object.ts'
import { writeBatch } from '../src/metering/ledger.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'
import { usageEvent } from './support/usage-events.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
let postgres: PostgresServer
let tollgate: Tollgate

beforeAll(async () => {
  postgres = await startPostgresServer()
  tollgate = await startTollgate({
    command: 'serve',
    env: { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey },
  })
}, 60_000)

afterAll(async () => {
  await tollgate?.stop()
  await postgres?.stop()
})

/** What the calls made, by what it is. */
const made: Record<string, string> = {}
const id = (what: string): string => made[what] ?? ''

/** A good request for each RPC, in an order in which each finds what it needs. `keep` names the id of what it made. */
const writes: readonly { readonly method: DescMethod; readonly request: () => JsonValue; readonly keep?: string }[] = [
  {
    method: ConsumerService.method.createOrganization,
    request: () => ({ organization: { name: 'o' } }),
    keep: 'organization',
  },
  {
    method: ConsumerService.method.updateOrganization,
    request: () => ({ organization: { id: id('organization'), name: 'p' }, updateMask: 'name' }),
  },
  {
    method: ProjectService.method.createProject,
    request: () => ({ project: { organizationId: id('organization'), name: 'p' } }),
    keep: 'project',
  },
  {
    method: ProjectService.method.updateProject,
    request: () => ({ project: { id: id('project'), name: 'q' }, updateMask: 'name' }),
  },
  {
    method: ConsumerService.method.createConsumer,
    request: () => ({ consumer: { organizationId: id('organization'), name: 'c' } }),
    keep: 'consumer',
  },
  {
    method: ConsumerService.method.updateConsumer,
    request: () => ({ consumer: { id: id('consumer'), name: 'd' }, updateMask: 'name' }),
  },
  {
    method: UserService.method.createUser,
    request: () => ({ user: { organizationId: id('organization'), issuer: 'https://id.example', subject: 's' } }),
    keep: 'user',
  },
  {
    method: UserService.method.updateUser,
    request: () => ({ user: { id: id('user'), displayName: 'Ada' }, updateMask: 'displayName' }),
  },
  { method: KeyService.method.createKey, request: () => ({ consumerId: id('consumer') }), keep: 'apiKey' },
  {
    method: KeyService.method.updateKey,
    request: () => ({ apiKey: { id: id('apiKey'), consumerId: id('consumer'), name: 'k' }, updateMask: 'name' }),
  },
  {
    method: KeyService.method.rotateKey,
    request: () => ({ consumerId: id('consumer'), keyId: id('apiKey'), overlap: '60s' }),
  },
  { method: KeyService.method.revokeKey, request: () => ({ consumerId: id('consumer'), keyId: id('apiKey') }) },
  {
    method: Registry.method.registerService,
    request: () => ({ service: { name: 's', version: '1.0.0', endpoints: [{ url: 'http://127.0.0.1:9/v1' }] } }),
    keep: 'service',
  },
  {
    method: Registry.method.updateService,
    request: () => ({ service: { id: id('service'), description: 'd' }, updateMask: 'description' }),
  },
  {
    method: Registry.method.createPrice,
    request: () => ({ serviceId: id('service'), price: { currency: 'USD', perRequest: { requestNanos: '1' } } }),
  },
  { method: Registry.method.suspendService, request: () => ({ id: id('service'), reason: 'r' }) },
  { method: Registry.method.resumeService, request: () => ({ id: id('service') }) },
  {
    method: LimitService.method.setLimit,
    request: () => ({ limit: limit(), reason: 'r' }),
  },
  {
    method: LimitService.method.deleteLimit,
    request: () => ({ scope: limit().scope, subjectId: id('consumer'), name: limit().name }),
  },
  {
    method: PolicyService.method.createPolicy,
    request: () => ({ policy: { name: 'p' }, spec: { access: { allowIf: 'true' } } }),
    keep: 'policy',
  },
  {
    method: PolicyService.method.createPolicyVersion,
    request: () => ({ policyId: id('policy'), spec: { access: { allowIf: 'false' } } }),
  },
  {
    method: PolicyService.method.activatePolicy,
    request: () => ({ policyId: id('policy'), version: '2', mode: 'POLICY_MODE_AUDIT_ONLY' }),
  },
  {
    method: PolicyService.method.rollbackPolicy,
    request: () => ({ policyId: id('policy'), version: '1' }),
  },
  {
    method: Registry.method.setTrafficSplit,
    request: () => ({ split: { name: 's', shares: [{ version: '1.0.0', weight: 1 }] } }),
  },
  {
    method: Registry.method.setServiceDocument,
    request: () => ({ document: { serviceId: id('service'), format: 'DOCUMENT_FORMAT_PROTO', content: 'x' } }),
  },
  { method: Registry.method.activateService, request: () => ({ id: id('draft') }) },
  { method: Registry.method.deprecateService, request: () => ({ id: id('draft') }) },
  { method: Registry.method.retireService, request: () => ({ id: id('draft') }) },
  {
    method: RegistryApi.method.addRegistration,
    request: () => ({ name: 'told', version: '1.0.0', metadata: { endpoint: 'http://127.0.0.1:9/v1' } }),
    keep: 'registration',
  },
  {
    method: RegistryApi.method.replaceRegistration,
    request: () => ({ id: id('registration'), name: 'told', version: '1.0.0', metadata: { description: 'd' } }),
  },
  { method: RegistryApi.method.removeRegistration, request: () => ({ id: id('registration') }) },
  {
    method: UsageService.method.correctUsageRecord,
    request: () => ({
      recordId: id('record'),
      requestId: newId(),
      reason: 'r',
      usage: { inputTokens: '1' },
      cost: { currency: 'USD', amountNanos: '1' },
    }),
  },
  { method: PolicyService.method.disablePolicy, request: () => ({ policyId: id('policy') }) },
]

function limit() {
  return {
    scope: 'LIMIT_SCOPE_CONSUMER',
    subjectId: id('consumer'),
    name: 'LIMIT_NAME_REQUESTS_PER_MINUTE',
    amount: '5',
  }
}

/** What needs a write permission and changes nothing that the control plane holds. */
const noChanges: ReadonlySet<DescMethod> = new Set<DescMethod>([
  // Sends again what went out before.
  EventService.method.replayEvents,
  // Shows URLs, which are for those only who may change them.
  Registry.method.listEndpointStates,
  // The keys of KeyService in other shapes, by its implementation: test/http-api.server.test.ts.
  MarketplaceApi.method.createServiceKey,
  MarketplaceApi.method.revokeServiceKey,
])

const services: readonly DescService[] = [
  AuditService,
  ConsumerService,
  ConsumptionService,
  EventService,
  KeyService,
  LimitService,
  MarketplaceApi,
  PolicyEngine,
  PolicyService,
  ProjectService,
  Registry,
  RegistryApi,
  UsageService,
  UserService,
]

/** Permissions that let a caller change the control plane. */
const changing = /\.(write|approve|suspend)$/

test('every RPC with a permission to change something is in the table', () => {
  const declared = services
    .flatMap(({ methods }) => methods)
    .filter((method) => changing.test(getOption(method, access).permission))
  const known = new Set<DescMethod>([...writes.map(({ method }) => method), ...noChanges])
  expect(declared.filter((method) => !known.has(method)).map(String)).toEqual([])
  expect(declared.length).toBe(known.size)
})

test('every one of them leaves a change in the audit log, by who made it', async () => {
  const failed: string[] = []
  await prepare()
  for (const { method, request, keep } of writes) {
    const { answer, requestId } = await call(method, request())
    if (keep !== undefined) made[keep] = idIn(answer)
    const rows = await postgres.sql<{ actor: string }[]>`
      select actor from audit_records where request_id = ${requestId} and kind = 'change'`
    if (rows.length === 0 || rows.some(({ actor }) => actor !== 'administrator')) failed.push(String(method))
  }
  expect(failed).toEqual([])
}, 60_000)

/** A service that nobody activated, and a record of the ledger. */
async function prepare(): Promise<void> {
  const draft = {
    name: 'draft',
    version: '1.0.0',
    status: 'SERVICE_STATUS_PENDING_APPROVAL',
    endpoints: [{ url: 'http://127.0.0.1:9/v1' }],
  }
  made.draft = idIn((await call(Registry.method.registerService, { service: draft })).answer)
  const record = usageEvent({ id: newId(), startMs: Date.now() })
  made.record = record.id
  await writeBatch(postgres.sql, [record])
}

async function call(method: DescMethod, request: JsonValue): Promise<{ answer: unknown; requestId: string }> {
  const response = await fetch(`${tollgate.address}/${method.parent.typeName}/${method.name}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify(request),
  })
  const answer: unknown = await response.json()
  if (!response.ok) throw new Error(`${method}: ${response.status} ${JSON.stringify(answer)}`)
  return { answer, requestId: response.headers.get('x-request-id') ?? '' }
}

/** Of the resource, or of the key that an answer holds. */
function idIn(answer: unknown): string {
  if (!isObject(answer)) return ''
  if (typeof answer.id === 'string') return answer.id
  return isObject(answer.apiKey) && typeof answer.apiKey.id === 'string' ? answer.apiKey.id : ''
}
