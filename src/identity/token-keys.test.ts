import type { JWSHeaderParameters } from 'jose'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type IssuerFault, startTokenIssuer, type TokenIssuer } from '../../test/support/token-issuer.ts'
import { fetchTokenKeys, isSafeUrl } from './fetch-token-keys.ts'
import { createTokenKeys, refreshAfterMs, type TokenKeys } from './token-keys.ts'

const usableForMs = 3_600_000
let nowMs = 0
let issuer: TokenIssuer
let keys: TokenKeys
let lines: string[]
beforeEach(async () => {
  nowMs = 1_900_000_000_000
  lines = []
  issuer = await startTokenIssuer()
  keys = createTokenKeys({
    issuer: issuer.issuer,
    fetchKeys: () => fetchTokenKeys({ issuer: issuer.issuer, keysUrl: undefined, allowHttp: false }),
    usableForMs,
    clock: () => nowMs,
    log: pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }),
  })
})
afterEach(() => issuer.close())

const header = (kid: string): JWSHeaderParameters => ({ alg: 'RS256', kid })

describe('the keys of an issuer', () => {
  it('are fetched once for all who wait', async () => {
    await Promise.all(Array.from({ length: 50 }, () => keys.keyOf(header('key-1'))))
    expect(issuer.asked()).toBe(1)
    expect(keys.state()).toMatchObject({ keys: 1, failing: undefined, readAtMs: nowMs })
  })

  it('are fetched again for a key that is missing: a rotation is followed at once', async () => {
    await keys.keyOf(header('key-1'))
    const before = keys.generation()
    await issuer.rotate()
    nowMs += 2_000
    await keys.keyOf(header('key-2'))
    await keys.keyOf(header('key-1'))
    expect(issuer.asked()).toBe(2)
    expect(keys.generation()).not.toBe(before)
  })

  it('are not fetched for each of many keys that do not exist', async () => {
    await keys.keyOf(header('key-1'))
    nowMs += 2_000
    for (let index = 0; index < 100; index++) {
      await expect(keys.keyOf(header(`junk-${index}`))).rejects.toMatchObject({ reason: 'TOKEN_KEY_UNKNOWN' })
    }
    expect(issuer.asked()).toBe(2)
  })

  it('are fetched again when they are old, beside the calls: a withdrawn key is gone after that', async () => {
    await keys.keyOf(header('key-1'))
    await issuer.rotate()
    issuer.withdrawOld()
    nowMs += refreshAfterMs
    const before = keys.generation()
    await eventually(() => keys.generation() !== before)
    await expect(keys.keyOf(header('key-1'))).rejects.toMatchObject({ reason: 'TOKEN_KEY_UNKNOWN' })
    await keys.keyOf(header('key-2'))
  })

  it('go on being used while the issuer is away, for a bounded time', async () => {
    await keys.keyOf(header('key-1'))
    issuer.answerWith({ status: 503 })
    nowMs += usableForMs - 1
    const before = keys.generation()
    await eventually(() => (keys.generation() === before && keys.state().failing) !== undefined)
    await keys.keyOf(header('key-1'))
    await expect(keys.keyOf(header('key-2'))).rejects.toMatchObject({ reason: 'TOKEN_KEYS_UNAVAILABLE' })
    nowMs += 1
    expect(keys.generation()).toBeUndefined()
    await expect(keys.keyOf(header('key-1'))).rejects.toMatchObject({ reason: 'TOKEN_KEYS_UNAVAILABLE' })
    expect(keys.state()).toMatchObject({ keys: 0, failing: expect.stringContaining('status 503') })
    issuer.answerWith(undefined)
    nowMs += 1_000
    await keys.keyOf(header('key-1'))
    expect(keys.state()).toMatchObject({ keys: 1, failing: undefined })
  })

  it('are not asked for by every call while the issuer is away', async () => {
    issuer.answerWith({ status: 500 })
    for (let index = 0; index < 20; index++) {
      await expect(keys.keyOf(header('key-1'))).rejects.toMatchObject({
        reason: 'TOKEN_KEYS_UNAVAILABLE',
        retryAfterMs: 1_000,
      })
    }
    expect(issuer.asked()).toBe(1)
    issuer.answerWith(undefined)
    nowMs += 1_000
    await keys.keyOf(header('key-1'))
    expect(issuer.asked()).toBe(2)
  })

  it('are said to be away once, and to be back once', async () => {
    issuer.answerWith({ status: 500 })
    for (let index = 0; index < 5; index++) {
      await expect(keys.keyOf(header('key-1'))).rejects.toMatchObject({ reason: 'TOKEN_KEYS_UNAVAILABLE' })
      nowMs += 1_000
    }
    expect(issuer.asked()).toBe(5)
    issuer.answerWith(undefined)
    await keys.keyOf(header('key-1'))
    expect(lines.map((line) => /"msg":"([^"]+)"/.exec(line)?.[1])).toEqual([
      'the keys of a token issuer cannot be read',
      'the keys of a token issuer can be read again',
    ])
  })

  it('without a name are taken when only one fits', async () => {
    await keys.keyOf({ alg: 'RS256' })
    await issuer.rotate()
    nowMs += refreshAfterMs
    keys.generation()
    await eventually(() => keys.state().keys === 2)
    await expect(keys.keyOf({ alg: 'RS256' })).rejects.toMatchObject({ reason: 'TOKEN_KEY_UNKNOWN' })
  })
})

describe('a document is refused', () => {
  const faults: [string, IssuerFault, RegExp][] = [
    ['with another status', { status: 404 }, /status 404/],
    ['that leads elsewhere', { status: 302, headers: { location: 'http://127.0.0.1:1/' } }, /status 302/],
    ['that is no JSON', { body: '<html>' }, /not answer with a JSON object/],
    ['that is larger than 1 MiB', { body: ' '.repeat(1024 * 1024 + 1) }, /more than 1048576 bytes/],
    ['of another issuer', { body: '{"issuer":"https://elsewhere.example"}' }, /of another issuer/],
  ]
  it.each(faults)('%s', async (_, fault, text) => {
    issuer.answerWith(fault)
    const fetching = fetchTokenKeys({ issuer: issuer.issuer, keysUrl: undefined, allowHttp: false })
    await expect(fetching).rejects.toThrow(text)
  })

  const sets: [string, string, RegExp][] = [
    ['without keys', '{}', /no list of keys/],
    ['with thousands of keys', JSON.stringify({ keys: Array(201).fill({}) }), /more than 200 keys/],
  ]
  it.each(sets)('%s', async (_, body, text) => {
    issuer.answerWith({ body })
    const fetching = fetchTokenKeys({ issuer: issuer.issuer, keysUrl: issuer.keysUrl, allowHttp: false })
    await expect(fetching).rejects.toThrow(text)
  })

  it('when it does not come in time, or not to its end', async () => {
    issuer.answerWith({ stalls: true })
    const stalling = { issuer: issuer.issuer, keysUrl: issuer.keysUrl, allowHttp: false, timeoutMs: 200 }
    await expect(fetchTokenKeys(stalling)).rejects.toThrow(/keys cannot be read: .*timeout/)
  })

  it('when nobody is there', async () => {
    await issuer.close()
    const away = { issuer: issuer.issuer, keysUrl: issuer.keysUrl, allowHttp: false }
    await expect(fetchTokenKeys(away)).rejects.toThrow(/keys cannot be read: .*ECONNREFUSED/)
    issuer = await startTokenIssuer()
  })

  it('that names keys in clear on another machine', async () => {
    issuer.answerWith({ body: JSON.stringify({ issuer: issuer.issuer, jwks_uri: 'http://keys.example/' }) })
    const fetching = fetchTokenKeys({ issuer: issuer.issuer, keysUrl: undefined, allowHttp: false })
    await expect(fetching).rejects.toThrow(/in clear/)
  })
})

it('takes no shared secrets and no keys for encryption', async () => {
  const [oct, enc] = [
    { kty: 'oct', k: 'c2VjcmV0' },
    { ...issuer.publicJwk(), use: 'enc' },
  ]
  issuer.answerWith({ body: JSON.stringify({ keys: [oct, enc, 7, issuer.publicJwk()] }) })
  const set = await fetchTokenKeys({ issuer: issuer.issuer, keysUrl: issuer.keysUrl, allowHttp: false })
  expect(set.keys).toEqual([issuer.publicJwk()])
})

it.each([
  ['https://id.example/realm', false, true],
  ['http://id.example/realm', false, false],
  ['http://id.example/realm', true, true],
  ['http://localhost:8080/realm', false, true],
  ['http://[::1]:8080/', false, true],
  ['http://127.0.0.1.example/', false, false],
  ['file:///etc/keys', true, false],
  ['id.example', true, false],
])('isSafeUrl(%s, allowHttp %s) is %s', (url, allowHttp, expected) => {
  expect(isSafeUrl(url, allowHttp)).toBe(expected)
})
