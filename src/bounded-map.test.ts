import fc from 'fast-check'
import { expect, it } from 'vitest'
import { BoundedMap } from './bounded-map.ts'

it('never holds more than its ceiling, never answers with an old value, and keeps what was used last', () => {
  const step = fc.record({ op: fc.constantFrom('get', 'set', 'delete'), key: fc.nat(30) })
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 12 }), fc.array(step, { maxLength: 300 }), (ceiling, steps) => {
      const map = new BoundedMap<number, number>(ceiling)
      const model = new Map<number, number | undefined>()
      steps.forEach(({ op, key }, value) => {
        if (op === 'set') map.set(key, value)
        if (op === 'delete') map.delete(key)
        // The model is in the order of last use. What was deleted keeps its place, so that nothing forgotten moves up.
        const before = model.get(key)
        if (op === 'delete') {
          if (before !== undefined) model.set(key, undefined)
        } else model.delete(key)
        if (op === 'set') model.set(key, value)
        if (op === 'get') {
          const got = map.get(key)
          expect([undefined, before]).toContain(got)
          if (got !== undefined) model.set(key, got)
        }
        expect(map.size).toBeLessThanOrEqual(ceiling)
      })
      for (const [key, value] of [...model].slice(-Math.floor(ceiling / 2))) expect(map.get(key)).toBe(value)
    }),
  )
})

it('forgets everything when cleared', () => {
  const map = new BoundedMap<string, number>(4)
  for (const key of ['a', 'b', 'c']) map.set(key, 1)
  map.clear()
  expect([map.size, map.get('a'), map.get('c')]).toEqual([0, undefined, undefined])
})
