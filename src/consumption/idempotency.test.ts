import { describe, expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
import type { GateRequest } from './gate.ts'
import { answerMaxBytes, claimOf, decodeAnswer, encodeAnswer, type KeptAnswer } from './idempotency.ts'

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

describe('a claim', () => {
  const request: GateRequest = {
    consumerId: 'c',
    serviceId: 's',
    payload: Buffer.from('{}'),
    metadata: {},
    idempotencyKey: 'k',
    dialect: 'openai',
    kind: 'chat',
  }
  const claim = claimOf(request, 'unary', 'c', 's')

  test.for([
    ['service', claimOf(request, 'unary', 'c', 'other')],
    ['mode', claimOf(request, 'stream', 'c', 's')],
    ['dialect', claimOf({ ...request, dialect: 'native' }, 'unary', 'c', 's')],
    ['kind', claimOf({ ...request, kind: 'completion' }, 'unary', 'c', 's')],
    ['payload', claimOf({ ...request, payload: Buffer.from('{ }') }, 'unary', 'c', 's')],
  ] as const)('is one, and with another %s another call under it', ([, other]) => {
    expect(other.key).toBe(claim.key)
    expect(other.fingerprint).not.toBe(claim.fingerprint)
  })

  test('is of one consumer and one key', () => {
    expect(claimOf(request, 'unary', 'd', 's').key).not.toBe(claim.key)
    expect(claimOf({ ...request, idempotencyKey: 'l' }, 'unary', 'c', 's').key).not.toBe(claim.key)
    expect(claimOf({ ...request, metadata: { a: 'b' } }, 'unary', 'c', 's')).toEqual(claim)
  })
})
