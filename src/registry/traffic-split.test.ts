import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { serviceRecord } from '../../test/support/registry-records.ts'
import type { ServiceStatus } from './records.ts'
import { chooseShare, type Share } from './traffic-split.ts'

function splitOf(sticky: boolean, shares: readonly Share[], statuses: Readonly<Record<string, ServiceStatus>> = {}) {
  const split = { name: 'chat', shares, sticky, revision: 1 }
  const versionOf = (version: string) => {
    return version === 'gone'
      ? undefined
      : serviceRecord({ id: version, version, status: statuses[version] ?? 'active' })
  }
  return (consumerId: string, random = 0) => chooseShare(split, versionOf, consumerId, () => random)?.version
}

const shares = [
  { version: '1.0.0', weight: 90 },
  { version: '2.0.0', weight: 10 },
]
const consumers = Array.from({ length: 20_000 }, (_, index) => `consumer-${index}`)

test('a call is given a version in proportion to the weights', () => {
  const choose = splitOf(false, shares)
  expect([0, 0.5, 0.899, 0.9, 0.999].map((random) => choose('a', random))).toEqual([
    '1.0.0',
    '1.0.0',
    '1.0.0',
    '2.0.0',
    '2.0.0',
  ])
})

test('a sticky split gives consumers versions in proportion to the weights', () => {
  const choose = splitOf(true, shares)
  const second = consumers.filter((consumer) => choose(consumer) === '2.0.0').length
  expect(second / consumers.length).toBeGreaterThan(0.09)
  expect(second / consumers.length).toBeLessThan(0.11)
})

describe('a version that takes no calls, or is not there', () => {
  test.each(['pending_approval', 'suspended', 'retired', 'deprecated', 'active'] as const)('%s', (status) => {
    const takes = status === 'deprecated' || status === 'active'
    for (const sticky of [true, false]) {
      const choose = splitOf(sticky, shares, { '1.0.0': status })
      const chosen = new Set(consumers.slice(0, 500).map((consumer, index) => choose(consumer, index / 500)))
      expect(chosen).toEqual(new Set(takes ? ['1.0.0', '2.0.0'] : ['2.0.0']))
    }
  })

  test('leaves nothing where all are so', () => {
    expect(splitOf(false, [{ version: 'gone', weight: 1 }])('a')).toBeUndefined()
    expect(splitOf(true, shares, { '1.0.0': 'retired', '2.0.0': 'suspended' })('a')).toBeUndefined()
  })
})

test('a sticky consumer moves only from a version that left, or to one that came', () => {
  const weight = fc.integer({ min: 1, max: 100 })
  fc.assert(
    fc.property(fc.array(weight, { minLength: 2, maxLength: 6 }), fc.nat(), fc.string(), (weights, which, consumer) => {
      const all = weights.map((weight, index) => ({ version: `${index}.0.0`, weight }))
      const gone = all[which % all.length]?.version ?? ''
      const before = splitOf(true, all)(consumer)
      const after = splitOf(
        true,
        all.filter(({ version }) => version !== gone),
      )(consumer)
      if (before === gone) expect(after).not.toBe(gone)
      else expect(after).toBe(before)
      expect(splitOf(true, all.toReversed())(consumer)).toBe(before)
    }),
  )
})
