import { expect, test } from 'vitest'
import { checkEtag, etagOf } from './etag.ts'

test('an etag that is not the current one is refused with the current one', () => {
  expect(() => checkEtag(etagOf(1), etagOf(2), 'service.etag')).toThrow(
    expect.objectContaining({ reason: 'ETAG_MISMATCH', metadata: { etag: 'r2', field: 'service.etag' } }),
  )
})

test('the current etag and none are accepted', () => {
  expect(() => checkEtag(etagOf(2), etagOf(2))).not.toThrow()
  expect(() => checkEtag('', etagOf(2))).not.toThrow()
})
