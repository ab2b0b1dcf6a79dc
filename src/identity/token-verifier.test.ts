import fc from 'fast-check'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { base64url, startTokenIssuer, type TokenIssuer } from '../../test/support/token-issuer.ts'
import { fetchTokenKeys } from './fetch-token-keys.ts'
import { tokenAlgorithms } from './token-algorithms.ts'
import { createTokenKeys, type TokenKeys } from './token-keys.ts'
import { createTokenVerifier, looksLikeToken, type TokenVerifier } from './token-verifier.ts'

const nowSeconds = 1_900_000_000
const skewSeconds = 30
let clockMs = nowSeconds * 1000
let ours: TokenIssuer
let theirs: TokenIssuer
let verify: TokenVerifier['verify']
beforeAll(async () => {
  ;[ours, theirs] = await Promise.all([startTokenIssuer(() => clockMs), startTokenIssuer(() => clockMs)])
  verify = verifierOf(ours).verify
})
afterAll(async () => {
  await Promise.all([ours.close(), theirs.close()])
})

function verifierOf(...issuers: TokenIssuer[]): TokenVerifier {
  const keysOf = (issuer: string) =>
    createTokenKeys({
      issuer,
      fetchKeys: () => fetchTokenKeys({ issuer, keysUrl: undefined, allowHttp: false }),
      usableForMs: 3_600_000,
      clock: () => clockMs,
      log: pino({ level: 'silent' }),
    })
  return createTokenVerifier({ ...settings, issuers: new Map(issuers.map(({ issuer }) => [issuer, keysOf(issuer)])) })
}

const settings = {
  audiences: ['gate', 'gate-2'],
  algorithms: tokenAlgorithms.filter((alg) => alg !== 'ES512'),
  clockSkewSeconds: skewSeconds,
  claims: { roles: 'realm_access.roles', consumer: 'tollgate_consumer', organization: 'https://x.example/org' },
  clock: () => clockMs,
}

/** The token with another header or other claims, and the signature that it had. */
function altered(token: string, part: 0 | 1, changes: object): string {
  const parts = token.split('.')
  const value: object = JSON.parse(Buffer.from(parts[part] ?? '', 'base64url').toString())
  parts[part] = base64url({ ...value, ...changes })
  return parts.join('.')
}

describe('a good token', () => {
  it('names issuer, subject and what its claims say', async () => {
    const token = await ours.sign({
      realm_access: { roles: ['consumer', 'offline_access', 7] },
      tollgate_consumer: '018F0000-0000-7000-8000-00000000000A',
      'https://x.example/org': 'org-1',
    })
    expect(await verify(token)).toEqual({
      issuer: ours.issuer,
      subject: 'alice',
      claims: {
        roles: ['consumer', 'offline_access'],
        consumerId: '018f0000-0000-7000-8000-00000000000a',
        organizationId: 'org-1',
      },
    })
  })

  const good: [string, Record<string, unknown>][] = [
    ['for several audiences', { aud: ['account', 'gate-2'] }],
    ['expired within the clock skew', { exp: nowSeconds - skewSeconds + 1 }],
    ['not yet valid within the clock skew', { nbf: nowSeconds + skewSeconds }],
    ['with claims of wrong types', { realm_access: 'x', tollgate_consumer: 7 }],
    ['with an expiry beyond the calendar', { exp: 1e15 }],
  ]
  it.each(good)('passes %s', async (_, changes) => {
    expect((await verify(await ours.sign(changes))).subject).toBe('alice')
  })

  it.each(['PS256', 'ES256', 'EdDSA'])('passes when signed with %s', async (alg) => {
    await ours.rotate(alg)
    clockMs += 2_000
    expect((await verify(await ours.sign())).subject).toBe('alice')
  })

  it('of a second issuer passes with the keys of that one only', async () => {
    const { verify: both } = verifierOf(ours, theirs)
    expect((await both(await theirs.sign())).issuer).toBe(theirs.issuer)
    await expect(both(await theirs.sign({ iss: ours.issuer }))).rejects.toMatchObject({ reason: /^TOKEN_(KEY|SIG)/ })
  })

  it('that was verified before is refused once its time is over', async () => {
    const token = await ours.sign({ exp: nowSeconds + 3600 })
    await verify(token)
    const before = clockMs
    clockMs = (nowSeconds + 3600 + skewSeconds) * 1000
    await expect(verify(token)).rejects.toMatchObject({ reason: 'TOKEN_EXPIRED' })
    await expect(verify(token)).rejects.toMatchObject({ reason: 'TOKEN_EXPIRED' })
    clockMs = before
  })
})

it('knows what it found good, until its time is over', async () => {
  const verifier = verifierOf(ours)
  const token = await ours.sign({ exp: nowSeconds + 60 })
  expect(verifier.isKnown(token)).toBe(false)
  // The first token of an issuer brings its keys.
  await verifier.verify(await ours.sign({ jti: 'first' }))
  await verifier.verify(token)
  expect(verifier.isKnown(token)).toBe(true)
  expect(verifier.isKnown(`${token}A`)).toBe(false)
  const before = clockMs
  clockMs = (nowSeconds + 60 + skewSeconds) * 1000
  expect(verifier.isKnown(token)).toBe(false)
  clockMs = before
})

it('forgets what it found good when the key is withdrawn, and when the keys are too old', async () => {
  const issuer = await startTokenIssuer(() => clockMs)
  const before = clockMs
  const { verify: verifyTheirs } = verifierOf(issuer)
  const token = await issuer.sign({ exp: nowSeconds + 86_400 })
  for (let round = 0; round < 2; round++) await verifyTheirs(token)
  await issuer.rotate()
  issuer.withdrawOld()
  clockMs += 2_000
  const renewed = await issuer.sign({ exp: nowSeconds + 86_400 })
  for (let round = 0; round < 2; round++) await verifyTheirs(renewed)
  await expect(verifyTheirs(token)).rejects.toMatchObject({ reason: 'TOKEN_KEY_UNKNOWN' })
  issuer.answerWith({ status: 503 })
  clockMs += 3_600_000
  await expect(verifyTheirs(renewed)).rejects.toMatchObject({ reason: 'TOKEN_KEYS_UNAVAILABLE' })
  clockMs = before
  await issuer.close()
})

it('verifies a token once, and one that expired once, too', async () => {
  let looks = 0
  const keys = createTokenKeys({
    issuer: ours.issuer,
    fetchKeys: () => fetchTokenKeys({ issuer: ours.issuer, keysUrl: undefined, allowHttp: false }),
    usableForMs: 3_600_000,
    clock: () => clockMs,
    log: pino({ level: 'silent' }),
  })
  const counting: TokenKeys = { ...keys, keyOf: (header) => keys.keyOf(header).finally(() => looks++) }
  const verifier = createTokenVerifier({ ...settings, issuers: new Map([[ours.issuer, counting]]) })
  await verifier.verify(await ours.sign({ jti: 'first' }))
  const [good, expired] = await Promise.all([ours.sign(), ours.sign({ exp: nowSeconds - 3600 })])
  looks = 0
  for (let round = 0; round < 3; round++) {
    await verifier.verify(good)
    await expect(verifier.verify(expired)).rejects.toMatchObject({
      reason: 'TOKEN_EXPIRED',
      metadata: { expireTime: '2030-03-17T16:46:40.000Z' },
    })
    expect(verifier.isKnown(expired)).toBe(false)
  }
  expect(looks).toBe(2)
})

describe('refuses', () => {
  const claims: [string, string, Record<string, unknown>, RegExp][] = [
    ['TOKEN_EXPIRED', 'an expired token', { exp: nowSeconds - 3600 }, /expired at 2030-03-17T16:46:40/],
    ['TOKEN_EXPIRED', 'one at the end of the clock skew', { exp: nowSeconds - 3600 - skewSeconds }, /expired at/],
    ['TOKEN_NOT_YET_VALID', 'one of the future', { nbf: nowSeconds + 3600 }, /not valid before 2030-03-17T18:46:40/],
    ['TOKEN_NOT_YET_VALID', 'one of beyond the calendar', { nbf: 1e300 }, /not valid before/],
    ['TOKEN_AUDIENCE', 'one for somebody else', { aud: 'billing' }, /not for gate or gate-2/],
    ['TOKEN_AUDIENCE', 'one for nobody', { aud: [] }, /not for gate or gate-2/],
    ['TOKEN_AUDIENCE', 'one without an audience', { aud: undefined }, /not for gate or gate-2/],
    ['TOKEN_ISSUER', 'another issuer', { iss: 'https://elsewhere.example' }, /not trusted here/],
    ['TOKEN_ISSUER', 'no issuer', { iss: undefined }, /not trusted here/],
    ['TOKEN_SUBJECT', 'no subject', { sub: undefined }, /must name its subject/],
    ['TOKEN_SUBJECT', 'an empty subject', { sub: '' }, /must name its subject/],
    ['TOKEN_SUBJECT', 'a subject that is too long', { sub: 'x'.repeat(513) }, /must name its subject/],
    ['TOKEN_MALFORMED', 'no expiry', { exp: undefined }, /claim "exp" is missing/],
  ]
  it.each(claims)('%s: %s', async (reason, _, changes, text) => {
    await expect(verify(await ours.sign(changes))).rejects.toMatchObject({
      reason,
      message: expect.stringMatching(text),
    })
  })

  const forged: [string, string, () => Promise<string>][] = [
    ['TOKEN_UNSIGNED', '"alg": "none"', async () => ours.unsigned()],
    ['TOKEN_UNSIGNED', '"alg": "NoNe" with a signature', async () => altered(await ours.sign(), 0, { alg: 'NoNe' })],
    ['TOKEN_ALGORITHM', 'HS256 with the public key as the secret', async () => ours.confused()],
    [
      'TOKEN_ALGORITHM',
      'an algorithm that is not allowed',
      async () => altered(await ours.sign(), 0, { alg: 'ES512' }),
    ],
    ['TOKEN_ALGORITHM', 'no algorithm', async () => altered(await ours.sign(), 0, { alg: undefined })],
    ['TOKEN_KEY_UNKNOWN', 'an unknown key', () => ours.sign({}, { kid: 'key-99' })],
    ['TOKEN_KEY_UNKNOWN', 'a key of another algorithm', async () => altered(await ours.sign(), 0, { alg: 'RS512' })],
    ['TOKEN_SIGNATURE', 'claims that were changed', async () => altered(await ours.sign(), 1, { sub: 'root' })],
    ['TOKEN_SIGNATURE', "another issuer's signature", () => theirs.sign({ iss: ours.issuer }, { kid: 'key-1' })],
    ['TOKEN_SIGNATURE', 'an empty signature', async () => (await ours.sign()).replace(/[^.]+$/, '')],
    ['TOKEN_MALFORMED', 'a critical header', async () => altered(await ours.sign(), 0, { crit: ['x'], x: 1 })],
    ['TOKEN_MALFORMED', 'two parts', async () => (await ours.sign()).replace(/\.[^.]+$/, '')],
    ['TOKEN_MALFORMED', 'five parts', async () => `${await ours.sign()}.x.y`],
    ['TOKEN_MALFORMED', 'junk', async () => 'a.b.c'],
    ['TOKEN_MALFORMED', 'claims that are no object', async () => `${base64url({ alg: 'RS256' })}.${base64url([])}.AA`],
  ]
  it.each(forged)('%s: %s', async (reason, _, make) => {
    await expect(verify(await make())).rejects.toMatchObject({ reason })
  })
})

describe('whatever is sent', () => {
  it('no change of a good token passes', async () => {
    const token = await ours.sign({ realm_access: { roles: ['consumer'] } })
    await verify(token)
    const at = fc.nat({ max: token.length - 1 })
    const letter = fc.constantFrom(...'ABCZabcz019-_.=+/ é\0')
    const change = fc.oneof(
      fc.tuple(at, letter).map(([index, with_]) => token.slice(0, index) + with_ + token.slice(index + 1)),
      at.map((index) => token.slice(0, index)),
      fc.tuple(at, at).map(([from, to]) => token.slice(0, Math.min(from, to)) + token.slice(Math.max(from, to))),
      fc.tuple(at, letter).map(([index, more]) => token.slice(0, index) + more + token.slice(index)),
    )
    await fc.assert(
      fc.asyncProperty(change, async (changed) => {
        fc.pre(changed !== token && !isSameSignature(changed, token))
        await expect(verify(changed)).rejects.toMatchObject({ reason: /^TOKEN_/ })
      }),
      { numRuns: 500 },
    )
  })

  it('junk ends with a reason of its own', async () => {
    const part = fc.oneof(
      fc.string(),
      fc.base64String(),
      fc.json().map((text) => Buffer.from(text).toString('base64url')),
    )
    const junk = fc.oneof(
      fc.array(part, { maxLength: 6 }).map((parts) => parts.join('.')),
      fc.tuple(fc.object(), fc.object(), part).map(([header, claims, end]) => {
        return `${base64url({ alg: 'RS256', ...header })}.${base64url({ iss: ours.issuer, ...claims })}.${end}`
      }),
    )
    await fc.assert(
      fc.asyncProperty(junk, async (text) => {
        await expect(verify(text)).rejects.toMatchObject({ reason: /^TOKEN_/ })
        looksLikeToken(text)
      }),
      { numRuns: 500 },
    )
  })
})

/** The last letter of a part carries bits that mean nothing: two spellings of the same bytes are the same token. */
function isSameSignature(one: string, other: string): boolean {
  const bytes = (token: string) => token.split('.').map((part) => Buffer.from(part, 'base64url').toString('hex'))
  return one.split('.').length === 3 && bytes(one).join() === bytes(other).join()
}
