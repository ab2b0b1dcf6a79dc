import { expect, test } from 'vitest'
import { newId } from './ids.ts'

test('makes distinct UUIDs of version 7 that sort by their millisecond', () => {
  const ids = Array.from({ length: 10_000 }, (_, index) => newId(1_700_000_000_000 + index))
  expect(new Set(ids).size).toBe(ids.length)
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  expect(ids.toSorted()).toEqual(ids)
})

test('leaves no digit to be guessed but time, version and two bits of the variant', () => {
  const ids = Array.from({ length: 10_000 }, () => newId(1_700_000_000_000))
  const seen = Array.from({ length: 36 }, (_, place) => new Set(ids.map((id) => id[place])).size)
  const fixed = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
  const random = [16, 16, 16]
  expect(seen).toEqual([...fixed, 1, ...random, 1, 4, ...random, 1, ...random, ...random, ...random, ...random])
})
