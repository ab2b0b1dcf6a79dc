import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { confirmed } from './confirm.ts'

function asked(isTTY: boolean, keys = '') {
  const stdin = Object.assign(new PassThrough(), { isTTY })
  let said = ''
  const stderr = {
    write(text: string) {
      said += text
    },
  }
  const answer = confirmed('It cannot be undone.', { stdin, stderr })
  stdin.write(keys)
  return { answer, said: () => said }
}

test.each([
  ['y\r', 'yes'],
  ['yes\r', 'yes'],
  ['n\r', 'no'],
  ['\r', 'no'],
  ['yesterday\r', 'no'],
  ['\u0004', 'no'],
  ['\u0003', 'interrupted'],
] as const)('%j means %s', async (keys, meaning) => {
  const { answer, said } = asked(true, keys)
  expect(await answer).toBe(meaning)
  expect(said()).toContain('It cannot be undone.')
})

test('without a terminal nobody can say yes, and --yes is named', async () => {
  const { answer, said } = asked(false, 'y\r')
  expect(await answer).toBe('no')
  expect(said()).toContain('--yes')
})
