import { crc32 } from 'node:zlib'
import { beforeAll, describe, expect, it } from 'vitest'
import { TollgateError } from '../errors.ts'
import { generateKey, parseKey, secretTag } from './key-format.ts'
import { createKeyVerifier, type KeyRecord, type KeyVerifierOptions } from './key-verifier.ts'
import { createSecretHasher } from './secret-hasher.ts'

const hasher = createSecretHasher()
const good = generateKey()
let record: KeyRecord

beforeAll(async () => {
  record = {
    id: good.keyId,
    consumerId: 'consumer',
    organizationId: 'organization',
    consumerStatus: 'active',
    secretHash: await hasher.hash(good.key),
    secretTag: secretTag(good.key),
    expiresAtMs: undefined,
    revokedAtMs: undefined,
    scopes: undefined,
    tier: undefined,
  }
})

/** A verifier on a store of one record, with the calls that it made. */
function setup(options: Partial<KeyVerifierOptions> = {}) {
  const state = { stored: record as KeyRecord | undefined, loads: 0, checks: 0, nowMs: 1_000_000, storeFails: false }
  const verifier = createKeyVerifier({
    clock: () => state.nowMs,
    loadKey: async (id) => {
      state.loads++
      if (state.storeFails) throw new Error('away')
      return id === state.stored?.id ? state.stored : undefined
    },
    hasher: {
      verify: (hash, secret) => {
        state.checks++
        return hasher.verify(hash, secret)
      },
    },
    ...options,
  })
  return { state, verifier }
}

/** A well-formed key with the good key's id and another secret. */
function wrongSecret(): string {
  return withId(good.keyId, generateKey().key)
}

function withId(keyId: string, key: string): string {
  const body = `tg_live_${keyId}_${key.slice(20, 63)}`
  const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
  let rest = crc32(body)
  let checksum = ''
  for (let i = 0; i < 6; i++) {
    checksum = alphabet.charAt(rest % 62) + checksum
    rest = Math.floor(rest / 62)
  }
  return body + checksum
}

describe('accepts', () => {
  it('the right key, and says whose it is', async () => {
    const { verifier } = setup()
    expect(await verifier.verify(good.key)).toEqual({
      kind: 'key',
      subject: `key:${good.keyId}`,
      roles: ['consumer'],
      keyId: good.keyId,
      consumerId: 'consumer',
      organizationId: 'organization',
    })
  })

  it('the right key again without the store and without Argon2', async () => {
    const { verifier, state } = setup()
    await verifier.verify(good.key)
    for (let i = 0; i < 100; i++) await verifier.verify(good.key)
    expect(state).toMatchObject({ loads: 1, checks: 1 })
  })

  it('a hundred first callers at once with one read and one Argon2', async () => {
    const { verifier, state } = setup()
    await Promise.all(Array.from({ length: 100 }, () => verifier.verify(good.key)))
    expect(state).toMatchObject({ loads: 1, checks: 1 })
  })

  it('the right key after a change elsewhere, with a new read but without Argon2', async () => {
    const { verifier, state } = setup()
    await verifier.verify(good.key)
    verifier.invalidate()
    await verifier.verify(good.key)
    await verifier.verify(good.key)
    expect(state).toMatchObject({ loads: 2, checks: 1 })
  })

  it('a key that it knows while the store is away, and asks the store once a second', async () => {
    const { verifier, state } = setup()
    await verifier.verify(good.key)
    verifier.invalidate()
    state.storeFails = true
    for (let i = 0; i < 10; i++) await verifier.verify(good.key)
    expect(state.loads).toBe(2)
    state.nowMs += 1_001
    state.storeFails = false
    state.stored = { ...record, revokedAtMs: state.nowMs }
    await expect(verifier.verify(good.key)).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
  })
})

describe('refuses', () => {
  it('every single-character change without asking the store', async () => {
    const { verifier, state } = setup()
    let refused = 0
    for (let at = 0; at < good.key.length; at++) {
      for (let code = 33; code < 127; code++) {
        const other = String.fromCharCode(code)
        if (other === good.key[at]) continue
        const typo = good.key.slice(0, at) + other + good.key.slice(at + 1)
        await verifier.verify(typo).catch((error) => {
          if (error instanceof TollgateError && error.reason === 'CREDENTIAL_INVALID') refused++
        })
      }
    }
    expect(refused).toBe(good.key.length * 93)
    expect(state).toMatchObject({ loads: 0, checks: 0 })
  })

  it('malformed keys, unknown ids and wrong secrets with the same words', async () => {
    const { verifier } = setup()
    const refused = await Promise.allSettled(
      ['x', generateKey().key, wrongSecret()].map((credential) => verifier.verify(credential)),
    )
    const texts = refused.map((result) => (result.status === 'rejected' ? String(result.reason) : 'accepted'))
    expect(new Set(texts).size).toBe(1)
    expect(texts[0]).toContain('not valid')
  })

  it('an unknown id without a second look, for a while', async () => {
    const { verifier, state } = setup({ unknownForMs: 5_000 })
    const { key, keyId } = generateKey()
    for (let i = 0; i < 5; i++) {
      await expect(verifier.verify(key)).rejects.toMatchObject({ reason: 'CREDENTIAL_INVALID' })
    }
    expect(state.loads).toBe(1)
    state.nowMs += 5_001
    state.stored = { ...record, id: keyId, secretHash: await hasher.hash(key), secretTag: secretTag(key) }
    await expect(verifier.verify(key)).resolves.toMatchObject({ keyId })
  })

  it('an unknown id only until the control plane changes', async () => {
    const { verifier, state } = setup()
    const { key, keyId } = generateKey()
    await expect(verifier.verify(key)).rejects.toThrow()
    state.stored = { ...record, id: keyId, secretHash: await hasher.hash(key), secretTag: secretTag(key) }
    verifier.invalidate()
    await expect(verifier.verify(key)).resolves.toMatchObject({ keyId })
  })

  it('a wrong secret that has the right tag, with Argon2 once however often it comes', async () => {
    const { verifier, state } = setup()
    const wrong = wrongSecret()
    state.stored = { ...record, secretTag: secretTag(wrong) }
    await Promise.allSettled(Array.from({ length: 20 }, () => verifier.verify(wrong)))
    for (let i = 0; i < 5; i++) {
      await expect(verifier.verify(wrong)).rejects.toMatchObject({ reason: 'CREDENTIAL_INVALID' })
    }
    expect(state.checks).toBe(1)
    state.stored = record
    verifier.invalidate()
    await expect(verifier.verify(good.key)).resolves.toMatchObject({ keyId: good.keyId })
  })

  it('an expired key from its instant on, with the time in the error', async () => {
    const { verifier, state } = setup()
    state.stored = { ...record, expiresAtMs: state.nowMs + 10 }
    await verifier.verify(good.key)
    state.nowMs += 10
    await expect(verifier.verify(good.key)).rejects.toMatchObject({
      reason: 'CREDENTIAL_EXPIRED',
      metadata: { keyId: good.keyId, expireTime: new Date(state.nowMs).toISOString() },
    })
  })

  it('a revoked key at its first use after the change is known', async () => {
    const { verifier, state } = setup()
    await verifier.verify(good.key)
    state.stored = { ...record, revokedAtMs: state.nowMs }
    verifier.invalidate()
    await expect(verifier.verify(good.key)).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
  })

  it('a revoked key even when the read that missed the revocation ends after the change is known', async () => {
    const reads: PromiseWithResolvers<KeyRecord | undefined>[] = []
    const { verifier } = setup({
      loadKey: () => {
        const read = Promise.withResolvers<KeyRecord | undefined>()
        reads.push(read)
        return read.promise
      },
    })
    const early = verifier.verify(good.key)
    verifier.invalidate()
    const late = verifier.verify(good.key)
    reads[1]?.resolve({ ...record, revokedAtMs: 1 })
    await expect(late).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
    reads[0]?.resolve(record)
    await expect(early).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
    // Also when nobody can read it any more.
    verifier.invalidate()
    const next = verifier.verify(good.key)
    reads[2]?.reject(new Error('away'))
    await expect(next).rejects.toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
  })

  it('keys of a consumer that is not active', async () => {
    const { verifier, state } = setup()
    state.stored = { ...record, consumerStatus: 'suspended' }
    await expect(verifier.verify(good.key)).rejects.toMatchObject({
      reason: 'CONSUMER_INACTIVE',
      metadata: { consumerId: 'consumer', status: 'suspended' },
    })
  })

  it('to tell the state of a key to who does not hold its secret', async () => {
    const { verifier, state } = setup()
    state.stored = { ...record, revokedAtMs: 1, consumerStatus: 'closed' }
    await expect(verifier.verify(wrongSecret())).rejects.toMatchObject({ reason: 'CREDENTIAL_INVALID' })
  })

  it('a key that was replaced under the same id', async () => {
    const { verifier, state } = setup()
    await verifier.verify(good.key)
    const other = wrongSecret()
    state.stored = { ...record, secretHash: await hasher.hash(other), secretTag: secretTag(other) }
    verifier.invalidate()
    await expect(verifier.verify(good.key)).rejects.toMatchObject({ reason: 'CREDENTIAL_INVALID' })
    await expect(verifier.verify(other)).resolves.toMatchObject({ keyId: good.keyId })
  })
})

describe('recalls', () => {
  it('a key that was found good, and nothing else', async () => {
    const { verifier } = setup()
    expect(verifier.recall(good.key)).toBeUndefined()
    const caller = await verifier.verify(good.key)
    expect(verifier.recall(good.key)).toBe(caller)
    const others = ['', 'x', wrongSecret(), generateKey().key, `${good.key}x`, good.key.slice(0, -1)]
    expect(others.map((other) => verifier.recall(other))).toEqual(others.map(() => undefined))
  })

  it('no key after a change elsewhere, until its record was read again', async () => {
    const { verifier } = setup()
    await verifier.verify(good.key)
    verifier.invalidate()
    expect(verifier.recall(good.key)).toBeUndefined()
    await verifier.verify(good.key)
    expect(verifier.recall(good.key)?.keyId).toBe(good.keyId)
  })

  it('no key that expired, at its instant', async () => {
    const { verifier, state } = setup()
    state.stored = { ...record, expiresAtMs: state.nowMs + 10 }
    await verifier.verify(good.key)
    state.nowMs += 9
    expect(verifier.recall(good.key)?.keyId).toBe(good.keyId)
    state.nowMs += 1
    expect(verifier.recall(good.key)).toBeUndefined()
  })
})

describe('under attack', () => {
  it('serves the right key at once while wrong secrets for the same id pour in', async () => {
    const { verifier, state } = setup()
    const flood = Array.from({ length: 3_000 }, () => verifier.verify(wrongSecret()).catch(() => 'refused'))
    const served = verifier.verify(good.key)
    const more = Array.from({ length: 3_000 }, () => verifier.verify(wrongSecret()).catch(() => 'refused'))
    await expect(served).resolves.toMatchObject({ keyId: good.keyId })
    expect(new Set(await Promise.all([...flood, ...more]))).toEqual(new Set(['refused']))
    // The tag lets one of 65,536 through: one for the right key, and hardly ever more than two beside it.
    expect(state.checks).toBeLessThanOrEqual(5)
    expect(state.loads).toBe(1)
  })

  it('holds no more than its ceilings, whatever comes', async () => {
    const { verifier } = setup({
      maxKeys: 10,
      maxRefused: 20,
      loadKey: async (id) => (id.charCodeAt(0) % 2 === 0 ? { ...record, id } : undefined),
      hasher: { verify: async () => false },
    })
    for (let i = 0; i < 500; i++) await verifier.verify(generateKey().key).catch(() => {})
    const { keys, unknown, wrong } = verifier.size()
    expect(keys).toBeLessThanOrEqual(10)
    expect(unknown).toBeLessThanOrEqual(20)
    expect(wrong).toBeLessThanOrEqual(20)
  })

  it('leaves nothing of a failed read behind: the next caller asks again', async () => {
    const { verifier, state } = setup()
    state.storeFails = true
    await expect(verifier.verify(good.key)).rejects.toThrow('away')
    state.storeFails = false
    await expect(verifier.verify(good.key)).resolves.toMatchObject({ keyId: parseKey(good.key)?.keyId })
  })
})
