import { describe, expect, it } from 'vitest'
import { administrator, keyOf } from '../../test/support/invoke.ts'
import { ownConsumer } from './own-consumer.ts'
import { anonymous } from './principal.ts'

const caller = keyOf({ id: 'mine', organizationId: 'o' })

describe('ownConsumer', () => {
  it('is the credential’s consumer when the request names none, or the same', () => {
    expect(ownConsumer('', caller)).toBe('mine')
    expect(ownConsumer('mine', caller)).toBe('mine')
  })

  it('is whomever an administrator names', () => {
    expect(ownConsumer('any', administrator)).toBe('any')
  })

  it.each([
    ['an administrator that names none', '', administrator, 'INVALID_ARGUMENT'],
    ['a caller without a credential', 'mine', anonymous, 'CREDENTIAL_MISSING'],
  ])('refuses %s', (_, id, principal, reason) => {
    expect(() => ownConsumer(id, principal)).toThrow(expect.objectContaining({ reason }))
  })

  it('names the field that an administrator left empty', () => {
    expect(() => ownConsumer('', administrator, 'id')).toThrow(
      expect.objectContaining({ fields: [expect.objectContaining({ field: 'id' })] }),
    )
  })
})
