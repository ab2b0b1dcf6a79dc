import { create, type MessageInitShape } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ListServicesRequestSchema, ServiceStatus } from '../../gen/marketplace/v1/registry_pb.ts'
import { Capability } from '../../gen/marketplace/v1/service_profile_pb.ts'
import { serviceRecord } from '../../test/support/registry-records.ts'
import { listServices } from './list-services.ts'
import type { ServiceRecord } from './records.ts'
import { emptyProfile } from './service-profile.ts'

type Init = Omit<MessageInitShape<typeof ListServicesRequestSchema>, '$typeName' | '$unknown'>

function pageOf(services: readonly ServiceRecord[], init: Init) {
  return listServices(services, create(ListServicesRequestSchema, init))
}

function idsOf(services: readonly ServiceRecord[], init: Init = {}): string[] {
  return pageOf(services, init).rows.map(({ id }) => id)
}

const a = serviceRecord({
  id: 'a',
  name: 'x',
  createdAtMs: 30,
  organizationId: 'o',
  profile: {
    ...emptyProfile,
    category: 'chat',
    tags: ['fast', 'eu'],
    capabilities: { ...emptyProfile.capabilities, streaming: true, tools: true },
  },
})
const b = serviceRecord({ id: 'b', name: 'y', createdAtMs: 9, profile: { ...emptyProfile, tags: ['fast'] } })
const c = serviceRecord({ id: 'c', name: 'x', version: '2.0.0', status: 'retired', createdAtMs: 200 })
const all = [c, a, b]

describe('a list holds the services that fulfil every condition', () => {
  test.each<[Init, string[]]>([
    [{}, ['a', 'b', 'c']],
    [{ name: 'x' }, ['a', 'c']],
    [{ statuses: [ServiceStatus.RETIRED, ServiceStatus.SUSPENDED] }, ['c']],
    [{ category: 'chat' }, ['a']],
    [{ tags: ['fast'] }, ['a', 'b']],
    [{ tags: ['fast', 'eu'] }, ['a']],
    [{ organizationId: 'o' }, ['a']],
    [{ capabilities: [Capability.STREAMING, Capability.TOOLS] }, ['a']],
    [{ capabilities: [Capability.STREAMING, Capability.VISION] }, []],
    [{ name: 'x', statuses: [ServiceStatus.ACTIVE] }, ['a']],
  ])('%j', (init, ids) => {
    expect(idsOf(all, init)).toEqual(ids)
  })
})

test.each([
  ['id desc', ['c', 'b', 'a']],
  ['name', ['a', 'c', 'b']],
  ['name desc', ['b', 'c', 'a']],
  ['create_time', ['b', 'a', 'c']],
  ['create_time desc', ['c', 'a', 'b']],
])('ordered by %s', (orderBy, ids) => {
  expect(idsOf(all, { orderBy })).toEqual(ids)
})

test('a token of another order is refused', () => {
  const { nextPageToken: pageToken } = pageOf(all, { orderBy: 'name', pageSize: 1 })
  expect(() => pageOf(all, { orderBy: 'create_time', pageToken })).toThrow('page_token')
})

test('what is there all the time is listed once, whatever comes and goes between the pages', () => {
  const orders = ['id', 'name', 'create_time'].flatMap((field) => [field, `${field} desc`])
  const service = fc.record({ id: fc.uuid(), name: fc.constantFrom('x', 'y', 'z'), createdAtMs: fc.nat(5) })
  const distinct = fc.uniqueArray(service, { selector: ({ id }) => id, maxLength: 12 })
  fc.assert(
    fc.property(
      distinct,
      distinct,
      fc.constantFrom(...orders),
      fc.integer({ min: 1, max: 4 }),
      (kept, others, orderBy, pageSize) => {
        const lasting = kept.map((one) => serviceRecord(one))
        const seen: string[] = []
        let pageToken = ''
        for (let turn = 0; turn === 0 || pageToken !== ''; turn++) {
          const passing = others.filter((_, index) => index % 2 === turn % 2).map((one) => serviceRecord(one))
          const page = pageOf([...passing, ...lasting], { orderBy, pageSize, pageToken })
          seen.push(...page.rows.map(({ id }) => id))
          pageToken = page.nextPageToken
        }
        const ids = new Set(kept.map(({ id }) => id))
        expect(seen.filter((id) => ids.has(id)).toSorted()).toEqual([...ids].toSorted())
        expect(new Set(seen).size).toBe(seen.length)
      },
    ),
  )
})
