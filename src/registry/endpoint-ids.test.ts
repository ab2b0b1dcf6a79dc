import { expect, test } from 'vitest'
import { endpointRecord } from '../../test/support/registry-records.ts'
import { idsAfterUpdate } from './endpoint-ids.ts'

const known = [
  endpointRecord({ id: 'a', url: 'http://a' }),
  endpointRecord({ id: 'b', url: 'http://b' }),
  endpointRecord({ id: 'b2', url: 'http://b' }),
]

function idsOf(...wanted: (readonly [id: string, url: string])[]): string[] {
  let made = 0
  const newId = (): string => `new-${++made}`
  return idsAfterUpdate(
    wanted.map(([id, url]) => ({ id, url })),
    known,
    newId,
  )
}

test('an endpoint that stays keeps its id, named by it or by its URL, wherever it stands', () => {
  expect(idsOf(['b', 'http://b'], ['a', 'http://a'])).toEqual(['b', 'a'])
  expect(idsOf(['', 'http://b'], ['', 'http://a'])).toEqual(['b', 'a'])
  expect(idsOf(['', 'http://b'], ['', 'http://b'], ['', 'http://b'])).toEqual(['b', 'b2', 'new-1'])
  expect(idsOf(['', 'http://b'], ['b', 'http://b'])).toEqual(['b2', 'b'])
})

test('an endpoint of another URL is a new one', () => {
  expect(idsOf(['a', 'http://other'], ['', 'http://new'])).toEqual(['new-1', 'new-2'])
  expect(idsOf(['a', 'http://other'], ['', 'http://a'])).toEqual(['new-1', 'new-2'])
})

test('an id of nothing, and one that is named twice, are refused', () => {
  const refused = (field: string, rule: string) =>
    expect.objectContaining({ reason: 'INVALID_ARGUMENT', fields: [expect.objectContaining({ field, rule })] })
  expect(() => idsOf(['x', 'http://a'])).toThrow(refused('service.endpoints[0].id', 'exists'))
  expect(() => idsOf(['a', 'http://a'], ['a', 'http://a'])).toThrow(refused('service.endpoints[1].id', 'unique'))
})
