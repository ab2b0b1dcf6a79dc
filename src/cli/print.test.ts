import { expect, test } from 'vitest'
import { recordText, tableText } from './print.ts'

test('a table is as wide as what it holds, and says what is not there', () => {
  const rows = [{ id: 'a', usage: { inputTokens: '12' } }, { id: 'longer' }]
  expect(tableText(rows, ['id', 'usage.inputTokens'])).toBe('ID      INPUT TOKENS\na       12\nlonger  -\n')
  expect(tableText([], ['id'])).toBe('none\n')
})

test('a record has a line a field, lists and what is within indented', () => {
  const record = { apiKey: { id: 'k', tags: ['a', 'b'] }, endpoints: [{ url: 'u' }], ok: false }
  expect(recordText(record)).toBe('api key:\n  id:   k\n  tags: a, b\nendpoints:\n  -\n    url: u\nok:        false\n')
})

test('names of the contract are shown as they are written', () => {
  expect(recordText({ tier: 'TIER_BASIC' }, new Map([['TIER_BASIC', 'basic']]))).toBe('tier: basic\n')
})

test('nothing in an answer reaches the terminal as a command', () => {
  expect(tableText([{ name: '\u001b[2J\u009bx\n' }], ['name'])).toBe('NAME\n\\u001b[2J\\u009bx\\u000a\n')
})
