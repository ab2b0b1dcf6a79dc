import { describe, expect, test } from 'vitest'
import { administrator, keyOf } from '../../test/support/invoke.ts'
import { consumerRecord } from '../../test/support/registry-records.ts'
import { resolveConsumer } from '../consumption/resolve.ts'
import { buildSnapshot, type Snapshot } from '../registry/snapshot.ts'
import type { Caller } from './principal.ts'
import { nextStanding, requireStanding, type Standing } from './standing.ts'

const consumer = consumerRecord({ id: 'c', organizationId: 'o', projectId: 'p' })
const key = keyOf(consumer)

function snapshotOf(organization: Standing, project: Standing): Snapshot {
  const plain = { tier: 'basic', clearance: 'internal', homeRegion: '' } as const
  return buildSnapshot({
    version: 1,
    services: [],
    organizations: [{ id: 'o', name: 'o', status: organization, ...plain }],
    projects: [{ id: 'p', organizationId: 'o', name: 'p', status: project, labels: {} }],
    consumers: [consumer],
    nowMs: 0,
  })
}

describe('standing', () => {
  test.each([
    ['active', 'suspended'],
    ['suspended', 'active'],
    ['active', 'closed'],
    ['suspended', 'closed'],
    ['closed', 'closed'],
  ] as const)('moves from %s to %s', (was, wanted) => {
    expect(nextStanding(was, wanted, 'status')).toBe(wanted)
  })

  test.each(['active', 'suspended'] as const)('never moves from closed to %s', (wanted) => {
    expect(() => nextStanding('closed', wanted, 'user.status')).toThrow(
      expect.objectContaining({ reason: 'STATUS_FINAL', metadata: { field: 'user.status', status: 'closed', wanted } }),
    )
  })
})

describe.each([
  ['an organization', 'ORGANIZATION_INACTIVE', (status: Standing) => snapshotOf(status, 'active')],
  ['a project', 'PROJECT_INACTIVE', (status: Standing) => snapshotOf('active', status)],
] as const)('%s that is not active', (_, reason, snapshotWith) => {
  test.each(['suspended', 'closed'] as const)('stops the calls of its consumers: %s', async (status) => {
    const snapshot = snapshotWith(status)
    expect(() => resolveConsumer(snapshot, 'c')).toThrow(expect.objectContaining({ reason }))
    const authenticate = requireStanding(async () => key, { current: () => snapshot })
    await expect(authenticate()).rejects.toMatchObject({ reason, metadata: { status } })
  })
})

test('an organization that is not active lets none of its users in; those of the platform stay', async () => {
  const snapshots = { current: () => snapshotOf('suspended', 'active') }
  const authenticate = requireStanding(async (caller: Caller) => caller, snapshots)
  const user: Caller = { ...administrator, roles: ['org_admin'], organizationId: 'o' }
  await expect(authenticate(user)).rejects.toMatchObject({ reason: 'ORGANIZATION_INACTIVE' })
  expect(await authenticate(administrator)).toBe(administrator)
})

test('a project that is not active keeps users at work who administer it', async () => {
  const snapshots = { current: () => snapshotOf('active', 'suspended') }
  const user: Caller = { ...administrator, roles: ['org_admin'], organizationId: 'o', consumerId: 'c' }
  expect(await requireStanding(async () => user, snapshots)()).toBe(user)
})

test('whoever is active is let in', async () => {
  const snapshot = snapshotOf('active', 'active')
  expect(await requireStanding(async () => key, { current: () => snapshot })()).toBe(key)
  expect(resolveConsumer(snapshot, 'c')).toBe(consumer)
})
