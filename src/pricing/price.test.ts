import fc from 'fast-check'
import { expect, test } from 'vitest'
import { noTokens } from '../metering/usage-event.ts'
import type { PriceRecord } from '../registry/records.ts'
import { chargeFor, unpriced } from './price.ts'

function perToken(rates: Partial<Extract<PriceRecord['model'], { kind: 'per_token' }>>): PriceRecord {
  return {
    version: 'v1',
    currency: 'USD',
    effectiveFromMs: 0,
    model: {
      kind: 'per_token',
      inputNanosPerMillion: 0,
      outputNanosPerMillion: 0,
      cachedInputNanosPerMillion: 0,
      cacheWriteInputNanosPerMillion: 0,
      reasoningOutputNanosPerMillion: 0,
      ...rates,
    },
  }
}

test('charges each token part at its own rate', () => {
  const price = perToken({
    inputNanosPerMillion: 2_000_000,
    cachedInputNanosPerMillion: 500_000,
    outputNanosPerMillion: 8_000_000,
    reasoningOutputNanosPerMillion: 9_000_000,
  })
  const charge = chargeFor(price, { ...noTokens, input: 100, cachedInput: 40, output: 10, reasoningOutput: 3 })
  expect(charge.components).toEqual([
    { kind: 'input', quantity: 100, rateNanos: 2_000_000, nanos: 200 },
    { kind: 'cached_input', quantity: 40, rateNanos: 500_000, nanos: 20 },
    { kind: 'output', quantity: 10, rateNanos: 8_000_000, nanos: 80 },
    { kind: 'reasoning_output', quantity: 3, rateNanos: 9_000_000, nanos: 27 },
  ])
  expect(charge.nanos).toBe(327)
})

test('charges a request once, whatever it used', () => {
  const price: PriceRecord = {
    version: 'v2',
    currency: 'EUR',
    effectiveFromMs: 0,
    model: { kind: 'per_request', requestNanos: 1_500_000 },
  }
  expect(chargeFor(price, { ...noTokens, input: 5 })).toMatchObject({ nanos: 1_500_000, currency: 'EUR' })
})

test('marks an unpriced call instead of pricing it at zero', () => {
  expect(chargeFor(undefined, { ...noTokens, input: 5 })).toBe(unpriced)
})

test('equals arbitrary-precision arithmetic rounded half up, for every quantity and rate in range', () => {
  const tokens = fc.integer({ min: 1, max: 100_000_000 })
  const rate = fc.integer({ min: 0, max: 10_000_000_000_000 })
  fc.assert(
    fc.property(tokens, rate, (input, inputNanosPerMillion) => {
      const { nanos } = chargeFor(perToken({ inputNanosPerMillion }), { ...noTokens, input })
      expect(BigInt(nanos)).toBe((BigInt(input) * BigInt(inputNanosPerMillion) + 500_000n) / 1_000_000n)
    }),
  )
})
