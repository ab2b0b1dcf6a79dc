import { describe, expect, test } from 'vitest'
import { parseTemplate } from './path-template.ts'
import { RouteTable } from './route-table.ts'

function tableOf(...templates: string[]): RouteTable<{ template: ReturnType<typeof parseTemplate> }> {
  const table = new RouteTable<{ template: ReturnType<typeof parseTemplate> }>()
  for (const text of templates) table.add({ template: parseTemplate(text) })
  return table
}

const table = tableOf(
  '/v1/things',
  '/v1/things/{id}',
  '/v1/things/search',
  '/v1/things/{id}:stop',
  '/v1/things/{id}/parts/{part}',
  '/v1/things/search/{query}',
  '/v1/{name=others/*/sub/*}',
  '/v1/others/{rest=**}',
  '/v1/{any}/{id}/parts',
)

describe('finds', () => {
  test.each([
    ['/v1/things', '/v1/things'],
    ['/v1/things/7', '/v1/things/{id}'],
    ['/v1/things/search', '/v1/things/search'],
    // The word leads nowhere here: the variable is tried after it.
    ['/v1/things/search/parts/3', '/v1/things/{id}/parts/{part}'],
    ['/v1/things/search/x', '/v1/things/search/{query}'],
    ['/v1/things/7:stop', '/v1/things/{id}:stop'],
    ['/v1/things/a:b:stop', '/v1/things/{id}:stop'],
    // An unknown action is part of the value, and so is one whose colon is encoded.
    ['/v1/things/7:go', '/v1/things/{id}'],
    ['/v1/things/7%3Astop', '/v1/things/{id}'],
    ['/v1/things/:stop', '/v1/things/{id}'],
    ['/v1/others/1/sub/2', '/v1/{name=others/*/sub/*}'],
    ['/v1/others/1/sub', '/v1/others/{rest=**}'],
    ['/v1/others', '/v1/others/{rest=**}'],
    ['/v1/things/1/parts', '/v1/{any}/{id}/parts'],
    // A letter may be written percent-encoded.
    ['/v1/%74hings', '/v1/things'],
    ['/v1/things/..', '/v1/things/{id}'],
    [`/v1/things/${'x'.repeat(100_000)}`, '/v1/things/{id}'],
  ])('%s', (path, template) => {
    expect(table.find(path)?.route.template.text).toBe(template)
  })
})

describe('finds nothing for', () => {
  test.each([
    '/',
    '',
    '/v1',
    '/v1/',
    '//v1/things',
    '/v1//things',
    '/v1/things/',
    '/v1/things//parts/1',
    '/v1/things/7/parts/',
    '/v1/others/1//2',
    '/v1/THINGS',
    '/v1/things%2F7',
    '/v1/things/../keys/7',
    '/v1/%zzthings',
    `/v1${'/x'.repeat(10_000)}`,
  ])('%s', (path) => {
    expect(table.find(path)).toBeUndefined()
  })
})

test('two templates for the same paths are refused', () => {
  expect(() => tableOf('/v1/things/{id}', '/v1/things/{name}')).toThrow(
    '"/v1/things/{name}" matches the same paths as "/v1/things/{id}"',
  )
  expect(() => tableOf('/v1/{a=x/*}', '/v1/x/*')).toThrow('matches the same paths')
  expect(() => tableOf('/v1/{a=**}', '/v1/**')).toThrow('matches the same paths')
  expect(() => tableOf('/v1/{a}:x', '/v1/{a}:y', '/v1/{a}')).not.toThrow()
})
