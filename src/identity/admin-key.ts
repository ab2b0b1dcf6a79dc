import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { looksLikeKey } from './key-format.ts'
import type { Caller } from './principal.ts'

/** Shortest administrator key that is accepted, in characters. */
export const adminKeyMinLength = 32

export interface AdminKey {
  /** The administrator if the credential is the key, in constant time; else undefined. */
  match(credential: string): Caller | undefined
}

/**
 * The bootstrap administrator's key (TOLLGATE_ADMIN_KEY). Only its digest stays in memory. Throws RangeError when the
 * key is shorter than {@link adminKeyMinLength} or has the form of an API key.
 */
export function createAdminKey(adminKey: string): AdminKey {
  if (adminKey.length < adminKeyMinLength) {
    throw new RangeError(`the administrator key must have at least ${adminKeyMinLength} characters`)
  }
  if (looksLikeKey(adminKey)) throw new RangeError('the administrator key must not begin like an API key')
  const pepper = randomBytes(32).toString('base64')
  const expected = hash('sha256', pepper + adminKey, 'buffer')
  return {
    match(credential) {
      return timingSafeEqual(expected, hash('sha256', pepper + credential, 'buffer')) ? administrator : undefined
    },
  }
}

const administrator: Caller = Object.freeze({
  kind: 'administrator',
  subject: 'administrator',
  roles: Object.freeze(['admin'] as const),
  consumerId: undefined,
  organizationId: undefined,
  keyId: undefined,
})
