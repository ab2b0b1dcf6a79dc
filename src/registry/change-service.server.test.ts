import { create, type JsonObject, type MessageInitShape } from '@bufbuild/protobuf'
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type Pricing,
  Registry,
  type Service,
  type ServiceSchema,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import {
  DocumentFormat,
  type ServiceDocument,
  type ServiceDocumentSchema,
} from '../../gen/marketplace/v1/service_document_pb.ts'
import type { TrafficSplit, TrafficSplitSchema } from '../../gen/marketplace/v1/traffic_split_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import type { Caller, Principal } from '../identity/principal.ts'
import { newId } from '../ids.ts'
import { createRegistryService } from './registry-service.ts'
import { createSnapshots, type Snapshots } from './snapshots.ts'

const { method } = Registry

let server: PostgresServer
let snapshots: Snapshots
let registry: ReturnType<typeof createRegistryService>

beforeAll(async () => {
  server = await startPostgresServer()
  snapshots = createSnapshots({ sql: server.sql, log: silentLog, pollMs: 3_600_000 })
  await snapshots.start()
  registry = createRegistryService({ sql: server.sql, snapshots, newId })
}, 60_000)

afterAll(async () => {
  await snapshots?.close()
  await server?.stop()
})

type DocumentInit = Exclude<MessageInitShape<typeof ServiceDocumentSchema>, ServiceDocument>
type SplitInit = Exclude<MessageInitShape<typeof TrafficSplitSchema>, TrafficSplit>
type Init = Exclude<MessageInitShape<typeof ServiceSchema>, Service>

function register(changes: Init = {}, principal: Principal = administrator): Promise<Service> {
  const service = {
    name: `service-${newId()}`,
    version: '1.0.0',
    endpoints: [{ url: 'https://a.example/v1', credentialRef: 'env:TOKEN' }, { url: 'https://b.example/v1' }],
    ...changes,
  }
  return invoke(method.registerService, registry.registerService, { service }, principal)
}

function update(service: Init | Service, paths?: string[], principal: Principal = administrator): Promise<Service> {
  const updateMask = paths && create(FieldMaskSchema, { paths })
  return invoke(method.updateService, registry.updateService, { service, ...(updateMask && { updateMask }) }, principal)
}

/** An endpoint that needs no credential. */
const unlocked: Init = { endpoints: [{ url: 'https://a.example/v1' }] }

async function organization(): Promise<string> {
  const id = newId()
  await server.sql`insert into organizations (id, name) values (${id}, ${id})`
  return id
}

function publisher(organizationId: string): Caller {
  return { ...administrator, kind: 'key', subject: 'key:p', roles: ['publisher'], organizationId }
}

/** What the log of changes and the audit log say of a resource, in order. */
async function trailOf(id: string): Promise<{ type: string; resource: JsonObject; before: string | null }[]> {
  return server.sql`
    select type, changes.resource, before, reason
    from changes join audit_records on audit_records.resource = resource_kind || '/' || resource_id and action = type
    where resource_id = ${id} order by position, sequence`
}

describe('UpdateService', () => {
  test('changes what the mask names, for every replica, and moves etag and time', async () => {
    const before = await register({ description: 'old', tags: ['fast'] })
    const after = await update({ id: before.id, description: 'new', etag: before.etag }, ['description', 'tags'])
    expect(after).toMatchObject({ description: 'new', tags: [], endpoints: before.endpoints })
    expect(after.etag).not.toBe(before.etag)
    expect(snapshots.current().servicesById.get(before.id)).toMatchObject({ description: 'new', revision: 2 })
    const shown = await invoke(method.getService, registry.getService, { id: before.id }, administrator)
    expect(shown).toEqual(after)
  })

  test('keeps the ids of endpoints that stay, and gives a new one to another URL', async () => {
    const { id, endpoints } = await register()
    const [a, b] = endpoints
    const wanted = [
      { url: 'https://c.example/v1' },
      { url: b?.url ?? '' },
      { id: a?.id ?? '', url: 'https://d.example/v1' },
    ]
    const after = await update({ id, endpoints: wanted }, ['endpoints'])
    expect(after.endpoints.map(({ url }) => url)).toEqual(wanted.map(({ url }) => url))
    expect(after.endpoints[1]?.id).toBe(b?.id)
    const ids = [...endpoints, ...after.endpoints].map((endpoint) => endpoint.id)
    expect(new Set(ids).size).toBe(4)
  })

  test('changes nothing, and leaves no trail, when a service is sent back as it was read', async () => {
    const pricing = { currency: 'USD', model: { case: 'perRequest' as const, value: { requestNanos: 1n } } }
    const before = await register({ pricing })
    expect(await update(before, ['*'])).toEqual(before)
    expect(await update(before)).toEqual(before)
    expect((await trailOf(before.id)).map(({ type }) => type)).toEqual(['service.registered'])
  })

  test('refuses with the current etag what somebody else changed meanwhile; of many at once, one wins', async () => {
    const { id, etag } = await register()
    const racing = Array.from({ length: 8 }, (_, index) =>
      update({ id, etag, description: `${index}` }, ['description']),
    )
    const results = await Promise.allSettled(racing)
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    expect(won.map((service) => service.etag)).toEqual(['r2'])
    for (const result of results) {
      if (result.status === 'fulfilled') continue
      expect(result.reason).toMatchObject({ reason: 'ETAG_MISMATCH', metadata: { etag: 'r2', field: 'service.etag' } })
    }
    const { description } = await invoke(method.getService, registry.getService, { id }, administrator)
    expect(description).toBe(won[0]?.description)
  })

  test.each([
    ['name', { name: 'other' }],
    ['version', { version: '9.0.0' }],
    ['status', { status: ServiceStatus.RETIRED }],
    ['pricing', { pricing: { currency: 'EUR' } }],
    ['deprecation', { deprecation: { message: 'm' } }],
  ])('refuses %s by name', async (field, changes) => {
    const { id } = await register()
    await expect(update({ id, ...changes })).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: `service.${field}`, rule: 'immutable' }],
    })
  })

  test('holds the rules of the contract and of the protocol to the service as it would be', async () => {
    const { id } = await register()
    await expect(update({ id }, ['endpoints'])).rejects.toMatchObject({
      fields: [{ field: 'service.endpoints', description: 'must not be empty' }],
    })
    await expect(update({ id, jsonPointers: { inputTokens: '/a' } })).rejects.toMatchObject({
      fields: [{ field: 'service.json_pointers' }],
    })
    await expect(update({ id, description: 'x' }, ['descripion'])).rejects.toMatchObject({
      fields: [{ field: 'update_mask', description: '"descripion" is no field of Service' }],
    })
  })

  test.each(['', 'service', '0193d6a0-0000-7000-8000-00000000ffff'])(
    'answers NOT_FOUND for the id "%s"',
    async (id) => {
      await expect(update({ id, description: 'x' })).rejects.toMatchObject({
        reason: 'SERVICE_NOT_FOUND',
        metadata: { field: 'service.id' },
      })
    },
  )
})

describe('a life', () => {
  test('is lived by RPCs, and each step is on record with its reason', async () => {
    const { id: successor } = await register()
    const { id, status } = await register({ status: ServiceStatus.PENDING_APPROVAL })
    expect(status).toBe(ServiceStatus.PENDING_APPROVAL)
    const sunsetTime = { seconds: 1_900_000_000n }
    await invoke(method.activateService, registry.activateService, { id }, administrator)
    const said = { message: 'old', successor, sunsetTime }
    const deprecated = await invoke(method.deprecateService, registry.deprecateService, { id, ...said }, administrator)
    expect(deprecated).toMatchObject({ status: ServiceStatus.DEPRECATED, deprecation: said })
    await invoke(method.suspendService, registry.suspendService, { id, reason: 'it leaks' }, administrator)
    expect(snapshots.current().servicesById.get(id)).toMatchObject({ status: 'suspended', statusReason: 'it leaks' })
    await invoke(method.resumeService, registry.resumeService, { id }, administrator)
    const retired = await invoke(method.retireService, registry.retireService, { id, reason: 'over' }, administrator)
    expect(retired).toMatchObject({
      status: ServiceStatus.RETIRED,
      statusReason: 'over',
      deprecation: said,
      etag: 'r6',
    })

    const trail = await trailOf(id)
    expect(trail.map(({ type }) => type)).toEqual([
      'service.registered',
      'service.activated',
      'service.deprecated',
      'service.suspended',
      'service.resumed',
      'service.retired',
    ])
    expect(trail[3]).toMatchObject({ reason: 'it leaks', resource: { id, status: 'SERVICE_STATUS_SUSPENDED' } })
    expect(trail[3]?.before).toContain('SERVICE_STATUS_DEPRECATED')
    expect(trail[0]?.before).toBeNull()
  })

  test('goes no way that the table does not have, nor on an old etag', async () => {
    const { id, etag } = await register()
    await expect(invoke(method.activateService, registry.activateService, { id }, administrator)).rejects.toMatchObject(
      {
        reason: 'SERVICE_STATUS_CONFLICT',
        metadata: { status: 'active', action: 'activate' },
      },
    )
    await update({ id, description: 'x' })
    await expect(
      invoke(method.retireService, registry.retireService, { id, etag }, administrator),
    ).rejects.toMatchObject({ reason: 'ETAG_MISMATCH', metadata: { etag: 'r2', field: 'etag' } })
  })

  test('ends with a successor that is there and is another service', async () => {
    const { id, name } = await register()
    for (const successor of [id, `${name}@1.0.0`]) {
      await expect(
        invoke(method.deprecateService, registry.deprecateService, { id, successor }, administrator),
      ).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT', fields: [{ field: 'successor' }] })
    }
    await expect(
      invoke(method.retireService, registry.retireService, { id, successor: 'nobody' }, administrator),
    ).rejects.toMatchObject({ reason: 'SERVICE_NOT_FOUND', metadata: { field: 'successor' } })
  })
})

describe('a publisher', () => {
  test('gives no credential of the gate to an address of its own, and keeps what an operator gave', async () => {
    const own = publisher(await organization())
    const secret = { url: 'https://a.example/v1', credentialRef: 'env:TOKEN' }
    const refused = {
      reason: 'PERMISSION_MISSING',
      metadata: { field: 'service.endpoints[0].credential_ref', permission: 'services.write' },
    }
    await expect(register({ endpoints: [secret] }, own)).rejects.toMatchObject(refused)
    const { id } = await register(unlocked, own)
    await expect(update({ id, endpoints: [secret] }, undefined, own)).rejects.toMatchObject(refused)
    await update({ id, endpoints: [secret] })
    const kept = await update({ id, endpoints: [secret, { url: 'https://b.example/v1' }] }, undefined, own)
    expect(kept.endpoints[0]).toMatchObject(secret)
    for (const changes of [{ url: 'https://thief.example/v1' }, { credentialRef: 'file:/etc/passwd' }]) {
      const endpoints = [{ ...secret, id: kept.endpoints[0]?.id ?? '', ...changes }]
      await expect(update({ id, endpoints }, undefined, own)).rejects.toMatchObject(refused)
    }
  })

  test('registers, changes, prices and retires what its organization owns', async () => {
    const own = publisher(await organization())
    const { id, owner } = await register(unlocked, own)
    expect(owner?.organizationId).toBe(own.organizationId)
    expect((await update({ id, description: 'x' }, undefined, own)).endpoints[0]).toMatchObject({
      url: 'https://a.example/v1',
    })
    const price = { currency: 'USD', model: { case: 'subscription' as const, value: {} } }
    const created: Pricing = await invoke(method.createPrice, registry.createPrice, { serviceId: id, price }, own)
    expect(await trailOf(`${id}/${created.version}`)).toMatchObject([
      { type: 'price.created', before: null, resource: { currency: 'USD', subscription: {} } },
    ])
    const retired = await invoke(method.retireService, registry.retireService, { id }, own)
    expect(retired.status).toBe(ServiceStatus.RETIRED)
  })

  test('changes nothing of others, gives nothing to others, and sees no URL and no credential of others', async () => {
    const own = publisher(await organization())
    const stranger = await organization()
    const price = { currency: 'USD', model: { case: 'subscription' as const, value: {} } }
    for (const owner of [undefined, { organizationId: stranger }]) {
      const { id, name, endpoints } = await register(owner && { owner })
      const refused = { reason: 'ORGANIZATION_MISMATCH' }
      await expect(update({ id, description: 'x' }, undefined, own)).rejects.toMatchObject(refused)
      await expect(invoke(method.retireService, registry.retireService, { id }, own)).rejects.toMatchObject(refused)
      await expect(
        invoke(method.createPrice, registry.createPrice, { serviceId: id, price }, own),
      ).rejects.toMatchObject(refused)
      const shown = await invoke(method.getService, registry.getService, { id: name }, own)
      expect(shown.endpoints.map((endpoint) => endpoint.id)).toEqual(endpoints.map((endpoint) => endpoint.id))
      const { services } = await invoke(method.listServices, registry.listServices, { pageSize: 1000 }, own)
      const listed = services.find((service) => service.id === id)
      for (const endpoint of [...shown.endpoints, ...(listed?.endpoints ?? [])]) {
        expect(endpoint).toMatchObject({ url: '', credentialRef: '' })
      }
    }
    const mine = await register(unlocked, own)
    const given = { id: mine.id, owner: { organizationId: stranger } }
    await expect(update(given, undefined, own)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(register({ ...unlocked, owner: { organizationId: stranger } }, own)).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
    await expect(update({ id: mine.id }, ['owner'], own)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
  })
})

describe('a document', () => {
  const set = (document: DocumentInit, principal: Principal = administrator) =>
    invoke(method.setServiceDocument, registry.setServiceDocument, { document }, principal)
  const get = (serviceId: string) =>
    invoke(method.getServiceDocument, registry.getServiceDocument, { serviceId }, administrator)

  test('is given back as it was given, and the service tells of it without its content', async () => {
    const { id, name } = await register()
    const content = '{"openapi": "3.1.0", "info": {"title": "ß"}}'
    await set({ serviceId: id, format: DocumentFormat.OPENAPI_JSON, content })
    expect(await get(name)).toMatchObject({ serviceId: id, format: DocumentFormat.OPENAPI_JSON, content })
    const shown = await invoke(method.getService, registry.getService, { id }, administrator)
    expect(shown).toMatchObject({ etag: 'r2', document: { sizeBytes: Buffer.byteLength(content) } })
    expect(shown.document?.sha256).toMatch(/^[0-9a-f]{64}$/)
    expect((await update({ id, description: 'x' })).document).toEqual(shown.document)
    expect((await update({ ...shown, document: undefined, etag: '' }, ['*'])).document).toEqual(shown.document)
    await set({ serviceId: id })
    await expect(get(id)).rejects.toMatchObject({ reason: 'SERVICE_DOCUMENT_NOT_FOUND' })
    expect(await server.sql`select type from changes where resource_id = ${id} order by position`).toEqual([
      { type: 'service.registered' },
      { type: 'service.documented' },
      { type: 'service.updated' },
      { type: 'service.updated' },
      { type: 'service.documented' },
    ])
  })

  test('is refused when it is not what it says, and from others than the owner', async () => {
    const { id } = await register()
    for (const [document, field] of [
      [{ content: 'x' }, 'document.format'],
      [{ content: '[]', format: DocumentFormat.OPENAPI_JSON }, 'document.content'],
      [{ content: '{', format: DocumentFormat.OPENAPI_JSON }, 'document.content'],
    ] as const) {
      await expect(set({ serviceId: id, ...document })).rejects.toMatchObject({ fields: [{ field }] })
    }
    const own = publisher(await organization())
    const document = { serviceId: id, content: 'syntax = "proto3";', format: DocumentFormat.PROTO }
    await expect(set(document, own)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(get(id)).rejects.toMatchObject({ reason: 'SERVICE_DOCUMENT_NOT_FOUND' })
  })
})

describe('a name', () => {
  test('is its owner’s: nobody else registers a version of it, not even at the same moment', async () => {
    const [one, other] = [publisher(await organization()), publisher(await organization())]
    const name = `name-${newId()}`
    const racing = [one, other, one, other].map((who, index) =>
      register({ ...unlocked, name, version: `${index}.0.0` }, who),
    )
    const results = await Promise.allSettled(racing)
    const owners = new Set(
      results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.owner?.organizationId] : [])),
    )
    expect(owners.size).toBe(1)
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    }
    expect(results.filter(({ status }) => status === 'fulfilled').length).toBe(2)
  })

  function split(asked: SplitInit, principal: Principal = administrator): Promise<TrafficSplit> {
    return invoke(method.setTrafficSplit, registry.setTrafficSplit, { split: asked }, principal)
  }

  test('is shared among its versions by a split, which has an etag and leaves a trail', async () => {
    const { name } = await register()
    await register({ name, version: '2.0.0' })
    const shares = [
      { version: '1.0.0', weight: 9 },
      { version: '2.0.0', weight: 1 },
    ]
    const first = await split({ name, shares, sticky: true })
    expect(first).toMatchObject({ name, shares, sticky: true, etag: 'r1' })
    expect(snapshots.current().splits.get(name)).toEqual({ name, shares, sticky: true, revision: 1 })
    expect(await invoke(method.getTrafficSplit, registry.getTrafficSplit, { name }, administrator)).toEqual(first)
    await split({ name, shares, etag: 'r1' })
    await expect(split({ name, shares, etag: 'r1' })).rejects.toMatchObject({
      reason: 'ETAG_MISMATCH',
      metadata: { etag: 'r2', field: 'split.etag' },
    })
    expect(await split({ name, shares, etag: 'r2' })).toMatchObject({ etag: 'r2' })
    expect(await split({ name })).toMatchObject({ name, shares: [], etag: '' })
    expect(snapshots.current().splits.has(name)).toBe(false)
    expect(await split({ name })).toMatchObject({ name, shares: [], etag: '' })
    expect(await server.sql`select type from changes where resource_id = ${name} order by position`).toEqual([
      { type: 'traffic_split.set' },
      { type: 'traffic_split.set' },
      { type: 'traffic_split.removed' },
    ])
    // No etag comes again.
    expect(await split({ name, shares })).toMatchObject({ etag: 'r4' })
  })

  test('is split by its owner among versions that are there, each once', async () => {
    const own = publisher(await organization())
    const { name } = await register()
    const shares = [{ version: '1.0.0', weight: 1 }]
    await expect(split({ name, shares }, own)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    const field = 'split.shares[1].version'
    await expect(split({ name, shares: [...shares, ...shares] })).rejects.toMatchObject({ fields: [{ field }] })
    await expect(split({ name, shares: [...shares, { version: '9.0.0', weight: 1 }] })).rejects.toMatchObject({
      reason: 'SERVICE_NOT_FOUND',
      metadata: { field },
    })
    await expect(split({ name: 'nobody' })).rejects.toMatchObject({ metadata: { field: 'split.name' } })
  })
})

test.each(['nobody', '0193d6a0-0000-7000-8000-00000000ffff'])(
  'no service is given to %s, which is no organization',
  async (organizationId) => {
    const refused = { reason: 'ORGANIZATION_NOT_FOUND', metadata: { field: 'service.owner.organization_id' } }
    await expect(register({ owner: { organizationId } })).rejects.toMatchObject(refused)
    const { id } = await register()
    await expect(update({ id, owner: { organizationId } })).rejects.toMatchObject(refused)
  },
)
