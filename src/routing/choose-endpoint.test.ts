import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { endpointRecord } from '../../test/support/registry-records.ts'
import type { EndpointRecord, Routing } from '../registry/records.ts'
import { type Choice, chooseEndpoint, type EndpointView } from './choose-endpoint.ts'

const idle: EndpointView = { isOpen: false, isSick: false, isResting: false, latencyMs: undefined, inFlight: 0 }

function endpoints(...changes: Partial<EndpointRecord>[]): EndpointRecord[] {
  return changes.map((change, i) => endpointRecord({ id: `e${i}`, ...change }))
}

function choose(list: readonly EndpointRecord[], changes: Partial<Choice> = {}): string | undefined {
  return chooseEndpoint({
    routing: 'weighted',
    endpoints: list,
    view: () => idle,
    tried: [],
    random: Math.random,
    ...changes,
  })?.id
}

/** Even numbers from 0 to 1, the same in every run: mulberry32. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Any service, anything known of its endpoints, any history of a call. */
const anyChoice = fc
  .array(
    fc.record({
      weight: fc.integer({ min: 1, max: 1_000 }),
      priority: fc.integer({ min: 0, max: 100 }),
      isOpen: fc.boolean(),
      isSick: fc.boolean(),
      isResting: fc.boolean(),
      latencyMs: fc.option(fc.integer({ min: 0, max: 60_000 }), { nil: undefined }),
      inFlight: fc.nat(50),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .chain((all) =>
    fc.record({
      all: fc.constant(all.map((one, i) => ({ ...one, id: `e${i}` }))),
      tried: fc.array(
        fc.integer({ min: 0, max: all.length - 1 }).map((i) => `e${i}`),
        { maxLength: 3 },
      ),
      routing: fc.constantFrom<Routing>('weighted', 'least_latency'),
      draws: fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
    }),
  )

describe('of any endpoints, whatever is known of them', () => {
  test('one is always given, never an open one beside a closed one, a sick one beside a well one, the one that just failed beside another', () => {
    fc.assert(
      fc.property(anyChoice, ({ all, tried, routing, draws }) => {
        const views = new Map(all.map((one) => [one.id, one]))
        const id = choose(
          all.map(({ id, weight, priority }) => endpointRecord({ id, weight, priority })),
          {
            routing,
            tried,
            view: (id) => views.get(id) ?? idle,
            random: () => draws.next().value ?? 0,
          },
        )
        const chosen = views.get(id ?? '')
        expect(chosen).toBeDefined()
        const closed = all.filter(({ isOpen }) => !isOpen)
        if (closed.length > 0) expect(chosen?.isOpen).toBe(false)
        const well = closed.filter(({ isSick }) => !isSick)
        if (well.length > 0) expect(chosen?.isSick).toBe(false)
        const best = well.length > 0 ? well : closed
        if (best.some((one) => one.id !== tried.at(-1))) expect(id).not.toBe(tried.at(-1))
        // Nobody in the same state has a better priority.
        const rivals = all.filter(
          (one) =>
            one.isOpen === chosen?.isOpen &&
            one.isSick === chosen.isSick &&
            one.isResting === chosen.isResting &&
            tried.includes(one.id) === tried.includes(chosen.id) &&
            (one.id === tried.at(-1)) === (chosen.id === tried.at(-1)),
        )
        expect(Math.min(...rivals.map(({ priority }) => priority))).toBe(chosen?.priority)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('weights', () => {
  test.each([[[1, 1]], [[7, 2, 1]], [[1000, 1, 500, 10]]])(
    '%j hold over many draws, also among those that are left',
    (weights) => {
      const list = endpoints(...weights.map((weight) => ({ weight })))
      const random = seeded(7)
      for (const isGone of [() => false, (id: string) => id === 'e0']) {
        const left = list.filter(({ id }) => !isGone(id))
        const total = left.reduce((sum, { weight }) => sum + weight, 0)
        const counts = new Map<string, number>()
        const draws = 40_000
        for (let i = 0; i < draws; i += 1) {
          const id = choose(list, { random, view: (id) => ({ ...idle, isOpen: isGone(id) }) }) ?? ''
          counts.set(id, (counts.get(id) ?? 0) + 1)
        }
        for (const { id, weight } of left) {
          // Five standard deviations of a binomial.
          const expected = (draws * weight) / total
          const tolerance = 5 * Math.sqrt(expected * (1 - weight / total)) + 1
          expect(Math.abs((counts.get(id) ?? 0) - expected), id).toBeLessThan(tolerance)
        }
        expect([...counts.keys()].filter(isGone)).toEqual([])
      }
    },
  )
})

describe('priority', () => {
  const list = endpoints({ priority: 1 }, { priority: 0 }, { priority: 2 })

  test('lower numbers go first, and the next one when they are open, rest, or failed', () => {
    expect(choose(list)).toBe('e1')
    expect(choose(list, { view: (id) => ({ ...idle, isOpen: id === 'e1' }) })).toBe('e0')
    expect(choose(list, { view: (id) => ({ ...idle, isResting: id === 'e1' }) })).toBe('e0')
    expect(choose(list, { tried: ['e1'] })).toBe('e0')
    expect(choose(list, { tried: ['e1', 'e0'] })).toBe('e2')
    expect(choose(list, { tried: ['e1', 'e0', 'e2'] })).toBe('e1')
  })
})

describe('least latency', () => {
  const list = endpoints({}, {})
  const by = (...views: Partial<EndpointView>[]) => ({
    routing: 'least_latency' as const,
    view: (id: string) => ({ ...idle, ...views[Number(id.slice(1))] }),
  })

  test.each<[string, Partial<EndpointView>[], string]>([
    ['the faster', [{ latencyMs: 200 }, { latencyMs: 100 }], 'e1'],
    ['the slower when the faster is busy', [{ latencyMs: 200 }, { latencyMs: 100, inFlight: 2 }], 'e0'],
    ['the one that was never measured', [{ latencyMs: 1 }, {}], 'e1'],
    ['not the unmeasured one while a call measures it', [{ latencyMs: 900, inFlight: 9 }, { inFlight: 1 }], 'e0'],
  ])('takes %s', (_, views, id) => {
    for (let i = 0; i < 50; i += 1) expect(choose(list, by(...views))).toBe(id)
  })

  test('does not send everything to the fastest of many', () => {
    const many = endpoints({}, {}, {}, {})
    const random = seeded(3)
    const counts = new Map<string, number>()
    for (let i = 0; i < 4_000; i += 1) {
      const id = choose(many, { ...by({ latencyMs: 1 }, { latencyMs: 2 }, { latencyMs: 3 }, { latencyMs: 4 }), random })
      counts.set(id ?? '', (counts.get(id ?? '') ?? 0) + 1)
    }
    // Of the six pairs it is in three, the second in two more, the third in one; the slowest wins none.
    expect([...counts].sort().map(([id, n]) => [id, Math.round((6 * n) / 4_000)])).toEqual([
      ['e0', 3],
      ['e1', 2],
      ['e2', 1],
    ])
  })
})
