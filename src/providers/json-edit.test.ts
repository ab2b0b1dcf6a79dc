import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { jsonDocument } from './fixtures/json-documents.ts'
import { parseObject } from './json.ts'
import { setKnownMember, setMember, withoutMember } from './json-edit.ts'

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

describe('a member that is known to be there or not', () => {
  test('is set to the same bytes as one that is looked for', () => {
    const property = fc.property(jsonDocument, fc.constantFrom('model', 'content', 'usage', 'stream'), (json, name) => {
      const bytes = Buffer.from(json)
      const isThere = name in (parseObject(bytes) ?? {})
      const known = setKnownMember(bytes, name, '"set"', isThere)
      expect(Buffer.from(known).toString()).toBe(Buffer.from(setMember(bytes, [name], '"set"')).toString())
    })
    fc.assert(property, { numRuns: 2000 })
  })

  test.each([
    ['the only one', '{ "model" : "a" , "x":1}'],
    ['in a string before a colon', '{"x":"\\"model\\":1","y\\"model":2,"model":"a"}'],
    ['as a value', '{"role":"model","model":"a"}'],
    ['of an object inside', '{"x":{"model":"b"},"model":"a"}'],
    ['twice', '{"model":"b","model":"a"}'],
    ['spelled with an escape', '{"model":"b","mod\\u0065l":"a"}'],
    ['followed by an empty object', '{"model":"a","x":{} } '],
  ])('is found %s', (_, json) => {
    const changed = setKnownMember(Buffer.from(json), 'model', '"new"', true)
    expect(JSON.parse(Buffer.from(changed).toString())).toEqual({ ...JSON.parse(json), model: 'new' })
  })

  test.each([
    ['{}', '{"n":1}'],
    [' { } \n', ' {"n":1 } \n'],
    ['{"a":{} }', '{"a":{},"n":1 }'],
    ['{"a":"}"}', '{"a":"}","n":1}'],
  ])('is added to %s', (json, changed) => {
    expect(Buffer.from(setKnownMember(Buffer.from(json), 'n', '1', false)).toString()).toBe(changed)
  })
})
