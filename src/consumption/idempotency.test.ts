import { describe, expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import { answerMaxBytes, decodeAnswer, encodeAnswer, type KeptAnswer } from './idempotency.ts'

const kib = 1024

/** Labels as many and as long as a request may have, of characters that JSON writes as six. */
const label = (index: number): [string, string] => [`${index}`.padEnd(64, '\u0001'), '\u0001'.repeat(256)]
const metadata = Object.fromEntries(Array.from({ length: 16 }, (_, index) => label(index)))

function answerOf(bodyBytes: number): KeptAnswer {
  const event = usageEvent({ metadata, model: '\u0001'.repeat(128), costNanos: 1 })
  const components = Array.from({ length: 5 }, () => {
    return { kind: 'cache_write_input', quantity: 100_000_000, rateNanos: 10_000_000_000_000, nanos: 1 } as const
  })
  const charge = { nanos: 1, currency: 'USD', priceVersion: '1', components }
  return {
    event,
    charge,
    serviceVersion: '1.0.0',
    finishReason: 'stop',
    framing: 'sse',
    body: Buffer.alloc(bodyBytes, 'x'),
  }
}

describe('a kept answer', () => {
  test('takes at most the ceiling of its body and 64 KiB, whatever the call was', () => {
    const answer = answerOf(answerMaxBytes)
    const bytes = encodeAnswer(answer)
    expect(answerMaxBytes).toBe(1_024 * kib)
    expect(bytes.length).toBeGreaterThan(answerMaxBytes)
    expect(bytes.length).toBeLessThanOrEqual(answerMaxBytes + 64 * kib)
    expect(decodeAnswer(bytes)).toEqual({ ...answer, body: Buffer.from(answer.body) })
  })

  test('has no body when that is a byte larger, and its repetition is told so', () => {
    const bytes = encodeAnswer(answerOf(answerMaxBytes + 1))
    expect(bytes.length).toBeLessThanOrEqual(64 * kib)
    expect(() => decodeAnswer(bytes)).toThrow(expect.objectContaining({ reason: 'IDEMPOTENT_ANSWER_NOT_KEPT' }))
  })
})
