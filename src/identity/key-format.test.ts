import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { generateKey, looksLikeKey, parseKey, secretTag } from './key-format.ts'

const anyKey = fc.uint8Array({ minLength: 40, maxLength: 40 }).chain((bytes) =>
  fc.constantFrom('live' as const, 'test' as const).map((environment) => {
    let used = 0
    const random = (count: number): Uint8Array => {
      used += count
      return bytes.subarray(used - count, used)
    }
    return { environment, ...generateKey(random, environment) }
  }),
)

describe('generateKey', () => {
  it('makes keys of one length and form, from 40 random bytes, that parse to their id', () => {
    fc.assert(
      fc.property(anyKey, ({ key, keyId, environment }) => {
        expect(key).toMatch(/^tg_(live|test)_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}$/)
        expect(parseKey(key)).toEqual({ environment, keyId })
      }),
    )
  })

  it('keeps all bits of the random bytes', () => {
    const high = generateKey((count) => new Uint8Array(count).fill(255))
    const low = generateKey((count) => new Uint8Array(count))
    expect(high.keyId).toBe('LygHa16AHYF')
    expect(low.keyId).toBe('00000000000')
    expect(high.key.slice(20, 63)).not.toBe(low.key.slice(20, 63))
    expect(BigInt(62) ** 43n > 2n ** 256n).toBe(true)
  })
})

describe('parseKey refuses', () => {
  it('every change of a single character', () => {
    fc.assert(
      fc.property(anyKey, fc.nat(), fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }), ({ key }, at, other) => {
        const index = at % key.length
        fc.pre(key[index] !== other)
        expect(parseKey(key.slice(0, index) + other + key.slice(index + 1))).toBeUndefined()
      }),
      { numRuns: 5_000 },
    )
  })

  it('every swap of two neighbours that differ', () => {
    fc.assert(
      fc.property(anyKey, fc.nat(), ({ key }, at) => {
        const index = at % (key.length - 1)
        const [a, b] = [key.charAt(index), key.charAt(index + 1)]
        fc.pre(a !== b)
        expect(parseKey(key.slice(0, index) + b + a + key.slice(index + 2))).toBeUndefined()
      }),
      { numRuns: 2_000 },
    )
  })

  it.each([
    ['nothing', ''],
    ['other text', 'sk-proj-abcdef'],
    ['the prefix alone', 'tg_live_'],
    ['a key that is cut', generateKey().key.slice(0, -1)],
    ['a key with a line break behind it', `${generateKey().key}\n`],
    ['a megabyte', 'tg_live_'.padEnd(1_000_000, 'a')],
  ])('%s', (_, text) => {
    expect(parseKey(text)).toBeUndefined()
  })
})

it('tells text that claims to be a key from other credentials', () => {
  expect(looksLikeKey('tg_live_typo')).toBe(true)
  expect(looksLikeKey(randomBytes(32).toString('hex'))).toBe(false)
})

it('gives a tag of 16 bits', () => {
  fc.assert(
    fc.property(anyKey, ({ key }) => {
      expect(secretTag(key)).toBeGreaterThanOrEqual(0)
      expect(secretTag(key)).toBeLessThan(65_536)
    }),
  )
})
