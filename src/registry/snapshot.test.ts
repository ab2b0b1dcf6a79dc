import { describe, expect, it } from 'vitest'
import { serviceRecord } from '../../test/support/registry-records.ts'
import { type PriceRecord, priceAt, type ServiceRecord, type ServiceStatus, takesCalls } from './records.ts'
import { compareVersions } from './semver.ts'
import { buildSnapshot, emptySnapshot, findService } from './snapshot.ts'

function service(id: string, version: string, status: ServiceStatus = 'active', prices: PriceRecord[] = []) {
  return serviceRecord({ id, name: 'chat', version, status, prices })
}

function price(version: string, effectiveFromMs: number): PriceRecord {
  return { version, currency: 'USD', effectiveFromMs, model: { kind: 'per_request', requestNanos: 1 } }
}

function snapshotOf(services: ServiceRecord[], nowMs = 0) {
  return buildSnapshot({ version: 1, services, consumers: [], nowMs })
}

describe('a name means', () => {
  it.each<[string, ServiceRecord[], string]>([
    ['the newest active version', [service('a', '1.9.0'), service('b', '1.10.0'), service('c', '1.2.0')], 'b'],
    [
      'an active version before a newer deprecated one',
      [service('a', '1.0.0'), service('b', '2.0.0', 'deprecated')],
      'a',
    ],
    [
      'a deprecated version before a newer retired one',
      [service('a', '3.0.0', 'retired'), service('b', '1.0.0', 'deprecated')],
      'b',
    ],
    [
      'the newest of all when none takes calls',
      [service('a', '1.0.0', 'retired'), service('b', '2.0.0', 'suspended')],
      'b',
    ],
    ['a release before its pre-releases', [service('a', '1.0.0-rc.1'), service('b', '1.0.0')], 'b'],
    ['a release before the pre-releases of a newer one', [service('a', '2.0.0-rc.1'), service('b', '1.0.0')], 'b'],
    [
      'a deprecated release before an active pre-release',
      [service('a', '2.0.0-1'), service('b', '1.0.0', 'deprecated')],
      'b',
    ],
    ['a pre-release where no release takes calls', [service('a', '2.0.0-1'), service('b', '1.0.0', 'retired')], 'a'],
  ])('%s', (_, services, id) => {
    expect(findService(snapshotOf(services), 'chat')?.id).toBe(id)
    expect(findService(snapshotOf(services.toReversed()), 'chat')?.id).toBe(id)
  })

  it('another version with it, whatever becomes of that', () => {
    const snapshot = snapshotOf([service('a', '1.0.0', 'retired'), service('b', '2.0.0+build.1')])
    expect(findService(snapshot, 'chat@1.0.0')?.id).toBe('a')
    expect(findService(snapshot, 'chat@2.0.0+build.1')?.id).toBe('b')
    expect(findService(snapshot, 'chat@3.0.0')).toBeUndefined()
  })

  it('nothing in the empty snapshot', () => {
    expect(findService(emptySnapshot, 'chat')).toBeUndefined()
  })
})

describe('prices', () => {
  const prices = [price('v3', 300), price('v2', 200), price('v1', 0)]

  it.each([
    [0, 'v1'],
    [199, 'v1'],
    [200, 'v2'],
    [1_000, 'v3'],
  ])('at %i are of %s', (atMs, version) => {
    expect(priceAt({ prices }, atMs)?.version).toBe(version)
    expect(snapshotOf([service('a', '1.0.0', 'active', prices)], atMs).servicesById.get('a')?.price?.version).toBe(
      version,
    )
  })

  it('are absent before the first one, and the snapshot knows when the next one comes', () => {
    const snapshot = snapshotOf([service('a', '1.0.0', 'active', [price('v2', 90), price('v1', 50)])], 10)
    expect(snapshot.servicesById.get('a')?.price).toBeUndefined()
    expect(snapshot.nextPriceChangeMs).toBe(50)
  })
})

it('takes calls for active and deprecated services only', () => {
  const statuses: ServiceStatus[] = ['pending_approval', 'active', 'deprecated', 'suspended', 'retired']
  expect(statuses.filter(takesCalls)).toEqual(['active', 'deprecated'])
})

it('orders versions by semantic precedence', () => {
  // The specification's own example, and what plain text order gets wrong.
  const ordered = ['1.0.0-alpha', '1.0.0-alpha.1', '1.0.0-alpha.beta', '1.0.0-beta', '1.0.0-beta.2', '1.0.0-beta.11']
  ordered.push('1.0.0-rc.1', '1.0.0', '1.0.1', '1.2.0', '1.10.0', '2.0.0', '99999999999999999999.0.0')
  for (const [i, a] of ordered.entries()) {
    for (const [j, b] of ordered.entries()) expect(Math.sign(compareVersions(a, b))).toBe(Math.sign(i - j))
  }
  expect(compareVersions('1.0.0+build.1', '1.0.0+build.2')).toBe(0)
})
