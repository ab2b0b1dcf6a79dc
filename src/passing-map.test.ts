import { describe, expect, it } from 'vitest'
import { promotedBy } from '../test/support/promoted.ts'
import { PassingMap } from './passing-map.ts'

interface Thing {
  readonly name: string
}

function keysOf(map: PassingMap<string, Thing>): string[] {
  return [...map].map(([key, { name }]) => `${key}:${name}`)
}

describe('like a Map', () => {
  it('it finds, replaces and forgets', () => {
    const map = new PassingMap<string, Thing>()
    map.set('a', { name: '1' })
    map.set('b', { name: '2' })
    map.set('a', { name: '3' })
    expect([map.size, map.has('a'), map.get('a')?.name, map.get('c')]).toEqual([2, true, '3', undefined])
    expect([map.delete('a'), map.delete('a'), map.has('a'), map.get('a'), map.size]).toEqual([
      true,
      false,
      false,
      undefined,
      1,
    ])
  })

  it('it is in the order in which keys came', () => {
    const map = new PassingMap<string, Thing>()
    for (const name of ['a', 'b', 'c']) map.set(name, { name })
    map.set('a', { name: 'again' })
    map.delete('b')
    map.set('b', { name: 'back' })
    expect(keysOf(map)).toEqual(['a:again', 'c:c', 'b:back'])
    expect([...map.values()].map(({ name }) => name)).toEqual(['again', 'c', 'back'])
  })

  it('entries may be deleted while it is walked through', () => {
    const map = new PassingMap<string, Thing>()
    for (const name of ['a', 'b', 'c']) map.set(name, { name })
    const seen: string[] = []
    for (const { name } of map.values()) {
      seen.push(name)
      map.delete('a')
      map.delete('b')
    }
    expect(seen).toEqual(['a', 'c'])
  })
})

/** Things of 4 KB pass, sixteen at a time. */
function passThrough(map: Pick<PassingMap<string, object>, 'set' | 'delete'>, turn: number): void {
  for (let number = 0; number < 200; number++) {
    map.set(`${turn}/${number}`, new Array(500).fill(number))
    map.delete(number < 16 ? `${turn - 1}/${184 + number}` : `${turn}/${number - 16}`)
  }
}

describe('to a collection of new objects', () => {
  it('what was deleted is garbage', () => {
    const map = new PassingMap<string, object>()
    expect(promotedBy((turn) => passThrough(map, turn))).toBeLessThan(3_000_000)
  })

  it('what was deleted from a Map is none, which is why there is another one', () => {
    const map = new Map<string, object>()
    expect(promotedBy((turn) => passThrough(map, turn))).toBeGreaterThan(10_000_000)
  })
})
