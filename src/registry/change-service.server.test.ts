import type { MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Registry, ServiceStatus } from '../../gen/marketplace/v1/registry_pb.ts'
import {
  DocumentFormat,
  type ServiceDocument,
  type ServiceDocumentSchema,
} from '../../gen/marketplace/v1/service_document_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import type { Principal } from '../identity/principal.ts'
import { publisher, startRegistry, type TestRegistry } from './registry-support.ts'

const { method } = Registry

let registry: TestRegistry
beforeAll(async () => {
  registry = await startRegistry()
}, 60_000)
afterAll(() => registry?.close())

type DocumentInit = Exclude<MessageInitShape<typeof ServiceDocumentSchema>, ServiceDocument>

describe('UpdateService', () => {
  test('changes what the mask names, for every replica, and moves etag and time', async () => {
    const before = await registry.register({ description: 'old', tags: ['fast'] })
    const after = await registry.update({ id: before.id, description: 'new', etag: before.etag }, [
      'description',
      'tags',
    ])
    expect(after).toMatchObject({ description: 'new', tags: [], endpoints: before.endpoints })
    expect(after.etag).not.toBe(before.etag)
    expect(registry.snapshots.current().servicesById.get(before.id)).toMatchObject({ description: 'new', revision: 2 })
    const shown = await invoke(method.getService, registry.handlers.getService, { id: before.id }, administrator)
    expect(shown).toEqual(after)
  })

  test('keeps the ids of endpoints that stay, and gives a new one to another URL', async () => {
    const { id, endpoints } = await registry.register()
    const [a, b] = endpoints
    const wanted = [
      { url: 'https://c.example/v1' },
      { url: b?.url ?? '' },
      { id: a?.id ?? '', url: 'https://d.example/v1' },
    ]
    const after = await registry.update({ id, endpoints: wanted }, ['endpoints'])
    expect(after.endpoints.map(({ url }) => url)).toEqual(wanted.map(({ url }) => url))
    expect(after.endpoints[1]?.id).toBe(b?.id)
    const ids = [...endpoints, ...after.endpoints].map((endpoint) => endpoint.id)
    expect(new Set(ids).size).toBe(4)
  })

  test('changes nothing, and leaves no trail, when a service is sent back as it was read', async () => {
    const pricing = { currency: 'USD', model: { case: 'perRequest' as const, value: { requestNanos: 1n } } }
    const before = await registry.register({ pricing })
    expect(await registry.update(before, ['*'])).toEqual(before)
    expect(await registry.update(before)).toEqual(before)
    expect((await registry.trailOf(before.id)).map(({ type }) => type)).toEqual(['service.registered'])
  })

  test('refuses with the current etag what somebody else changed meanwhile; of many at once, one wins', async () => {
    const { id, etag } = await registry.register()
    const racing = Array.from({ length: 8 }, (_, index) =>
      registry.update({ id, etag, description: `${index}` }, ['description']),
    )
    const results = await Promise.allSettled(racing)
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    expect(won.map((service) => service.etag)).toEqual(['r2'])
    for (const result of results) {
      if (result.status === 'fulfilled') continue
      expect(result.reason).toMatchObject({ reason: 'ETAG_MISMATCH', metadata: { etag: 'r2', field: 'service.etag' } })
    }
    const { description } = await invoke(method.getService, registry.handlers.getService, { id }, administrator)
    expect(description).toBe(won[0]?.description)
  })

  test.each([
    ['name', { name: 'other' }],
    ['version', { version: '9.0.0' }],
    ['status', { status: ServiceStatus.RETIRED }],
    ['pricing', { pricing: { currency: 'EUR' } }],
    ['deprecation', { deprecation: { message: 'm' } }],
  ])('refuses %s by name', async (field, changes) => {
    const { id } = await registry.register()
    await expect(registry.update({ id, ...changes })).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: `service.${field}`, rule: 'immutable' }],
    })
  })

  test('holds the rules of the contract and of the protocol to the service as it would be', async () => {
    const { id } = await registry.register()
    await expect(registry.update({ id }, ['endpoints'])).rejects.toMatchObject({
      fields: [{ field: 'service.endpoints', description: 'must not be empty' }],
    })
    await expect(registry.update({ id, jsonPointers: { inputTokens: '/a' } })).rejects.toMatchObject({
      fields: [{ field: 'service.json_pointers' }],
    })
    await expect(registry.update({ id, description: 'x' }, ['descripion'])).rejects.toMatchObject({
      fields: [{ field: 'update_mask', description: '"descripion" is no field of Service' }],
    })
  })

  test.each(['', 'service', '0193d6a0-0000-7000-8000-00000000ffff'])(
    'answers NOT_FOUND for the id "%s"',
    async (id) => {
      await expect(registry.update({ id, description: 'x' })).rejects.toMatchObject({
        reason: 'SERVICE_NOT_FOUND',
        metadata: { field: 'service.id' },
      })
    },
  )
})

describe('a life', () => {
  test('is lived by RPCs, and each step is on record with its reason', async () => {
    const { id: successor } = await registry.register()
    const { id, status } = await registry.register({ status: ServiceStatus.PENDING_APPROVAL })
    expect(status).toBe(ServiceStatus.PENDING_APPROVAL)
    const sunsetTime = { seconds: 1_900_000_000n }
    await invoke(method.activateService, registry.handlers.activateService, { id }, administrator)
    const said = { message: 'old', successor, sunsetTime }
    const deprecated = await invoke(
      method.deprecateService,
      registry.handlers.deprecateService,
      { id, ...said },
      administrator,
    )
    expect(deprecated).toMatchObject({ status: ServiceStatus.DEPRECATED, deprecation: said })
    await invoke(method.suspendService, registry.handlers.suspendService, { id, reason: 'it leaks' }, administrator)
    expect(registry.snapshots.current().servicesById.get(id)).toMatchObject({
      status: 'suspended',
      statusReason: 'it leaks',
    })
    await invoke(method.resumeService, registry.handlers.resumeService, { id }, administrator)
    const retired = await invoke(
      method.retireService,
      registry.handlers.retireService,
      { id, reason: 'over' },
      administrator,
    )
    expect(retired).toMatchObject({
      status: ServiceStatus.RETIRED,
      statusReason: 'over',
      deprecation: said,
      etag: 'r6',
    })

    const trail = await registry.trailOf(id)
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
    const { id, etag } = await registry.register()
    await expect(
      invoke(method.activateService, registry.handlers.activateService, { id }, administrator),
    ).rejects.toMatchObject({
      reason: 'SERVICE_STATUS_CONFLICT',
      metadata: { status: 'active', action: 'activate' },
    })
    await registry.update({ id, description: 'x' })
    await expect(
      invoke(method.retireService, registry.handlers.retireService, { id, etag }, administrator),
    ).rejects.toMatchObject({ reason: 'ETAG_MISMATCH', metadata: { etag: 'r2', field: 'etag' } })
  })

  test('ends with a successor that is there and is another service', async () => {
    const { id, name } = await registry.register()
    for (const successor of [id, `${name}@1.0.0`]) {
      await expect(
        invoke(method.deprecateService, registry.handlers.deprecateService, { id, successor }, administrator),
      ).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT', fields: [{ field: 'successor' }] })
    }
    await expect(
      invoke(method.retireService, registry.handlers.retireService, { id, successor: 'nobody' }, administrator),
    ).rejects.toMatchObject({ reason: 'SERVICE_NOT_FOUND', metadata: { field: 'successor' } })
  })
})

describe('a document', () => {
  const set = (document: DocumentInit, principal: Principal = administrator) =>
    invoke(method.setServiceDocument, registry.handlers.setServiceDocument, { document }, principal)
  const get = (serviceId: string) =>
    invoke(method.getServiceDocument, registry.handlers.getServiceDocument, { serviceId }, administrator)

  test('is given back as it was given, and the service tells of it without its content', async () => {
    const { id, name } = await registry.register()
    const content = '{"openapi": "3.1.0", "info": {"title": "ß"}}'
    await set({ serviceId: id, format: DocumentFormat.OPENAPI_JSON, content })
    expect(await get(name)).toMatchObject({ serviceId: id, format: DocumentFormat.OPENAPI_JSON, content })
    const shown = await invoke(method.getService, registry.handlers.getService, { id }, administrator)
    expect(shown).toMatchObject({ etag: 'r2', document: { sizeBytes: Buffer.byteLength(content) } })
    expect(shown.document?.sha256).toMatch(/^[0-9a-f]{64}$/)
    expect((await registry.update({ id, description: 'x' })).document).toEqual(shown.document)
    expect((await registry.update({ ...shown, document: undefined, etag: '' }, ['*'])).document).toEqual(shown.document)
    await set({ serviceId: id })
    await expect(get(id)).rejects.toMatchObject({ reason: 'SERVICE_DOCUMENT_NOT_FOUND' })
    expect(await registry.server.sql`select type from changes where resource_id = ${id} order by position`).toEqual([
      { type: 'service.registered' },
      { type: 'service.documented' },
      { type: 'service.updated' },
      { type: 'service.updated' },
      { type: 'service.documented' },
    ])
  })

  test('is refused when it is not what it says, and from others than the owner', async () => {
    const { id } = await registry.register()
    for (const [document, field] of [
      [{ content: 'x' }, 'document.format'],
      [{ content: '[]', format: DocumentFormat.OPENAPI_JSON }, 'document.content'],
      [{ content: '{', format: DocumentFormat.OPENAPI_JSON }, 'document.content'],
    ] as const) {
      await expect(set({ serviceId: id, ...document })).rejects.toMatchObject({ fields: [{ field }] })
    }
    const own = publisher(await registry.organization())
    const document = { serviceId: id, content: 'syntax = "proto3";', format: DocumentFormat.PROTO }
    await expect(set(document, own)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(get(id)).rejects.toMatchObject({ reason: 'SERVICE_DOCUMENT_NOT_FOUND' })
  })
})
