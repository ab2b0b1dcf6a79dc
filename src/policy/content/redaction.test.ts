import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ContentKind } from '../../../gen/marketplace/v1/policy_pb.ts'
import { compileScanner, contentOf, textOf } from './content.ts'
import { replaced } from './texts.ts'

const emails = compileScanner({ kinds: [ContentKind.EMAIL], patterns: [] })

function redact(payload: Uint8Array, scan = emails): string {
  const content = contentOf(payload)
  return Buffer.from(replaced(content.texts.source, scan(content).replacements)).toString()
}

const address = 'bob@example.org'
const mark = '[redacted:email]'
/** Texts with an address, or without. */
const text = fc
  .array(fc.oneof(fc.string({ unit: 'grapheme', maxLength: 12 }), fc.constant(` ${address} `)), { maxLength: 4 })
  .map((parts) => parts.join(''))
  .filter((joined) => !joined.replaceAll(address, '').includes('@'))
const json = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(text, tie('value'), { maxKeys: 4 }),
  ),
})).value

/** JSON as others write it: each character as it is, or escaped. */
function written(value: unknown, isEscaped: (char: string) => boolean): string {
  return JSON.stringify(value, undefined, 1).replace(/(?<!\\)[a-z@]/g, (char, at, all: string) => {
    const isInString = (all.slice(0, at).match(/(?<!\\)(?:\\\\)*"/g) ?? []).length % 2 === 1
    return isInString && isEscaped(char) ? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}` : char
  })
}

/** What redaction is to make of a value. */
function expected(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll(address, mark)
  if (Array.isArray(value)) return value.map(expected)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, expected(member)]))
}

test('JSON stays valid, and says the same but for what was taken out', () => {
  fc.assert(
    fc.property(json, (value) => {
      expect(JSON.parse(redact(Buffer.from(JSON.stringify(value))))).toEqual(
        JSON.parse(JSON.stringify(expected(value))),
      )
    }),
  )
})

test('everything else stays byte for byte, numbers and white space and escapes too', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'grapheme' }), { minLength: 1, maxLength: 4 }), (texts) => {
      const clean = texts.map((each) => each.replaceAll('@', ''))
      const before = JSON.stringify({ n: 1, texts: clean }, undefined, 2).replace('1', '1.50000000000000000001')
      expect(redact(Buffer.from(before))).toBe(before)
      const both = before.replace('"texts"', `"mail": "\\u00e9 ${address} \\n",  "texts"`)
      expect(redact(Buffer.from(both))).toBe(both.replace(address, mark))
    }),
  )
})

test('an address is found however it is escaped', () => {
  fc.assert(
    fc.property(fc.func(fc.boolean()), (isEscaped) => {
      const source = written({ content: `to ${address} now`, n: 1 }, isEscaped)
      expect(JSON.parse(redact(Buffer.from(source)))).toEqual({ content: `to ${mark} now`, n: 1 })
    }),
  )
})

test('names of members are no text, data URLs are none, and other formats are one', () => {
  expect(redact(Buffer.from(`{"${address}": 1}`))).toBe(`{"${address}": 1}`)
  const image = `{"url": "data:image/png;base64,${Buffer.from(address).toString('base64')}"}`
  expect(textOf(contentOf(Buffer.from(image)))).toBe('')
  expect(redact(Buffer.from(`mail: ${address}\n`))).toBe(`mail: ${mark}\n`)
})

test('a text that only begins like a data URL is looked into; a file is not, whatever its size', () => {
  expect(redact(Buffer.from(`{"text": "data:;base64, ${address}"}`))).toBe(`{"text": "data:;base64, ${mark}"}`)
  expect(redact(Buffer.from(`{"text": "data:;base64,aGk= ${address}"}`))).toBe(`{"text": "data:;base64,aGk= ${mark}"}`)
  const file = Buffer.alloc(3_000_000, 255).toString('base64')
  for (const written of [file, file.replaceAll('/', '\\/')]) {
    expect(textOf(contentOf(Buffer.from(`{"url":"data:application/pdf;name=a.pdf;base64,${written}"}`)))).toBe('')
  }
})

test('what overlaps is taken out once, under the name of what begins first', () => {
  const scan = compileScanner({
    kinds: [ContentKind.EMAIL],
    patterns: [
      { $typeName: 'marketplace.v1.ContentPattern', name: 'project', regex: '(?i)project \\w+@\\w+' },
      { $typeName: 'marketplace.v1.ContentPattern', name: 'nothing', regex: 'z*' },
    ],
  })
  expect(redact(Buffer.from('{"a":"Project bob@example.org is late"}'), scan)).toBe(
    '{"a":"[redacted:project] is late"}',
  )
})

test('bytes that are no UTF-8 are looked into, and cannot be written', () => {
  const content = contentOf(Buffer.concat([Buffer.from([0xff]), Buffer.from(` ${address}`)]))
  expect(content.texts.isWritable).toBe(false)
  expect(emails(content).names).toEqual(['email'])
})

test.each([
  ['JSON', (json: string) => json],
  ['JSON behind a byte order mark', (json: string) => `\uFEFF${json}`],
  ['JSON with an escape that does not exist in another text', (json: string) => json.replace('prose', '\\x prose')],
  ['JSON with a control character in another text', (json: string) => json.replace('prose', '\u0001 prose')],
  ['JSON that is cut', (json: string) => json.slice(0, -1)],
])('an address in escapes is found and taken out of %s', (_, damage) => {
  const spelled = [...address].map((char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')
  const chat = (said: string) => damage(`{"messages":[{"content":"${said}"},{"content":"${'prose, '.repeat(2000)}"}]}`)
  const payload = Buffer.from(chat(spelled))
  expect(textOf(contentOf(payload))).toContain(address)
  expect(redact(payload)).toBe(chat(mark))
})

test('an address outside of the strings of what only begins like JSON is found and taken out', () => {
  const payload = Buffer.from(`{"a": "b", ${address}}`)
  expect(redact(payload)).toBe(`{"a": "b", ${mark}}`)
})
