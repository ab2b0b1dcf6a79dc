import { readFileSync } from 'node:fs'
import {
  create,
  type DescField,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromJson,
  type JsonValue,
  type Message,
  toJsonString,
} from '@bufbuild/protobuf'
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt'
import type { Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AuditKind, AuditService } from '../gen/marketplace/v1/audit_pb.ts'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { ProjectService } from '../gen/marketplace/v1/projects_pb.ts'
import { Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { Role, UserService } from '../gen/marketplace/v1/users_pb.ts'
import type { Role as RoleName } from '../src/identity/principal.ts'
import { declaredAccess, declaredPaths } from '../src/server/authorize.ts'
import { declaredServices } from '../src/tools/declared-services.ts'
import { parsePermissionPage, roleNames } from '../src/tools/permission-table.ts'
import { refusal } from './support/refusal.ts'
import { startTokenIssuer, type TokenIssuer } from './support/token-issuer.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

/** What docs/identity.md says of each RPC and role. */
const page = parsePermissionPage(readFileSync(new URL('../docs/identity.md', import.meta.url), 'utf8'))
const methods = (await declaredServices()).flatMap((service) => service.methods)
const adminKey = 'an-administrator-key-for-tests-only-0001'

let issuer: TokenIssuer
let tollgate: Tollgate
/** Tokens by role, and those of a user without one. */
const tokens = new Map<RoleName | 'nobody', string>()
const [mine, foreign] = [place(), place()]

function place() {
  return { organizationId: '', consumerId: '', projectId: '', userId: '', serviceId: '', key: '', keyId: '' }
}

beforeAll(async () => {
  issuer = await startTokenIssuer()
  const env = { TOLLGATE_ADMIN_KEY: adminKey, JWT_ISSUER: issuer.issuer, JWT_AUDIENCE: 'gate' }
  tollgate = await startTollgate({ command: 'serve', env })
  for (const [name, organization] of Object.entries({ mine, foreign })) await furnish(name, organization)
  for (const role of roleNames) tokens.set(role, await userWith(role, [roleValues[role]]))
  tokens.set('nobody', await userWith('nobody', []))
}, 120_000)

afterAll(async () => {
  await tollgate?.stop()
  await issuer?.close()
})

async function furnish(name: string, into: ReturnType<typeof place>): Promise<void> {
  const consumers = tollgate.client(ConsumerService, adminKey)
  into.organizationId = (await consumers.createOrganization({ organization: { name } })).id
  const { organizationId } = into
  into.consumerId = (await consumers.createConsumer({ consumer: { name, organizationId } })).id
  into.projectId = (
    await tollgate.client(ProjectService, adminKey).createProject({ project: { name, organizationId } })
  ).id
  const user = { issuer: issuer.issuer, subject: `somebody of ${name}`, organizationId }
  const service = { name, version: '1.0.0', endpoints: [{ url: 'http://127.0.0.1:9/' }], owner: { organizationId } }
  into.serviceId = (await tollgate.client(Registry, adminKey).registerService({ service })).id
  into.userId = (await tollgate.client(UserService, adminKey).createUser({ user })).id
  const { key, apiKey } = await tollgate.client(KeyService, adminKey).createKey({ consumerId: into.consumerId })
  Object.assign(into, { key, keyId: apiKey?.id ?? '' })
}

async function userWith(subject: string, given: Role[]): Promise<string> {
  const { organizationId, consumerId } = mine
  const user = { issuer: issuer.issuer, subject, organizationId, consumerId, roles: given }
  await tollgate.client(UserService, adminKey).createUser({ user })
  return issuer.sign({ sub: subject })
}

const roleValues: Readonly<Record<RoleName, Role>> = {
  admin: Role.ADMIN,
  operator: Role.OPERATOR,
  publisher: Role.PUBLISHER,
  org_admin: Role.ORG_ADMIN,
  finance: Role.FINANCE,
  auditor: Role.AUDITOR,
  gateway: Role.GATEWAY,
  consumer: Role.CONSUMER,
}

/** Why a call is refused; undefined when it is answered, or begins to be. */
async function reasonOf(
  method: DescMethod,
  credential: string | undefined,
  input: Message = create(method.input),
): Promise<string | undefined> {
  const transport = transportOf(credential)
  const leave = new AbortController()
  const call = async (): Promise<void> => {
    if (isUnary(method)) await transport.unary(method, leave.signal, undefined, undefined, input)
    else if (isServerStreaming(method)) {
      const { message } = await transport.stream(method, leave.signal, undefined, undefined, once(input))
      for await (const _ of message) break
    }
  }
  try {
    return (await refusal(call())).reason
  } finally {
    leave.abort()
  }
}

function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === 'unary'
}

function isServerStreaming(method: DescMethod): method is DescMethodServerStreaming {
  return method.methodKind === 'server_streaming'
}

async function* once<T>(value: T): AsyncIterable<T> {
  yield value
}

const transports = new Map<string | undefined, Transport>()

function transportOf(credential: string | undefined): Transport {
  const known = transports.get(credential)
  if (known !== undefined) return known
  const transport = createGrpcTransport({
    baseUrl: tollgate.address,
    interceptors: [
      (next) => (request) => {
        if (credential !== undefined) request.header.set('authorization', `Bearer ${credential}`)
        return next(request)
      },
    ],
  })
  transports.set(credential, transport)
  return transport
}

function nameOf(method: DescMethod): string {
  return `${method.parent.name}.${method.name}`
}

/** A request in which nothing stands but the text at the path. */
function requestWith(method: DescMethod, path: readonly DescField[], text: string): Message {
  const json = path.reduceRight<JsonValue>((inner, field) => ({ [field.jsonName]: inner }), text)
  return fromJson(method.input, json)
}

test('docs/identity.md has every RPC', () => {
  expect([...page.keys()].sort()).toEqual(methods.map(nameOf).sort())
})

describe.each(methods.map((method) => [nameOf(method), method] as const))('%s', (name, method) => {
  test.each(roleNames)('is open to %s as docs/identity.md says', async (role) => {
    const reason = await reasonOf(method, tokens.get(role))
    if (page.get(name)?.has(role) === true) expect(reason).not.toBe('PERMISSION_MISSING')
    else expect(reason).toBe('PERMISSION_MISSING')
  })

  test('is closed to users without a role, and to callers without a credential', async () => {
    expect(await reasonOf(method, tokens.get('nobody'))).toBe('PERMISSION_MISSING')
    expect(await reasonOf(method, undefined)).toBe('CREDENTIAL_MISSING')
  })

  test('lets an API key do what the role consumer does', async () => {
    const isOpen = page.get(name)?.has('consumer') === true
    expect((await reasonOf(method, mine.key)) === 'PERMISSION_MISSING').toBe(!isOpen)
  })
})

/** Each RPC that only reads, with each role that may call it and does not reach everybody; the catalog shows all services. */
const confinedReads = methods.filter(isUnary).flatMap((method) => {
  const access = declaredAccess(method)
  if (typeof access === 'string' || access.permission === 'services.read') return []
  if (method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS) return []
  const reaches = [...(page.get(nameOf(method)) ?? [])]
  return reaches.filter(([, reach]) => reach !== 'all').map(([role]) => [nameOf(method), role, method] as const)
})

test.each(confinedReads)('%s without a name shows nothing of another organization to %s', async (_, role, method) => {
  const asked = transportOf(tokens.get(role)).unary(method, undefined, undefined, undefined, create(method.input))
  // Whoever must name something first is refused, and sees nothing either.
  const shown = await asked.then(
    ({ message }) => toJsonString(method.output, message),
    () => '',
  )
  for (const id of Object.values(foreign)) expect(shown).not.toContain(id)
})

/** Each RPC whose request names somebody, with each role that may call it and does not reach everybody. */
function confined(of: 'consumerPath' | 'organizationPath') {
  return methods.flatMap((method) => {
    const path = declaredPaths(method)[of]
    const reaches = [...(page.get(nameOf(method)) ?? [])]
    if (path.length === 0) return []
    return reaches.filter(([, reach]) => reach !== 'all').map(([role]) => [nameOf(method), role, method, path] as const)
  })
}

describe('what belongs to others is refused', () => {
  test.each(confined('consumerPath'))('%s of another consumer to %s', async (_, role, method, path) => {
    const request = requestWith(method, path, foreign.consumerId)
    expect(await reasonOf(method, tokens.get(role), request)).toBe('CONSUMER_MISMATCH')
    const unknown = requestWith(method, path, '00000000-0000-7000-8000-000000000000')
    expect(await reasonOf(method, tokens.get(role), unknown)).toBe('CONSUMER_MISMATCH')
  })

  test.each(confined('organizationPath'))('%s of another organization to %s', async (_, role, method, path) => {
    const request = requestWith(method, path, foreign.organizationId)
    expect(await reasonOf(method, tokens.get(role), request)).toBe('ORGANIZATION_MISMATCH')
  })

  test.each([
    ['GetProject', 'org_admin', ProjectService.method.getProject, () => ({ id: foreign.projectId })],
    ['UpdateProject', 'org_admin', ProjectService.method.updateProject, () => ({ project: { id: foreign.projectId } })],
    ['GetUser', 'org_admin', UserService.method.getUser, () => ({ id: foreign.userId })],
    ['UpdateUser', 'org_admin', UserService.method.updateUser, () => ({ user: { id: foreign.userId } })],
    ['UpdateService', 'publisher', Registry.method.updateService, () => ({ service: { id: foreign.serviceId } })],
    ['DeprecateService', 'publisher', Registry.method.deprecateService, () => ({ id: foreign.serviceId })],
    ['RetireService', 'publisher', Registry.method.retireService, () => ({ id: foreign.serviceId })],
    [
      'SetServiceDocument',
      'publisher',
      Registry.method.setServiceDocument,
      () => ({ document: { serviceId: foreign.serviceId } }),
    ],
  ] as const)('%s by id of another organization to %s', async (_, role, method, request) => {
    const message = fromJson(method.input, request())
    expect(await reasonOf(method, tokens.get(role), message)).toBe('ORGANIZATION_MISMATCH')
  })
})

describe('a consumer that asks for what another one', () => {
  test.each([
    ['used', UsageService.method.listUsageRecords],
    ['used in a month', UsageService.method.getUsageStats],
    ['has left of a limit', ConsumptionService.method.checkQuota],
    ['has left of all limits', ConsumptionService.method.getQuota],
    ['has for keys', KeyService.method.listKeys],
  ] as const)('%s is denied it, and the audit log says so', async (_, method) => {
    const message = requestWith(method, declaredPaths(method).consumerPath, foreign.consumerId)
    expect(await reasonOf(method, mine.key, message)).toBe('CONSUMER_MISMATCH')
    const denials = {
      kind: AuditKind.DENIAL,
      action: `${method.parent.typeName}/${method.name}`,
      actor: `key:${mine.keyId}`,
    }
    const { records } = await tollgate.client(AuditService, adminKey).listAuditRecords(denials)
    expect(records.map(({ reason }) => reason)).toContainEqual(expect.stringContaining('CONSUMER_MISMATCH'))
  })

  test('did is denied the audit log, and the audit log says so', async () => {
    const method = AuditService.method.listAuditRecords
    expect(await reasonOf(method, mine.key)).toBe('PERMISSION_MISSING')
    const denials = {
      kind: AuditKind.DENIAL,
      action: 'marketplace.v1.AuditService/ListAuditRecords',
      actor: `key:${mine.keyId}`,
    }
    const { records } = await tollgate.client(AuditService, adminKey).listAuditRecords(denials)
    expect(records.map(({ reason }) => reason)).toContainEqual(expect.stringContaining('PERMISSION_MISSING'))
  })
})
