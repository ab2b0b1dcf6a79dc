/**
 * What becomes of the services here by what a registry lists, as functions: a program of lists is followed, with an operator
 * and a database made of an array.
 */
import { create } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Pricing_PerRequestSchema, PricingSchema, ServiceSchema } from '../../../gen/marketplace/v1/registry_pb.ts'
import { endpointRecord, serviceRecord } from '../../../test/support/registry-records.ts'
import { type ServiceRecord, takesCalls } from '../records.ts'
import { followed, followedFirst, followedGone, retireGoneAfterMs } from './follow.ts'
import { type Plan, planFollowing } from './plan.ts'
import type { StatedList, StatedService } from './stated-list.ts'

const registry = 'https://registry.example'
const names = ['alpha', 'beta', 'gamma']
const versions = ['1.0.0', '2.0.0']

function stated(
  name: string,
  version: string,
  changes: Partial<StatedService['life']> & { text?: string } = {},
): StatedService {
  const { text = '', ...life } = changes
  return {
    key: `${name}@${version}`,
    service: create(ServiceSchema, {
      name,
      version,
      description: text,
      endpoints: [{ url: 'https://llm.example/v1' }],
    }),
    life: { status: 'active', reason: 'r', deprecation: undefined, ...life },
    origin: { registry, id: `there-${name}-${version}`, providerId: 'p' },
  }
}

const list = (...services: StatedService[]): StatedList => ({ services, unreadable: new Map(), isWhole: true })

let ids = 0
function newId(): string {
  ids += 1
  return `id-${ids}`
}

/** Carries a plan out as the database does. */
function carriedOut(plan: Plan, have: readonly ServiceRecord[], nowMs: number): ServiceRecord[] {
  const changed = have.map((service) => {
    const change = plan.changes.find(({ id }) => id === service.id)
    if (change !== undefined) return followed(service, change.stated, newId, nowMs).service
    return plan.gone.includes(service.id) ? followedGone(service, nowMs).service : service
  })
  return [...changed, ...plan.adds.map((each) => followedFirst(each, newId, nowMs).service)]
}

const options = { goneShare: 0.2, nowMs: 1_000 }

function followAll(from: StatedList, have: readonly ServiceRecord[], nowMs = 1_000, goneShare = 0.2): ServiceRecord[] {
  return carriedOut(planFollowing(from, have, { goneShare, nowMs }), have, nowMs)
}

const nothing: Plan = { adds: [], changes: [], gone: [], heldBack: 0, conflicts: new Map() }

describe('any list', () => {
  const status = fc.constantFrom('pending_approval', 'active', 'deprecated', 'suspended', 'retired' as const)
  const entry = fc
    .record({
      name: fc.constantFrom(...names),
      version: fc.constantFrom(...versions),
      status,
      text: fc.constantFrom('x', 'y'),
    })
    .map(({ name, version, ...rest }) => stated(name, version, rest))
  const anyList = fc
    .record({
      services: fc.uniqueArray(entry, { selector: ({ key }) => key, maxLength: 6 }),
      unreadable: fc.subarray(names).map((some) => new Map(some.map((name) => [`${name}@1.0.0`, 'why']))),
      isWhole: fc.boolean(),
    })
    .map(
      (made): StatedList => ({
        ...made,
        services: made.services.filter(({ key }) => !made.unreadable.has(key)),
      }),
    )
  const own = fc
    .uniqueArray(fc.record({ name: fc.constantFrom(...names), version: fc.constantFrom(...versions), status }), {
      selector: ({ name, version }) => `${name}@${version}`,
      maxLength: 3,
    })
    .map((services) =>
      services.map((service) => serviceRecord({ id: newId(), endpoints: [endpointRecord()], ...service })),
    )
  /** What happens before each list: time passes, and an operator suspends or resumes. */
  const program = fc.array(
    fc.record({
      list: anyList,
      passedMs: fc.constantFrom(0, 1_000, retireGoneAfterMs),
      suspends: fc.nat(5),
      goneShare: fc.constantFrom(0, 0.2, 0.5, 1),
    }),
    { minLength: 1, maxLength: 6 },
  )

  test('is followed in one pass, and own services are never touched', () => {
    fc.assert(
      fc.property(own, program, (ours, steps) => {
        let have: ServiceRecord[] = ours
        let nowMs = 1_000
        for (const step of steps) {
          nowMs += step.passedMs
          have = have.map((service, at) => {
            return at === step.suspends && takesCalls(service.status) ? { ...service, status: 'suspended' } : service
          })
          const before = have.filter(({ origin }) => origin === undefined)
          const { goneShare } = step
          have = followAll(step.list, have, nowMs, goneShare)
          expect(have.filter(({ origin }) => origin === undefined)).toEqual(before)
          expect(new Set(have.map(({ name, version }) => `${name}@${version}`)).size).toBe(have.length)
          const again = planFollowing(step.list, have, { goneShare, nowMs })
          expect(again).toEqual({ ...nothing, heldBack: again.heldBack, conflicts: again.conflicts })
        }
      }),
      { numRuns: 400 },
    )
  })

  test('that is believed is what is served afterwards', () => {
    fc.assert(
      fc.property(anyList, anyList, (first, second) => {
        const have = followAll(second, followAll(first, [], 1_000, 1), 2_000, 1)
        const byKey = new Map(second.services.map((each) => [each.key, each]))
        for (const service of have) {
          const key = `${service.name}@${service.version}`
          const word = byKey.get(key)
          const wasRetired = service.status === 'retired'
          if (wasRetired || second.unreadable.has(key)) continue
          expect(takesCalls(service.status)).toBe(word !== undefined && takesCalls(word.life.status))
          if (word !== undefined) expect(service.description).toBe(word.service.description)
        }
      }),
    )
  })
})

describe('a list that lacks', () => {
  const ten = Array.from({ length: 10 }, (_, i) => stated(`service-${i}`, '1.0.0'))
  const have = followAll(list(...ten), [])

  test.each<[what: string, lacking: StatedList, gone: number, heldBack: number]>([
    ['nothing', list(...ten), 0, 0],
    ['as many as it may', list(...ten.slice(2)), 2, 0],
    ['more', list(...ten.slice(3)), 0, 3],
    ['all', list(), 0, 10],
    ['one, and has things without a name', { ...list(...ten.slice(1)), isWhole: false }, 0, 1],
    ['one that cannot be read', { ...list(...ten.slice(1)), unreadable: new Map([['service-0@1.0.0', 'why']]) }, 0, 0],
  ])('%s', (_, lacking, gone, heldBack) => {
    expect(planFollowing(lacking, have, options)).toMatchObject({ gone: { length: gone }, heldBack })
  })

  test('services list after list loses no more than it may in one', () => {
    let left = have
    for (let count = 9; count > 0; count -= 1) left = followAll(list(...ten.slice(10 - count)), left)
    expect(left.filter(({ status }) => takesCalls(status))).toHaveLength(8)
  })

  test('some and adds others is thought of alike in the next pass', () => {
    const two = followAll(list(stated('alpha', '1.0.0'), stated('beta', '1.0.0')), [])
    const others = list(stated('gamma', '1.0.0'), stated('gamma', '2.0.0'))
    const half = { goneShare: 0.5, nowMs: 1_000 }
    const first = planFollowing(others, two, half)
    const second = planFollowing(others, carriedOut(first, two, 1_000), half)
    expect([first.gone.length, second.gone.length, second.heldBack]).toEqual([2, 0, 0])
  })

  test('the only service is believed, but an empty list is not, unless every list is', () => {
    const [first, second] = ten
    if (first === undefined || second === undefined) throw new Error('there are ten')
    const one = followAll(list(first), [])
    expect(planFollowing(list(second), one, options)).toMatchObject({ gone: { length: 1 } })
    expect(planFollowing(list(), one, options)).toMatchObject({ gone: [], heldBack: 1 })
    expect(planFollowing(list(), one, { ...options, goneShare: 1 })).toMatchObject({ gone: { length: 1 } })
  })
})

describe('a service that is gone', () => {
  const there = [stated('alpha', '1.0.0'), stated('beta', '1.0.0')]
  const without = list(stated('beta', '1.0.0'))
  const statusOf = (have: readonly ServiceRecord[]) => have.find(({ name }) => name === 'alpha')?.status

  test('takes no calls, comes back with the list, and is retired after a day', () => {
    let have = followAll(without, followAll(list(...there), []))
    expect(statusOf(have)).toBe('suspended')
    expect(statusOf(followAll(list(...there), have, 2_000))).toBe('active')
    have = followAll(without, have, 999 + retireGoneAfterMs)
    expect(statusOf(have)).toBe('suspended')
    have = followAll(without, have, 1_000 + retireGoneAfterMs)
    expect(statusOf(have)).toBe('retired')
    const plan = planFollowing(list(...there), have, options)
    expect([...plan.conflicts.keys()]).toEqual(['alpha@1.0.0'])
  })

  test('that an operator suspended before does not come back with the list', () => {
    const have = followAll(list(...there), []).map((service) => ({ ...service, status: 'suspended' as const }))
    expect(statusOf(followAll(list(...there), followAll(without, have), 2_000))).toBe('suspended')
  })
})

describe('a name that has own services', () => {
  const ours = [serviceRecord({ name: 'alpha', version: '0.9.0' })]

  test('is not shared with the registry', () => {
    const plan = planFollowing(list(stated('alpha', '1.0.0'), stated('beta', '1.0.0')), ours, options)
    expect(plan.adds.map(({ key }) => key)).toEqual(['beta@1.0.0'])
    expect([...plan.conflicts.keys()]).toEqual(['alpha@1.0.0'])
  })
})

describe('a service that is followed', () => {
  const known = stated('alpha', '1.0.0', { text: 'old' })

  test('leaves the trail of what became of it, in order', () => {
    const first = followedFirst({ ...known, life: { ...known.life, status: 'deprecated' } }, newId, 1)
    expect(first.steps.map(({ type }) => type)).toEqual(['service.registered', 'service.deprecated'])
    const next = followed(first.service, stated('alpha', '1.0.0', { text: 'new', status: 'retired' }), newId, 2)
    expect(next.steps.map(({ type }) => type)).toEqual(['service.updated', 'service.retired'])
    expect(next.service).toMatchObject({ description: 'new', status: 'retired', revision: first.service.revision + 2 })
  })

  test('keeps what is the gate’s own, and the ids of its endpoints', () => {
    const { service } = followedFirst(known, newId, 1)
    const here: ServiceRecord = { ...service, routing: 'least_latency', defaultMaxOutputTokens: 7 }
    const next = followed(here, stated('alpha', '1.0.0', { text: 'new' }), newId, 2).service
    expect(next).toMatchObject({ routing: 'least_latency', defaultMaxOutputTokens: 7, description: 'new' })
    expect(next.endpoints[0]?.id).toBe(service.endpoints[0]?.id)
  })

  test('has a new price when the registry states another one, and then only', () => {
    const priced = (requestNanos: bigint): StatedService => {
      const model = { case: 'perRequest' as const, value: create(Pricing_PerRequestSchema, { requestNanos }) }
      return {
        ...known,
        service: { ...known.service, pricing: create(PricingSchema, { currency: 'EUR', model }) },
      }
    }
    const { service } = followedFirst(priced(1n), newId, 1)
    expect(followed(service, priced(1n), newId, 2)).toMatchObject({ isChanged: false, hasNewPrice: false })
    expect(followed(service, priced(2n), newId, 2)).toMatchObject({ isChanged: true, hasNewPrice: true, steps: [] })
    expect(followed(service, known, newId, 2)).toMatchObject({ hasNewPrice: false })
  })
})
