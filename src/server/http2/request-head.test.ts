import { expect, test } from 'vitest'
import { goodFields } from './fixture.ts'
import { readHead } from './request-head.ts'

function headersOf(...fields: readonly (readonly [string, string])[]) {
  return { ...readHead([...goodFields, ...fields].flat())?.headers }
}

test('of headers that have one value the first counts, as with Node', () => {
  const twice = headersOf(['user-agent', 'a'], ['user-agent', 'b'], ['authorization', 'c'], ['authorization', 'd'])
  expect(twice).toMatchObject({ 'user-agent': 'a', authorization: 'c' })
})

test('others are joined, each as it is written', () => {
  const fields = headersOf(
    ['x', '1'],
    ['x', '2'],
    ['cookie', 'a=1'],
    ['cookie', 'b=2'],
    ['set-cookie', 'c'],
    ['set-cookie', 'd'],
  )
  expect(fields).toMatchObject({ x: '1, 2', cookie: 'a=1; b=2', 'set-cookie': ['c', 'd'] })
})

test('names that JavaScript knows are names like others', () => {
  const fields = readHead([...goodFields.flat(), '__proto__', 'x', 'constructor', 'y', 'tostring', 'z'])?.headers
  expect(Object.entries(fields ?? {})).toEqual([
    ...goodFields,
    ['__proto__', 'x'],
    ['constructor', 'y'],
    ['tostring', 'z'],
  ])
})

test('a path has no query, and OPTIONS may be asked of everything', () => {
  const head = (method: string, path: string) =>
    readHead([':method', method, ':scheme', 'https', ':path', path, ':authority', 'a'])
  expect(head('GET', '/a/b?c=/d')).toMatchObject({ url: '/a/b?c=/d', path: '/a/b' })
  expect(head('OPTIONS', '*')?.path).toBe('*')
  expect(head('GET', '*')).toBeUndefined()
})
