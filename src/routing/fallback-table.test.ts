import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { conditionOf } from './fallback-table.ts'
import { retryTable } from './retry-table.ts'

test('the table is printed in docs/routing.md, row by row', () => {
  const docs = readFileSync(new URL('../../docs/routing.md', import.meta.url), 'utf8')
  const printed = new Map<string, string[]>()
  for (const [, condition = '', failures = ''] of docs.matchAll(/^\| `([A-Z_]+)` \| ((?:`\w+`(?:, )?)+) \|/gm)) {
    printed.set(condition, failures.replaceAll('`', '').split(', '))
  }
  const taken = new Map<string, string[]>()
  for (const backendError of ['', 'content_filter', 'context_length']) {
    for (const failure of Object.keys(retryTable)) {
      const condition = conditionOf(new TollgateError('BACKEND_FAILED', '', { metadata: { failure, backendError } }))
      if (condition === undefined) continue
      const failures = taken.get(condition.toUpperCase()) ?? []
      if (!failures.includes(failure)) taken.set(condition.toUpperCase(), [...failures, failure])
    }
  }
  expect(Object.fromEntries(printed)).toEqual(Object.fromEntries(taken))
})
