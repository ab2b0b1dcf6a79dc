import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DataClassification } from '../../gen/marketplace/v1/classification_pb.ts'
import {
  type ConsumerSchema,
  ConsumerService,
  ConsumerStatus,
  OrganizationStatus,
  Tier,
} from '../../gen/marketplace/v1/consumers_pb.ts'
import { ProjectService, ProjectStatus } from '../../gen/marketplace/v1/projects_pb.ts'
import { callerOf, identityWorld } from '../../test/support/identity-world.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { createSnapshots, type Snapshots } from '../registry/snapshots.ts'
import type { Caller } from './principal.ts'

let server: PostgresServer
let snapshots: Snapshots
let world: ReturnType<typeof identityWorld>
const { getOrganization, listOrganizations, listConsumers } = ConsumerService.method
const { getProject, listProjects } = ProjectService.method

beforeAll(async () => {
  server = await startPostgresServer()
  snapshots = createSnapshots({ sql: server.sql, log: silentLog })
  await snapshots.start()
  world = identityWorld({ sql: server.sql, snapshots })
}, 60_000)

afterAll(async () => {
  await snapshots?.close()
  await server?.stop()
})

async function trailOf(resource: string): Promise<unknown[]> {
  return server.sql`
    select action, reason, organization_id, before is null as is_new from audit_records where resource = ${resource}
    order by created_at, action`
}

function orgAdminOf(organizationId: string): Caller {
  return callerOf(['org_admin'], organizationId)
}

describe('an organization', () => {
  test('comes back as it was stored and changed, with the defaults of unset fields, and leaves its trail', async () => {
    const plain = await world.newOrganization()
    expect(plain).toMatchObject({
      status: OrganizationStatus.ACTIVE,
      tier: Tier.BASIC,
      clearance: DataClassification.INTERNAL,
      homeRegion: '',
      grantedServices: [],
      etag: 'r1',
    })
    const wanted = {
      tier: Tier.PREMIUM,
      clearance: DataClassification.RESTRICTED,
      homeRegion: 'eu-west-1',
      grantedServices: [randomUUID()],
    }
    const changed = await world.updateOrganization({ id: plain.id, ...wanted, etag: plain.etag }, [])
    expect(changed).toMatchObject({ ...wanted, name: plain.name, etag: 'r2' })
    const read = await invoke(getOrganization, world.consumers.getOrganization, { id: plain.id }, administrator)
    expect(read).toEqual(changed)
    expect(snapshots.current().organizationsById.get(plain.id)).toMatchObject({
      tier: 'premium',
      clearance: 'restricted',
      homeRegion: 'eu-west-1',
    })
    expect(await trailOf(`organization/${plain.id}`)).toEqual([
      { action: 'organization.created', reason: '', organization_id: plain.id, is_new: true },
      { action: 'organization.updated', reason: 'asked', organization_id: plain.id, is_new: false },
    ])
  })

  test('is changed by whoever saw its last change, to a free name, within the rules, and not when it is closed', async () => {
    const { id, etag, name } = await world.newOrganization()
    const other = await world.newOrganization()
    await expect(world.updateOrganization({ id, name: other.name }, ['name'])).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
    })
    await expect(world.updateOrganization({ id, homeRegion: 'EU' }, [])).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'organization.home_region' }],
    })
    await expect(world.updateOrganization({ id }, ['*'])).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'organization.name' }],
    })
    await expect(world.updateOrganization({ id, name }, ['nick'])).rejects.toThrow('"nick"')
    await world.updateOrganization({ id, status: OrganizationStatus.CLOSED }, ['status'])
    await expect(world.updateOrganization({ id, name: 'x', etag }, ['name'])).rejects.toMatchObject({
      reason: 'ETAG_MISMATCH',
    })
    await expect(world.updateOrganization({ id, status: OrganizationStatus.ACTIVE }, ['status'])).rejects.toMatchObject(
      { reason: 'STATUS_FINAL' },
    )
    for (const unknown of [randomUUID(), 'nonsense']) {
      await expect(world.updateOrganization({ id: unknown }, [])).rejects.toMatchObject({
        reason: 'ORGANIZATION_NOT_FOUND',
      })
    }
  })

  test('is all that its own people see of organizations', async () => {
    const [mine, other] = [await world.newOrganization(), await world.newOrganization()]
    const by = orgAdminOf(mine.id)
    const { getOrganization: get, listOrganizations: list } = world.consumers
    expect(await invoke(getOrganization, get, {}, by)).toEqual(mine)
    await expect(invoke(getOrganization, get, { id: other.id }, by)).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
    expect((await invoke(listOrganizations, list, {}, by)).organizations).toEqual([mine])
    const seen = await invoke(listOrganizations, list, { pageSize: 1000, tier: Tier.BASIC }, administrator)
    expect(seen.organizations.map(({ id }) => id)).toEqual(expect.arrayContaining([mine.id, other.id]))
    await expect(invoke(getOrganization, get, {}, administrator)).rejects.toMatchObject({ fields: [{ field: 'id' }] })
  })
})

describe('a consumer', () => {
  test('has the tier of its organization unless it is given one, and is changed field by field', async () => {
    const { id: organizationId } = await world.newOrganization({ tier: Tier.ENTERPRISE })
    const consumer = await world.newConsumer({ organizationId, overrides: { requestBurst: 5n, tokensPerMonth: 9n } })
    expect(consumer).toMatchObject({ tier: Tier.ENTERPRISE, etag: 'r1' })
    const { id } = consumer
    const changed = await world.updateConsumer({ id, tier: Tier.BASIC, overrides: { requestBurst: 7n } }, [
      'tier',
      'overrides.request_burst',
    ])
    expect(changed).toMatchObject({ tier: Tier.BASIC, overrides: { requestBurst: 7n, tokensPerMonth: 9n }, etag: 'r2' })
    await expect(world.updateConsumer({ id, organizationId: randomUUID() }, [])).rejects.toThrow('is never changed')
    expect(await trailOf(`consumer/${id}`)).toEqual([
      { action: 'consumer.created', reason: '', organization_id: organizationId, is_new: true },
      { action: 'consumer.updated', reason: 'asked', organization_id: organizationId, is_new: false },
    ])
  })

  test('is closed for good', async () => {
    const { id: organizationId } = await world.newOrganization()
    const { id } = await world.newConsumer({ organizationId })
    await world.updateConsumer({ id, status: ConsumerStatus.SUSPENDED }, ['status'])
    await world.updateConsumer({ id, status: ConsumerStatus.ACTIVE }, ['status'])
    await world.updateConsumer({ id, status: ConsumerStatus.CLOSED }, ['status'])
    await expect(world.updateConsumer({ id, status: ConsumerStatus.ACTIVE }, ['status'])).rejects.toMatchObject({
      reason: 'STATUS_FINAL',
    })
  })

  test.each([
    ['its own below its organization’s', DataClassification.PUBLIC, DataClassification.RESTRICTED, 'public'],
    [
      'never more than its organization’s',
      DataClassification.RESTRICTED,
      DataClassification.CONFIDENTIAL,
      'confidential',
    ],
    ['its organization’s without one', DataClassification.UNSPECIFIED, DataClassification.PUBLIC, 'public'],
  ] as const)('is cleared for %s', async (_, own, organizations, effective) => {
    const organization = await world.newOrganization({ clearance: organizations, homeRegion: 'eu' })
    const consumer = await world.newConsumer({ organizationId: organization.id, clearance: own })
    expect(consumer).toMatchObject({ clearance: own, homeRegion: '' })
    expect(snapshots.current().consumersById.get(consumer.id)).toMatchObject({ clearance: effective, homeRegion: 'eu' })
    await world.updateConsumer({ id: consumer.id, homeRegion: 'us' }, ['home_region'])
    expect(snapshots.current().consumersById.get(consumer.id)).toMatchObject({ homeRegion: 'us' })
  })

  test('belongs to projects of its own organization only', async () => {
    const [mine, other] = [await world.newOrganization(), await world.newOrganization()]
    const [ours, theirs] = [
      await world.newProject({ organizationId: mine.id }),
      await world.newProject({ organizationId: other.id }),
    ]
    const { id } = await world.newConsumer({ organizationId: mine.id, projectId: ours.id })
    expect(snapshots.current().consumersById.get(id)?.projectId).toBe(ours.id)
    for (const projectId of [theirs.id, randomUUID(), 'nonsense']) {
      const refused = { reason: 'PROJECT_NOT_FOUND', fields: [{ field: 'consumer.project_id' }] }
      await expect(world.newConsumer({ organizationId: mine.id, projectId })).rejects.toMatchObject(refused)
      await expect(world.updateConsumer({ id, projectId }, [])).rejects.toMatchObject(refused)
    }
    expect((await world.updateConsumer({ id }, ['project_id'])).projectId).toBe('')
  })

  test('is given by the administrator of its organization at most what that has', async () => {
    const [granted, foreign] = [randomUUID(), randomUUID()]
    const { id: organizationId } = await world.newOrganization({ tier: Tier.PREMIUM, grantedServices: [granted] })
    const by = orgAdminOf(organizationId)
    const fits = { tier: Tier.PREMIUM, grantedServices: [granted], clearance: DataClassification.PUBLIC }
    const { id } = await world.newConsumer({ organizationId, ...fits }, by)
    const exceeding: [string, MessageInitShape<typeof ConsumerSchema>][] = [
      ['tier', { tier: Tier.ENTERPRISE }],
      ['granted_services', { grantedServices: [granted, foreign] }],
      ['granted_services', { grantedServices: ['*'] }],
      ['clearance', { clearance: DataClassification.CONFIDENTIAL }],
      ['overrides', { overrides: { requestsPerSecond: 10n } }],
      ['home_region', { homeRegion: 'us' }],
    ]
    for (const [field, more] of exceeding) {
      const refused = { reason: 'GRANT_EXCEEDED', fields: [{ field: `consumer.${field}` }] }
      await expect(world.newConsumer({ organizationId, ...more }, by)).rejects.toMatchObject(refused)
      await expect(world.updateConsumer({ id, ...more }, [], by)).rejects.toMatchObject(refused)
      await expect(world.updateConsumer({ id, ...more }, [])).resolves.toBeDefined()
      await expect(world.updateConsumer({ id, name: `kept ${field}` }, ['name'], by)).resolves.toBeDefined()
      await world.updateConsumer({ id, ...fits }, ['tier', 'granted_services', 'clearance', 'overrides', 'home_region'])
    }
  })

  test('is seen, changed and listed by whoever reaches it, with filters', async () => {
    const [mine, other] = [await world.newOrganization(), await world.newOrganization()]
    const project = await world.newProject({ organizationId: mine.id })
    const one = await world.newConsumer({ organizationId: mine.id, projectId: project.id, tier: Tier.PREMIUM })
    const two = await world.newConsumer({ organizationId: mine.id, status: ConsumerStatus.SUSPENDED })
    const theirs = await world.newConsumer({ organizationId: other.id })
    const by = orgAdminOf(mine.id)
    const list = async (request: object, caller: Caller): Promise<string[]> =>
      (await invoke(listConsumers, world.consumers.listConsumers, request, caller)).consumers.map(({ id }) => id)
    expect(await list({}, by)).toEqual([one.id, two.id].sort())
    expect(await list({ projectId: project.id }, by)).toEqual([one.id])
    expect(await list({ tier: Tier.PREMIUM, organizationId: mine.id }, administrator)).toEqual([one.id])
    expect(await list({ status: ConsumerStatus.SUSPENDED }, by)).toEqual([two.id])
    expect(await list({ organizationId: other.id }, administrator)).toEqual([theirs.id])
    await expect(list({ organizationId: other.id }, by)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(world.updateConsumer({ id: theirs.id, name: 'x' }, [], by)).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
  })
})

describe('who changes at once', () => {
  test('with one etag: one wins, and the others are told so', async () => {
    const { id: organizationId } = await world.newOrganization()
    const { id, etag } = await world.newConsumer({ organizationId })
    const changes = [1, 2, 3, 4, 5].map((n) => world.updateConsumer({ id, name: `name by ${n}`, etag }, ['name']))
    const results = await Promise.allSettled(changes)
    const lost = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
    expect(lost.map(({ reason }) => reason)).toEqual(Array(4).fill('ETAG_MISMATCH'))
  })

  test('all of an organization: all succeed, and nothing of one change is lost by another', async () => {
    const { id: organizationId } = await world.newOrganization()
    const project = await world.newProject({ organizationId })
    const { id } = await world.newConsumer({ organizationId })
    const services = Array.from({ length: 6 }, () => randomUUID())
    await Promise.all([
      world.updateConsumer({ id, name: 'renamed' }, ['name']),
      world.updateConsumer({ id, projectId: project.id }, ['project_id']),
      world.updateConsumer({ id, grantedServices: services }, ['granted_services']),
      world.updateOrganization({ id: organizationId, tier: Tier.PREMIUM }, ['tier']),
      world.updateOrganization({ id: organizationId, homeRegion: 'eu' }, ['home_region']),
      world.updateProject({ id: project.id, name: 'renamed' }, ['name']),
      ...services.map(() => world.newConsumer({ organizationId, projectId: project.id })),
    ])
    const record = snapshots.current().consumersById.get(id)
    expect(record).toMatchObject({ name: 'renamed', projectId: project.id, homeRegion: 'eu' })
    expect([...(record?.grantedServices ?? [])]).toEqual(services)
    expect(snapshots.current().organizationsById.get(organizationId)).toMatchObject({
      tier: 'premium',
      homeRegion: 'eu',
    })
  })
})

describe('a project', () => {
  test('comes back as it was stored and changed, is in the snapshot, and leaves its trail', async () => {
    const { id: organizationId } = await world.newOrganization()
    const by = orgAdminOf(organizationId)
    const project = await world.newProject({ labels: { costCenter: '7' } }, by)
    expect(project).toMatchObject({ organizationId, status: ProjectStatus.ACTIVE, labels: { costCenter: '7' } })
    const changed = await world.updateProject({ id: project.id, labels: {}, name: 'another' }, ['labels', 'name'], by)
    expect(changed).toMatchObject({ name: 'another', labels: {}, etag: 'r2' })
    expect(await invoke(getProject, world.projects.getProject, { id: project.id }, by)).toEqual(changed)
    expect(snapshots.current().projectsById.get(project.id)).toMatchObject({ organizationId, name: 'another' })
    expect(await trailOf(`project/${project.id}`)).toEqual([
      { action: 'project.created', reason: '', organization_id: organizationId, is_new: true },
      { action: 'project.updated', reason: 'asked', organization_id: organizationId, is_new: false },
    ])
    await expect(world.newProject({ name: 'another' }, by)).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' })
    await expect(world.newProject({})).rejects.toMatchObject({ fields: [{ field: 'project.organization_id' }] })
    for (const unknown of [randomUUID(), 'nonsense']) {
      await expect(world.newProject({ organizationId: unknown })).rejects.toMatchObject({
        reason: 'ORGANIZATION_NOT_FOUND',
      })
    }
  })

  test('is out of reach for other organizations, as if it were not there', async () => {
    const [mine, other] = [await world.newOrganization(), await world.newOrganization()]
    const theirs = await world.newProject({ organizationId: other.id })
    const by = orgAdminOf(mine.id)
    for (const id of [theirs.id, randomUUID()]) {
      const refused = { reason: 'ORGANIZATION_MISMATCH' }
      await expect(invoke(getProject, world.projects.getProject, { id }, by)).rejects.toMatchObject(refused)
      await expect(world.updateProject({ id, name: 'x' }, [], by)).rejects.toMatchObject(refused)
    }
    expect((await invoke(listProjects, world.projects.listProjects, {}, by)).projects).toEqual([])
    const request = { organizationId: other.id, status: ProjectStatus.ACTIVE }
    const seen = await invoke(listProjects, world.projects.listProjects, request, administrator)
    expect(seen.projects).toEqual([theirs])
  })
})
