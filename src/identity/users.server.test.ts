import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService } from '../../gen/marketplace/v1/consumers_pb.ts'
import { ProjectService } from '../../gen/marketplace/v1/projects_pb.ts'
import { Role, type UserSchema, UserService, UserStatus } from '../../gen/marketplace/v1/users_pb.ts'
import { callerOf } from '../../test/support/identity-world.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { createSnapshots, type Snapshots } from '../registry/snapshots.ts'
import { createConsumerService } from './consumer-service.ts'
import type { Caller } from './principal.ts'
import { createProjectService } from './project-service.ts'
import { userKey } from './user-record.ts'
import { createUserService } from './user-service.ts'

let server: PostgresServer
let snapshots: Snapshots
let users: ReturnType<typeof createUserService>
let consumers: ReturnType<typeof createConsumerService>
/** Two organizations, and a consumer of each. */
const [ours, theirs] = [
  { id: '', consumerId: '' },
  { id: '', consumerId: '' },
]
const { createUser, getUser, listUsers, updateUser } = UserService.method
const { createOrganization, createConsumer } = ConsumerService.method

beforeAll(async () => {
  server = await startPostgresServer()
  snapshots = createSnapshots({ sql: server.sql, log: silentLog })
  await snapshots.start()
  users = createUserService({ sql: server.sql, newId: randomUUID, snapshots })
  consumers = createConsumerService({ sql: server.sql, newId: randomUUID })
  for (const [index, organization] of [ours, theirs].entries()) {
    const request = { organization: { name: `organization ${index}` } }
    organization.id = (await invoke(createOrganization, consumers.createOrganization, request, administrator)).id
    const consumer = { organizationId: organization.id, name: 'consumer' }
    organization.consumerId = (await invoke(createConsumer, consumers.createConsumer, { consumer }, administrator)).id
  }
}, 60_000)

afterAll(async () => {
  await snapshots?.close()
  await server?.stop()
})

const issuer = 'https://id.example'

function orgAdmin(): Caller {
  return callerOf(['org_admin'], ours.id)
}

let subjects = 0
function add(user: MessageInitShape<typeof UserSchema>, by: Caller = administrator) {
  const request = { user: { issuer, subject: `subject-${++subjects}`, ...user } }
  return invoke(createUser, users.createUser, request, by)
}

function update(
  user: MessageInitShape<typeof UserSchema>,
  paths: readonly string[],
  by: Caller = administrator,
  reason = '',
) {
  return invoke(updateUser, users.updateUser, { user, updateMask: { paths: [...paths] }, reason }, by)
}

describe('a user', () => {
  test('comes back as it was stored, is in the snapshot at once, and leaves its trail', async () => {
    const wanted = {
      organizationId: ours.id,
      subject: 'ann',
      displayName: 'Ann',
      email: 'ann@example.com',
      roles: [Role.ORG_ADMIN, Role.CONSUMER],
      consumerId: ours.consumerId,
    }
    const stored = await add(wanted)
    expect(stored).toMatchObject({ ...wanted, issuer, status: UserStatus.ACTIVE, etag: 'r1' })
    expect(await invoke(getUser, users.getUser, { id: stored.id }, administrator)).toEqual(stored)
    expect(snapshots.current().usersBySubject.get(userKey(issuer, 'ann'))).toEqual({
      id: stored.id,
      organizationId: ours.id,
      issuer,
      subject: 'ann',
      displayName: 'Ann',
      email: 'ann@example.com',
      status: 'active',
      roles: ['org_admin', 'consumer'],
      consumerId: ours.consumerId,
    })
    const changed = await update(
      { id: stored.id, status: UserStatus.SUSPENDED, etag: stored.etag },
      ['status'],
      administrator,
      'left',
    )
    expect(changed).toMatchObject({ ...wanted, status: UserStatus.SUSPENDED, etag: 'r2' })
    expect(snapshots.current().usersBySubject.get(userKey(issuer, 'ann'))?.status).toBe('suspended')
    const trail = await server.sql`
      select action, organization_id, reason, before::jsonb ->> 'status' as before, after::jsonb ->> 'status' as after
      from audit_records where resource = ${`user/${stored.id}`} order by created_at, action`
    expect(trail).toEqual([
      { action: 'user.created', organization_id: ours.id, reason: '', before: null, after: 'USER_STATUS_ACTIVE' },
      {
        action: 'user.updated',
        organization_id: ours.id,
        reason: 'left',
        before: 'USER_STATUS_ACTIVE',
        after: 'USER_STATUS_SUSPENDED',
      },
    ])
  })

  test('stays in the snapshot, as do organizations and projects, when a price comes into force', async () => {
    const clock = { nowMs: Date.now() }
    const replica = createSnapshots({ sql: server.sql, log: silentLog, now: () => clock.nowMs })
    const serviceId = randomUUID()
    const day = 86_400_000
    await server.sql`
      insert into services (id, name, version, status, default_max_output_tokens)
      values (${serviceId}, 'priced', '1.0.0', 'active', 1)`
    await server.sql`
      insert into prices (service_id, version, effective_from, currency, kind, request_nanos)
      values (${serviceId}, 'v1', ${new Date(clock.nowMs + day)}, 'EUR', 'per_request', 5)`
    await add({ organizationId: ours.id })
    await invoke(
      ProjectService.method.createProject,
      createProjectService({ sql: server.sql, newId: randomUUID }).createProject,
      { project: { organizationId: ours.id, name: 'priced' } },
      administrator,
    )
    await replica.start()
    const before = replica.current()
    clock.nowMs += 2 * day
    await replica.refresh()
    const after = replica.current()
    await replica.close()
    expect(after.servicesById.get(serviceId)?.price?.version).toBe('v1')
    for (const part of ['usersBySubject', 'organizationsById', 'projectsById'] as const) {
      expect(before[part].size, part).toBeGreaterThan(0)
      expect(after[part]).toEqual(before[part])
    }
  })

  test('of another replica is in the snapshot after a moment', async () => {
    const elsewhere = createUserService({ sql: server.sql, newId: randomUUID })
    const request = { user: { issuer, subject: 'elsewhere' } }
    await invoke(createUser, elsewhere.createUser, request, administrator)
    await expect.poll(() => snapshots.current().usersBySubject.has(userKey(issuer, 'elsewhere'))).toBe(true)
  })

  test('is found by issuer and subject together: no two pairs share a key', () => {
    expect(userKey('a', 'bc')).not.toBe(userKey('ab', 'c'))
    expect(userKey('1:a', 'b')).not.toBe(userKey('1', ':ab'))
  })

  test('is refused when issuer and subject are taken, and for what does not exist', async () => {
    await add({ subject: 'taken' })
    await expect(add({ subject: 'taken' })).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
      fields: [{ field: 'user.subject' }],
    })
    await expect(add({ subject: 'taken', issuer: 'spiffe' })).resolves.toBeDefined()
    for (const id of ['nonsense', randomUUID()]) {
      await expect(add({ organizationId: id })).rejects.toMatchObject({ reason: 'ORGANIZATION_NOT_FOUND' })
      await expect(add({ consumerId: id })).rejects.toMatchObject({ reason: 'CONSUMER_NOT_FOUND' })
      await expect(update({ id }, [])).rejects.toMatchObject({ reason: 'USER_NOT_FOUND' })
      await expect(invoke(getUser, users.getUser, { id }, administrator)).rejects.toMatchObject({
        reason: 'USER_NOT_FOUND',
      })
    }
  })

  test('of an organization may call only for a consumer of that organization', async () => {
    const refused = { reason: 'CONSUMER_NOT_FOUND', fields: [{ field: 'user.consumer_id' }] }
    await expect(add({ organizationId: ours.id, consumerId: theirs.consumerId })).rejects.toMatchObject(refused)
    const { id } = await add({ organizationId: ours.id })
    await expect(update({ id, consumerId: theirs.consumerId }, ['consumer_id'])).rejects.toMatchObject(refused)
  })

  test('gets no role that would reach nothing', async () => {
    const field = (name: string) => ({ reason: 'INVALID_ARGUMENT', fields: [{ field: `user.${name}` }] })
    await expect(add({ roles: [Role.PUBLISHER] })).rejects.toMatchObject(field('organization_id'))
    await expect(add({ roles: [Role.CONSUMER] })).rejects.toMatchObject(field('consumer_id'))
  })

  test('is closed for good', async () => {
    const { id } = await add({ status: UserStatus.CLOSED })
    await expect(update({ id, status: UserStatus.ACTIVE }, ['status'])).rejects.toMatchObject({
      reason: 'STATUS_FINAL',
      fields: [{ field: 'user.status' }],
    })
    await expect(update({ id, displayName: 'gone' }, ['display_name'])).resolves.toMatchObject({
      status: UserStatus.CLOSED,
    })
  })

  test('is changed by whoever saw its last change, by known fields, and within the rules', async () => {
    const { id, etag } = await add({ displayName: 'one' })
    await update({ id, displayName: 'two', etag }, [])
    await expect(update({ id, displayName: 'three', etag }, [])).rejects.toMatchObject({ reason: 'ETAG_MISMATCH' })
    await expect(update({ id }, ['nickname'])).rejects.toThrow('"nickname"')
    await expect(update({ id, subject: 'another' }, ['subject'])).rejects.toThrow('user.subject: is never changed')
    await expect(update({ id, email: 'no address' }, ['email'])).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'user.email' }],
    })
  })

  test('that an update leaves as it is has no new etag and no trail', async () => {
    const { id } = await add({ displayName: 'same' })
    const versions = await server.sql`select version from control_version`
    expect(await update({ id, displayName: 'same' }, ['display_name'])).toMatchObject({ etag: 'r1' })
    expect(await server.sql`select version from control_version`).toEqual(versions)
  })
})

describe('the administrator of an organization', () => {
  test('adds users to it without naming it, sees them, and nobody else', async () => {
    const mine = await add({ roles: [Role.PUBLISHER, Role.ORG_ADMIN] }, orgAdmin())
    expect(mine.organizationId).toBe(ours.id)
    const other = await add({ organizationId: theirs.id })
    const platform = await add({ roles: [Role.FINANCE] })
    expect(await invoke(getUser, users.getUser, { id: mine.id }, orgAdmin())).toEqual(mine)
    for (const id of [other.id, platform.id, randomUUID(), 'nonsense']) {
      const refused = { reason: 'ORGANIZATION_MISMATCH' }
      await expect(invoke(getUser, users.getUser, { id }, orgAdmin())).rejects.toMatchObject(refused)
      await expect(update({ id, displayName: 'x' }, [], orgAdmin())).rejects.toMatchObject(refused)
    }
    const seen = await invoke(listUsers, users.listUsers, { pageSize: 1000 }, orgAdmin())
    expect(new Set(seen.users.map(({ organizationId }) => organizationId))).toEqual(new Set([ours.id]))
    const request = { organizationId: theirs.id }
    await expect(invoke(listUsers, users.listUsers, request, orgAdmin())).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
  })

  test.each([Role.ADMIN, Role.OPERATOR, Role.FINANCE, Role.AUDITOR, Role.GATEWAY])(
    'cannot give a role that reaches further than its own: %s',
    async (role) => {
      const refused = { reason: 'GRANT_EXCEEDED', fields: [{ field: 'user.roles' }] }
      await expect(add({ roles: [role] }, orgAdmin())).rejects.toMatchObject(refused)
      const { id } = await add({}, orgAdmin())
      await expect(update({ id, roles: [role] }, ['roles'], orgAdmin())).rejects.toMatchObject(refused)
    },
  )

  test('cannot change a user of its organization who may do more, not even to take that away', async () => {
    const { id } = await add({ organizationId: ours.id, roles: [Role.AUDITOR] })
    for (const change of [{ displayName: 'x' }, { status: UserStatus.SUSPENDED }]) {
      await expect(update({ id, ...change }, [], orgAdmin())).rejects.toMatchObject({ reason: 'GRANT_EXCEEDED' })
    }
    await expect(update({ id }, ['roles'], orgAdmin())).rejects.toMatchObject({ reason: 'GRANT_EXCEEDED' })
  })

  test('without an organization reaches nobody', async () => {
    const lost = callerOf(['org_admin'], undefined)
    await expect(add({}, lost)).rejects.toMatchObject({ reason: 'ORGANIZATION_MISMATCH' })
    await expect(invoke(listUsers, users.listUsers, {}, lost)).rejects.toMatchObject({
      reason: 'ORGANIZATION_MISMATCH',
    })
  })
})

test('users are listed page by page, by status, issuer and subject', async () => {
  const from = 'https://list.example'
  for (let i = 0; i < 5; i++) await add({ issuer: from, subject: `s${i}`, organizationId: ours.id })
  await add({ issuer: from, subject: 's0x', status: UserStatus.SUSPENDED })
  const seen: string[] = []
  let pageToken = ''
  do {
    const request = { issuer: from, status: UserStatus.ACTIVE, pageSize: 2, pageToken }
    const page = await invoke(listUsers, users.listUsers, request, administrator)
    seen.push(...page.users.map(({ subject }) => subject))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  expect(seen.toSorted()).toEqual(['s0', 's1', 's2', 's3', 's4'])
  const one = await invoke(listUsers, users.listUsers, { issuer: from, subject: 's0x' }, administrator)
  expect(one.users.map(({ organizationId }) => organizationId)).toEqual([''])
})
