import { expect, test } from 'vitest'
import { deprecationHeaders } from './deprecation-headers.ts'

const deprecation = { atMs: 1_688_169_599_900, sunsetAtMs: undefined, message: 'm', successor: '' }

test('a deprecation says since when, as RFC 9745 writes it, and nothing that is not known', () => {
  expect(deprecationHeaders(deprecation)).toEqual([['deprecation', '@1688169599']])
})

test('a sunset is an HTTP date, as in RFC 8594, and a successor is named', () => {
  const sunsetAtMs = Date.parse('2026-12-31T23:59:59Z')
  expect(deprecationHeaders({ ...deprecation, sunsetAtMs, successor: 'gpt-small@2.0.0' })).toEqual([
    ['deprecation', '@1688169599'],
    ['sunset', 'Thu, 31 Dec 2026 23:59:59 GMT'],
    ['x-tollgate-successor', 'gpt-small@2.0.0'],
  ])
})
