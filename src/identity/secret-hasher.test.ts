import { describe, expect, it } from 'vitest'
import { createSecretHasher } from './secret-hasher.ts'

describe('createSecretHasher', () => {
  it('makes Argon2id hashes of 19 MiB, two passes and one lane, each with its own salt', async () => {
    const hasher = createSecretHasher()
    const [first, second] = await Promise.all([hasher.hash('secret'), hasher.hash('secret')])
    expect(first).toMatch(/^\$argon2id\$v=19\$m=19456,p=1,t=2\$/)
    expect(first).not.toBe(second)
    expect(await hasher.verify(first, 'secret')).toBe(true)
    expect(await hasher.verify(first, 'other')).toBe(false)
  })

  it('refuses who comes when the line is full, and serves everyone who is in it', async () => {
    const hasher = createSecretHasher({ concurrency: 1, maxWaiting: 2 })
    const results = await Promise.allSettled([1, 2, 3, 4, 5].map((n) => hasher.hash(`secret ${n}`)))
    expect(results.map((result) => result.status)).toEqual([
      'fulfilled',
      'fulfilled',
      'fulfilled',
      'rejected',
      'rejected',
    ])
    const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
    for (const error of refused) {
      expect(error).toMatchObject({ reason: 'CREDENTIAL_CHECK_BUSY', retryAfterMs: 40 })
    }
    // The line is empty again: places were handed on, none was lost.
    await expect(hasher.hash('another')).resolves.toContain('$argon2id$')
  })

  it('gives its place back when a check throws', async () => {
    const hasher = createSecretHasher({ concurrency: 1, maxWaiting: 1 })
    await expect(hasher.verify('not a hash', 'secret')).rejects.toThrow()
    await expect(hasher.hash('secret')).resolves.toContain('$argon2id$')
  })
})
