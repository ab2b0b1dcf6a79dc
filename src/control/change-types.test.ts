import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { changeTypes } from './change-types.ts'

test('docs/events.md names every type of a domain event, and no other', () => {
  const page = readFileSync(new URL('../../docs/events.md', import.meta.url), 'utf8')
  const [table = ''] = /^\| `type` \| \|\n(?:\|.*\n)+/m.exec(page) ?? []
  const named = [...table.matchAll(/`tollgate\.([a-z_.]+)`/g)].map(([, type]) => type)
  expect(named.sort()).toEqual([...changeTypes].sort())
})
