import { describe, expect, it } from 'vitest'
import { administrator, keyOf } from '../../test/support/invoke.ts'
import { createAdminKey } from './admin-key.ts'
import { createAuthenticator } from './authenticator.ts'
import { generateKey } from './key-format.ts'

const secret = 'an administrator key of 36 characters'
const principal = keyOf({ id: 'c', organizationId: 'o' })
const authenticate = createAuthenticator({
  verifier: { verify: async () => principal },
  adminKey: createAdminKey(secret),
})

describe('createAuthenticator', () => {
  it('knows the administrator by its key', async () => {
    expect(await authenticate(secret)).toEqual(administrator)
  })

  it('leaves API keys to the verifier', async () => {
    expect(await authenticate(generateKey().key)).toBe(principal)
  })

  it.each([
    ['no credential', undefined, 'CREDENTIAL_MISSING'],
    ['an empty credential', '', 'CREDENTIAL_MISSING'],
    ['another text', 'sk-something', 'CREDENTIAL_INVALID'],
    ['the administrator key with a character more', `${secret}x`, 'CREDENTIAL_INVALID'],
    ['the administrator key with a character less', secret.slice(1), 'CREDENTIAL_INVALID'],
  ])('refuses %s', async (_, credential, reason) => {
    await expect(authenticate(credential)).rejects.toMatchObject({ reason })
  })

  it('has no administrator when no key is set', async () => {
    const without = createAuthenticator({ verifier: { verify: async () => principal } })
    await expect(without(secret)).rejects.toMatchObject({ reason: 'CREDENTIAL_INVALID' })
  })
})

describe('createAdminKey refuses', () => {
  it.each([
    ['a short key', 'x'.repeat(31)],
    ['a key that looks like an API key', generateKey().key],
  ])('%s', (_, key) => {
    expect(() => createAdminKey(key)).toThrow(RangeError)
  })
})
