import { expect, test } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import { durationText, renameRateLimits } from './rate-limit-headers.ts'

test.each([
  [0, '0s'],
  [59, '59s'],
  [60, '1m0s'],
  [3600, '1h0m0s'],
  [2_592_061, '720h1m1s'],
])('%d seconds are %s', (seconds, text) => {
  expect(durationText(seconds)).toBe(text)
})

const announced: readonly string[] = [
  ...['x-ratelimit-limit', '20'],
  ...['x-ratelimit-remaining', '3'],
  ...['x-ratelimit-reset', '61'],
]

function told(headers: AnswerHeaders): Record<string, string> {
  const all: Record<string, string> = {}
  headers.forEach((value, name) => {
    all[name] = value
  })
  return all
}

test("the gate's figures get OpenAI's names", () => {
  const headers = new AnswerHeaders([
    ...announced,
    ...['x-ratelimit-limit-tokens', '9'],
    ...['x-ratelimit-reset-tokens', '5'],
  ])
  renameRateLimits(headers)
  expect(told(headers)).toEqual({
    'x-ratelimit-limit-requests': '20',
    'x-ratelimit-remaining-requests': '3',
    'x-ratelimit-reset-requests': '1m1s',
    'x-ratelimit-limit-tokens': '9',
    'x-ratelimit-reset-tokens': '5s',
  })
})

test('a refusal tells its figures under the unit of the limit', () => {
  const headers = new AnswerHeaders([...announced])
  renameRateLimits(headers, 'tokens')
  expect(told(headers)).toEqual({
    'x-ratelimit-limit-tokens': '20',
    'x-ratelimit-remaining-tokens': '3',
    'x-ratelimit-reset-tokens': '1m1s',
  })
})

test('a unit that OpenAI has no name for is not told', () => {
  const headers = new AnswerHeaders([...announced])
  renameRateLimits(headers, 'nano-USD')
  expect(told(headers)).toEqual({})
})
