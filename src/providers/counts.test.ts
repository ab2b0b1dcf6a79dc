import { expect, test } from 'vitest'
import { estimateTokens } from './counts.ts'

test('tokens are estimated by the family of the model, rounded up', () => {
  expect([0, 1, 4, 5].map((bytes) => estimateTokens(bytes, 'gpt-5'))).toEqual([0, 1, 1, 2])
  expect([0, 1, 3, 4].map((bytes) => estimateTokens(bytes, 'claude-sonnet'))).toEqual([0, 1, 1, 2])
})
