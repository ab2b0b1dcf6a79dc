import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseTemplate, variableText } from './path-template.ts'
import { RouteTable } from './route-table.ts'

describe('is refused with what is wrong with it', () => {
  test.each([
    ['v1/things', 'does not begin with a slash'],
    ['/v1//things', 'a segment ""'],
    ['/v1/things/', 'a segment ""'],
    ['/v1/a b', 'a segment "a b"'],
    ['/v1/{id', 'a segment "{id"'],
    ['/v1/{}', 'a segment "{}"'],
    ['/v1/{id=}', 'a segment "{id=}"'],
    ['/v1/{a=x/{b}}', 'a segment'],
    ['/v1/x{id}', 'a segment "x{id}"'],
    ['/v1/{id}:', 'an action that is no word'],
    ['/v1/{id}:a:b', 'a segment'],
    ['/v1/{id}/{id}', 'binds id twice'],
    ['/v1/**/x', '** before its last segment'],
    ['/v1/{name=**}/x', '** before its last segment'],
  ])('%s', (text, message) => {
    expect(() => parseTemplate(text)).toThrow(message)
  })
})

test.each([
  ['/v1/things', 2, [], ''],
  ['/v1/{thing_id}/parts/*', 4, ['thing_id'], ''],
  ['/v1/{name=things/*/parts/*}:stop', 5, ['name'], 'stop'],
  ['/v1/{thing.id}/{rest=**}', 3, ['thing.id', 'rest'], ''],
])('%s is read', (text, segments, fields, action) => {
  const template = parseTemplate(text)
  expect(template.segments).toHaveLength(segments)
  expect(template.variables.map(({ field }) => field)).toEqual(fields)
  expect(template.action).toBe(action)
})

describe('a variable is decoded', () => {
  const textIn = (template: string, path: string): string | undefined => {
    const [variable] = parseTemplate(template).variables
    return variable && variableText(variable, path.slice(1).split('/'))
  }

  test.each([
    ['/v1/{id}', '/v1/a%20b', 'a b'],
    ['/v1/{id}', '/v1/a%2Fb', 'a/b'],
    ['/v1/{id}', '/v1/%E2%82%AC', '€'],
    ['/v1/{id}', '/v1/..', '..'],
    ['/v1/{id}', '/v1/a+b', 'a+b'],
    ['/v1/{name=a/*}', '/v1/a/b%20c', 'a/b c'],
    // A slash that was encoded must not become one that divides segments.
    ['/v1/{name=a/*}', '/v1/a/b%2fc%20d', 'a/b%2fc d'],
    ['/v1/{name=**}', '/v1/a/b/c', 'a/b/c'],
    ['/v1/{name=**}', '/v1', ''],
    ['/v1/{id}', '/v1/%zz', undefined],
    ['/v1/{id}', '/v1/%ff', undefined],
  ])('%s of %s', (template, path, value) => {
    expect(textIn(template, path)).toBe(value)
  })
})

/** Templates from the values that a path of them shall have, so that both are known. */
const word = fc.stringMatching(/^[a-z][a-z0-9._~-]{0,8}$/)
const value = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 })
const segment = fc.oneof(
  word.map((text) => ({ kind: 'word', text }) as const),
  value.map((text) => ({ kind: 'one', text }) as const),
  fc.tuple(word, value).map(([first, text]) => ({ kind: 'two', first, text }) as const),
)

test('a path that is built from a template and values matches it, and gives the values back', () => {
  const property = fc.property(
    fc.array(segment, { minLength: 1, maxLength: 6 }),
    fc.option(word, { nil: undefined }),
    fc.option(fc.array(value, { maxLength: 3 }), { nil: undefined }),
    (segments, action, rest) => {
      const parts: string[] = []
      const path: string[] = []
      const values = new Map<string, string>()
      segments.forEach((each, index) => {
        const field = `f${index}`
        if (each.kind === 'word') parts.push(each.text)
        if (each.kind === 'one') parts.push(`{${field}}`)
        if (each.kind === 'two') parts.push(`{${field}=${each.first}/*}`)
        path.push(...(each.kind === 'two' ? [each.first] : []), encodeURIComponent(each.text))
        if (each.kind === 'one') values.set(field, each.text)
        if (each.kind === 'two') values.set(field, `${each.first}/${slashKept(each.text)}`)
      })
      if (rest !== undefined) {
        parts.push('{rest=**}')
        path.push(...rest.map(encodeURIComponent))
        values.set('rest', rest.map(slashKept).join('/'))
      }
      const end = action === undefined ? '' : `:${action}`
      const table = new RouteTable<{ template: ReturnType<typeof parseTemplate> }>()
      table.add({ template: parseTemplate(`/${parts.join('/')}${end}`) })
      const found = table.find(`/${path.join('/')}${end}`)
      const given = found?.route.template.variables.map((each) => [each.field, variableText(each, found.segments)])
      expect(Object.fromEntries(given ?? [])).toEqual(Object.fromEntries(values))
    },
  )
  fc.assert(property, { numRuns: 500 })
})

function slashKept(text: string): string {
  return text.replaceAll('/', '%2F')
}
