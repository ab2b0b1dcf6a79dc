import { describe, expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { estimateTokens, readRequest, readUsage } from './openai.ts'

function bytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
}

function reasonOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof TollgateError) return error.reason
    throw error
  }
  return 'none'
}

describe('a request', () => {
  test.each([
    ['no limit', {}, undefined],
    ['max_tokens', { max_tokens: 100 }, 100],
    ['the larger of two ceilings', { max_completion_tokens: 7, max_tokens: 100 }, 100],
    ['the best of several', { max_tokens: 100, n: 2, best_of: 5 }, 500],
    ['every choice', { max_tokens: 100, n: 3 }, 300],
    ['null as absent', { max_tokens: null }, undefined],
  ])('tells the most output that it allows: %s', (_, body, maxOutputTokens) => {
    expect(readRequest(bytes(body))).toMatchObject({ maxOutputTokens, model: '' })
  })

  test.each([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['no UTF-8', new Uint8Array([0x7b, 0xff, 0x7d])],
    ['a stream', { stream: true }],
    ['a negative limit', { max_tokens: -1 }],
    ['a fractional limit', { max_tokens: 1.5 }],
    ['a limit in words', { max_tokens: 'many' }],
    ['no choice', { n: 0 }],
    ['a ceiling that another one hides', { max_tokens: -1, max_completion_tokens: 1 }],
  ])('is refused with the field named: %s', (_, body) => {
    const payload = body instanceof Uint8Array ? body : bytes(body)
    expect(reasonOf(() => readRequest(payload))).toBe('INVALID_ARGUMENT')
  })

  test('is estimated by the family of its model, rounded up', () => {
    expect([0, 1, 4, 5].map((bytes) => estimateTokens(bytes, 'gpt-5'))).toEqual([0, 1, 1, 2])
    expect([0, 1, 3, 4].map((bytes) => estimateTokens(bytes, 'claude-sonnet'))).toEqual([0, 1, 1, 2])
  })
})

describe('an answer', () => {
  test('is split into disjoint parts', () => {
    const answer = {
      model: 'm',
      usage: {
        prompt_tokens: 100,
        completion_tokens: 50,
        prompt_tokens_details: { cached_tokens: 40 },
        completion_tokens_details: { reasoning_tokens: 20 },
      },
    }
    expect(readUsage(bytes(answer), 0)).toEqual({
      tokens: { input: 60, cachedInput: 40, cacheWriteInput: 0, output: 30, reasoningOutput: 20 },
      source: 'provider',
      model: 'm',
    })
  })

  test('without usage is estimated and says so', () => {
    const answer = bytes({ choices: [] })
    expect(readUsage(answer, 9)).toMatchObject({
      source: 'estimated',
      tokens: { input: 3, output: estimateTokens(answer.length, '') },
    })
  })

  test.each([
    ['HTML', '<html></html>'],
    ['empty', ''],
    ['a negative count', { usage: { prompt_tokens: -1 } }],
    ['a count in words', { usage: { prompt_tokens: '5' } }],
    ['an absurd count', { usage: { prompt_tokens: 1e12 } }],
    ['more cached than prompt', { usage: { prompt_tokens: 1, prompt_tokens_details: { cached_tokens: 2 } } }],
  ])('that cannot be true is refused: %s', (_, answer) => {
    expect(reasonOf(() => readUsage(bytes(answer), 0))).toBe('BACKEND_ANSWER_INVALID')
  })
})
