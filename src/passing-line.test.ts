import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { promotedBy } from '../test/support/promoted.ts'
import { PassingLine, type Place } from './passing-line.ts'

interface Thing {
  readonly number: number
}

it('keeps what came and did not leave, in the order in which it came', () => {
  const steps = fc.array(fc.option(fc.nat(12), { nil: undefined }), { maxLength: 60 })
  fc.assert(
    fc.property(steps, (program) => {
      const line = new PassingLine<Thing>()
      const places: Place<Thing>[] = []
      let model: number[] = []
      for (const leaving of program) {
        if (leaving === undefined) {
          places.push(line.add({ number: places.length }))
          model.push(places.length - 1)
          continue
        }
        const place = places[leaving]
        if (place === undefined) continue
        expect(line.leave(place)).toBe(model.includes(leaving))
        model = model.filter((number) => number !== leaving)
      }
      expect(line.values().map(({ number }) => number)).toEqual(model)
      expect([line.size, line.first?.value?.number]).toEqual([model.length, model[0]])
    }),
  )
})

it('its values may come and go while they are walked through', () => {
  const line = new PassingLine<Thing>()
  const places = [1, 2, 3].map((number) => line.add({ number }))
  const seen: number[] = []
  for (const { number } of line.values()) {
    seen.push(number)
    for (const place of places) line.leave(place)
    line.add({ number: number + 10 })
  }
  expect(seen).toEqual([1, 2, 3])
  expect(line.values().map(({ number }) => number)).toEqual([11, 12, 13])
})

describe('to a collection of new objects', () => {
  it('what has left is garbage', () => {
    const line = new PassingLine<object>()
    const places: Place<object>[] = []
    // Things of 1 KB pass, sixteen at a time.
    const pass = (): void => {
      for (let number = 0; number < 2_000; number++) {
        places.push(line.add(new Array(100).fill(number)))
        const oldest = places.length > 16 ? places.shift() : undefined
        if (oldest !== undefined) line.leave(oldest)
      }
    }
    expect(promotedBy(pass)).toBeLessThan(500_000)
  })
})
