import type { MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Pricing, Registry, ServiceStatus } from '../../gen/marketplace/v1/registry_pb.ts'
import type { TrafficSplit, TrafficSplitSchema } from '../../gen/marketplace/v1/traffic_split_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import type { Principal } from '../identity/principal.ts'
import { newId } from '../ids.ts'
import { publisher, startRegistry, type TestRegistry } from './registry-support.ts'

/** Whose services and names are, and what that allows. */

const { method } = Registry

let registry: TestRegistry
beforeAll(async () => {
  registry = await startRegistry()
}, 60_000)
afterAll(() => registry?.close())

type SplitInit = Exclude<MessageInitShape<typeof TrafficSplitSchema>, TrafficSplit>

/** An endpoint that needs no credential. */
const unlocked = { endpoints: [{ url: 'https://a.example/v1' }] }

describe('a publisher', () => {
  test('gives no credential of the gate to an address of its own, and keeps what an operator gave', async () => {
    const own = publisher(await registry.organization())
    const secret = { url: 'https://a.example/v1', credentialRef: 'env:TOKEN' }
    const refused = {
      reason: 'PERMISSION_MISSING',
      metadata: { field: 'service.endpoints[0].credential_ref', permission: 'services.write' },
    }
    await expect(registry.register({ endpoints: [secret] }, own)).rejects.toMatchObject(refused)
    const { id } = await registry.register(unlocked, own)
    await expect(registry.update({ id, endpoints: [secret] }, undefined, own)).rejects.toMatchObject(refused)
    await registry.update({ id, endpoints: [secret] })
    const kept = await registry.update({ id, endpoints: [secret, { url: 'https://b.example/v1' }] }, undefined, own)
    expect(kept.endpoints[0]).toMatchObject(secret)
    for (const changes of [{ url: 'https://thief.example/v1' }, { credentialRef: 'file:/etc/passwd' }]) {
      const endpoints = [{ ...secret, id: kept.endpoints[0]?.id ?? '', ...changes }]
      await expect(registry.update({ id, endpoints }, undefined, own)).rejects.toMatchObject(refused)
    }
  })

  test('registers, changes, prices and retires what its organization owns', async () => {
    const own = publisher(await registry.organization())
    const { id, owner } = await registry.register(unlocked, own)
    expect(owner?.organizationId).toBe(own.organizationId)
    expect((await registry.update({ id, description: 'x' }, undefined, own)).endpoints[0]).toMatchObject({
      url: 'https://a.example/v1',
    })
    const price = { currency: 'USD', model: { case: 'subscription' as const, value: {} } }
    const created: Pricing = await invoke(
      method.createPrice,
      registry.handlers.createPrice,
      { serviceId: id, price },
      own,
    )
    expect(await registry.trailOf(`${id}/${created.version}`)).toMatchObject([
      { type: 'price.created', before: null, resource: { currency: 'USD', subscription: {} } },
    ])
    const retired = await invoke(method.retireService, registry.handlers.retireService, { id }, own)
    expect(retired.status).toBe(ServiceStatus.RETIRED)
  })

  test('changes nothing of others, gives nothing to others, and sees no URL and no credential of others', async () => {
    const own = publisher(await registry.organization())
    const stranger = await registry.organization()
    const price = { currency: 'USD', model: { case: 'subscription' as const, value: {} } }
    for (const owner of [undefined, { organizationId: stranger }]) {
      const { id, name, endpoints } = await registry.register(owner && { owner })
      const refused = { reason: 'ORGANIZATION_MISMATCH' }
      await expect(registry.update({ id, description: 'x' }, undefined, own)).rejects.toMatchObject(refused)
      await expect(invoke(method.retireService, registry.handlers.retireService, { id }, own)).rejects.toMatchObject(
        refused,
      )
      await expect(
        invoke(method.createPrice, registry.handlers.createPrice, { serviceId: id, price }, own),
      ).rejects.toMatchObject(refused)
      const shown = await invoke(method.getService, registry.handlers.getService, { id: name }, own)
      expect(shown.endpoints.map((endpoint) => endpoint.id)).toEqual(endpoints.map((endpoint) => endpoint.id))
      const { services } = await invoke(method.listServices, registry.handlers.listServices, { pageSize: 1000 }, own)
      const listed = services.find((service) => service.id === id)
      for (const endpoint of [...shown.endpoints, ...(listed?.endpoints ?? [])]) {
        expect(endpoint).toMatchObject({ url: '', credentialRef: '' })
      }
    }
    const mine = await registry.register(unlocked, own)
    const given = { id: mine.id, owner: { organizationId: stranger } }
    await expect(registry.update(given, undefined, own)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(registry.register({ ...unlocked, owner: { organizationId: stranger } }, own)).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
    await expect(registry.update({ id: mine.id }, ['owner'], own)).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
  })
})

describe('a name', () => {
  test('is its owner’s: nobody else registers a version of it, not even at the same moment', async () => {
    const [one, other] = [publisher(await registry.organization()), publisher(await registry.organization())]
    const name = `name-${newId()}`
    const racing = [one, other, one, other].map((who, index) =>
      registry.register({ ...unlocked, name, version: `${index}.0.0` }, who),
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
    return invoke(method.setTrafficSplit, registry.handlers.setTrafficSplit, { split: asked }, principal)
  }

  test('is shared among its versions by a split, which has an etag and leaves a trail', async () => {
    const { name } = await registry.register()
    await registry.register({ name, version: '2.0.0' })
    const shares = [
      { version: '1.0.0', weight: 9 },
      { version: '2.0.0', weight: 1 },
    ]
    const first = await split({ name, shares, sticky: true })
    expect(first).toMatchObject({ name, shares, sticky: true, etag: 'r1' })
    expect(registry.snapshots.current().splits.get(name)).toEqual({ name, shares, sticky: true, revision: 1 })
    expect(await invoke(method.getTrafficSplit, registry.handlers.getTrafficSplit, { name }, administrator)).toEqual(
      first,
    )
    await split({ name, shares, etag: 'r1' })
    await expect(split({ name, shares, etag: 'r1' })).rejects.toMatchObject({
      reason: 'ETAG_MISMATCH',
      metadata: { etag: 'r2', field: 'split.etag' },
    })
    expect(await split({ name, shares, etag: 'r2' })).toMatchObject({ etag: 'r2' })
    expect(await split({ name })).toMatchObject({ name, shares: [], etag: '' })
    expect(registry.snapshots.current().splits.has(name)).toBe(false)
    expect(await split({ name })).toMatchObject({ name, shares: [], etag: '' })
    expect(await registry.server.sql`select type from changes where resource_id = ${name} order by position`).toEqual([
      { type: 'traffic_split.set' },
      { type: 'traffic_split.set' },
      { type: 'traffic_split.removed' },
    ])
    // No etag comes again.
    expect(await split({ name, shares })).toMatchObject({ etag: 'r4' })
  })

  test('is split by its owner among versions that are there, each once', async () => {
    const own = publisher(await registry.organization())
    const { name } = await registry.register()
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
    await expect(registry.register({ owner: { organizationId } })).rejects.toMatchObject(refused)
    const { id } = await registry.register()
    await expect(registry.update({ id, owner: { organizationId } })).rejects.toMatchObject(refused)
  },
)
