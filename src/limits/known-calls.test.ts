import { expect, test } from 'vitest'
import { KnownCalls } from './known-calls.ts'

test('what is known is that of one consumer, service and key', () => {
  const known = new KnownCalls<number>(10)
  known.set('c', 's', 'k', 1)
  known.set('c', 's', '', 2)
  known.set('c', 't', 'k', 3)
  known.set('d', 's', 'k', 4)
  const asked = [known.get('c', 's', 'k'), known.get('c', 's', ''), known.get('c', 't', 'k'), known.get('d', 's', 'k')]
  expect(asked).toEqual([1, 2, 3, 4])
  expect(known.get('d', 't', 'k')).toBeUndefined()
})

test('at its ceiling it forgets, and goes on', () => {
  const known = new KnownCalls<number>(2)
  known.set('c', 's', 'a', 1)
  known.set('c', 's', 'b', 2)
  known.set('c', 's', 'b', 3)
  expect(known.get('c', 's', 'a')).toBe(1)
  known.set('c', 's', 'c', 4)
  expect([known.get('c', 's', 'a'), known.get('c', 's', 'b'), known.get('c', 's', 'c')]).toEqual([
    undefined,
    undefined,
    4,
  ])
})
