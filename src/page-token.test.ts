import { expect, it } from 'vitest'
import { pageOf, pageSizeOf, pageTokenOf, parsePageToken } from './page-token.ts'

it('answers 50 rows for 0, and never more than 1000', () => {
  expect([0, 1, 1_000, 5_000].map(pageSizeOf)).toEqual([50, 1, 1_000, 1_000])
})

it('gives a token only when there is more, and reads it back', () => {
  expect(pageOf(['a', 'b'], 2, (row) => [row])).toEqual({ rows: ['a', 'b'], nextPageToken: '' })
  const page = pageOf(['a', 'b', 'c'], 2, (row) => [row])
  expect(page.rows).toEqual(['a', 'b'])
  expect(parsePageToken(page.nextPageToken, 1, () => true)).toEqual(['b'])
  expect(parsePageToken('', 1, () => true)).toBeUndefined()
})

it.each(['x', 'bnVsbA', pageTokenOf(['a', 'b']), Buffer.from('[1]').toString('base64url')])(
  'refuses a token that is none of its list: %s',
  (token) => {
    expect(() => parsePageToken(token, 1, () => true)).toThrow(
      expect.objectContaining({
        reason: 'INVALID_ARGUMENT',
        fields: [expect.objectContaining({ field: 'page_token' })],
      }),
    )
  },
)
