import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { transitions } from './lifecycle.ts'
import { type ServiceStatus, takesCalls } from './records.ts'

const statuses: readonly ServiceStatus[] = ['pending_approval', 'active', 'deprecated', 'suspended', 'retired']

test('docs/registry.md has every transition, and no other', () => {
  const page = readFileSync(new URL('../../docs/registry.md', import.meta.url), 'utf8')
  const rows = page.matchAll(/^\| `([a-z_]+)` \| (yes|no) \| ([a-z]+) \| (.+) \|$/gm)
  const documented = [...rows].map(([, status, calls, action, goals = '']) => {
    return [status, calls, action, ...[...goals.matchAll(/`([a-z_]+)`/g)].map(([, goal]) => goal)].join(' ')
  })
  const declared = Object.entries(transitions).flatMap(([action, goals]) => {
    return statuses.flatMap((status) => {
      const to = goals[status]
      return to === undefined ? [] : [[status, takesCalls(status) ? 'yes' : 'no', action, ...to].join(' ')]
    })
  })
  expect(documented.toSorted()).toEqual(declared.toSorted())
})
