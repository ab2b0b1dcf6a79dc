import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { withoutMember } from './json-edit.ts'

const without = (text: string, name: string): string =>
  Buffer.from(withoutMember(Buffer.from(text), name)).toString('utf8')

describe('an object without a member', () => {
  test.each([
    ['{"a":1,"m":2,"b":3}', '{"a":1,"b":3}'],
    ['{"m":2,"b":3}', '{"b":3}'],
    ['{"a":1,"m":2}', '{"a":1}'],
    ['{"a":1 , "m":2 }', '{"a":1 }'],
    ['{"m":{"m":[1,"}"]}}', '{}'],
    [' { "m" : 2 } ', ' {  } '],
    ['{"m":1,"a":0,"m":2,"m":3}', '{"a":0}'],
    ['{"\\u006d":1,"a":{"m":5}}', '{"a":{"m":5}}'],
    ['{"a":1.10,"big":12345678901234567890,"m":"\\"","e":1E400}', '{"a":1.10,"big":12345678901234567890,"e":1E400}'],
  ])('%s is %s', (text, rest) => {
    expect(without(text, 'm')).toBe(rest)
  })

  test('is the same bytes object when it has none', () => {
    const bytes = Buffer.from('{"a":{"m":1}}')
    expect(withoutMember(bytes, 'm')).toBe(bytes)
  })

  test('means what it meant, but for that member', () => {
    const property = fc.property(
      fc.dictionary(
        fc.string(),
        fc.json().map((text) => JSON.parse(text)),
      ),
      (object) => {
        const spaced = JSON.stringify({ first: 0, ...object, m: object, last: [object] }, undefined, 1)
        const { m, ...rest } = JSON.parse(spaced)
        expect(m).toBeDefined()
        expect(JSON.parse(without(spaced, 'm'))).toEqual(rest)
      },
    )
    fc.assert(property)
  })
})
