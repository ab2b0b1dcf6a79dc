import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { noTokens, type TokenParts, totalInput, totalOutput } from '../metering/usage-event.ts'
import type { PriceModel, PriceRecord, PriceTier, TokenRates } from '../registry/records.ts'
import { chargeFor, dearestCharge, noCharge, unpriced } from './price.ts'

const free: TokenRates = {
  inputNanosPerMillion: 0,
  outputNanosPerMillion: 0,
  cachedInputNanosPerMillion: 0,
  cacheWriteInputNanosPerMillion: 0,
  reasoningOutputNanosPerMillion: 0,
}

function priceOf(model: PriceModel): PriceRecord {
  return { version: 'v1', currency: 'USD', effectiveFromMs: 0, model }
}

function perToken(rates: Partial<TokenRates>, tiers: PriceTier[] = []): PriceRecord {
  return priceOf({ kind: 'per_token', ...free, ...rates, tiers })
}

/** What a provider charges twice for when the prompt is long. */
const longContext = perToken({ inputNanosPerMillion: 3_000_000, outputNanosPerMillion: 15_000_000 }, [
  { ...free, minInputTokens: 200, inputNanosPerMillion: 6_000_000, outputNanosPerMillion: 22_000_000 },
  { ...free, minInputTokens: 500, inputNanosPerMillion: 1_000_000, outputNanosPerMillion: 1_000_000 },
])

// The contract's ranges.
const tokenCount = fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 100_000_000 }))
const rate = fc.oneof(
  fc.constantFrom(0, 1, 499_999, 500_000, 500_001, 1_000_000),
  fc.integer({ min: 0, max: 10_000_000_000_000 }),
)
const rates: fc.Arbitrary<TokenRates> = fc.record({
  inputNanosPerMillion: rate,
  outputNanosPerMillion: rate,
  cachedInputNanosPerMillion: rate,
  cacheWriteInputNanosPerMillion: rate,
  reasoningOutputNanosPerMillion: rate,
})
const tokens: fc.Arbitrary<TokenParts> = fc.record({
  input: tokenCount,
  cachedInput: tokenCount,
  cacheWriteInput: tokenCount,
  output: tokenCount,
  reasoningOutput: tokenCount,
})
/** Prices per token whose tiers begin among the sizes that the calls have. */
const tiered: fc.Arbitrary<PriceRecord> = fc
  .record({
    rates,
    tiers: fc.uniqueArray(
      fc.record({
        minInputTokens: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 100_000_000 })),
        rates,
      }),
      { maxLength: 4, selector: (tier) => tier.minInputTokens },
    ),
  })
  .map((price) => {
    const tiers = price.tiers.map((tier) => ({ minInputTokens: tier.minInputTokens, ...tier.rates }))
    return perToken(
      price.rates,
      tiers.toSorted((a, b) => a.minInputTokens - b.minInputTokens),
    )
  })

/** The same with no tier cheaper than what comes before it. */
const rising = tiered.map(({ model }) => {
  if (model.kind !== 'per_token') throw new Error('only prices per token have tiers')
  let before: TokenRates = model
  const tiers = model.tiers.map((tier): PriceTier => {
    const raised = {
      minInputTokens: tier.minInputTokens,
      inputNanosPerMillion: Math.max(tier.inputNanosPerMillion, before.inputNanosPerMillion),
      outputNanosPerMillion: Math.max(tier.outputNanosPerMillion, before.outputNanosPerMillion),
      cachedInputNanosPerMillion: Math.max(tier.cachedInputNanosPerMillion, before.cachedInputNanosPerMillion),
      cacheWriteInputNanosPerMillion: Math.max(
        tier.cacheWriteInputNanosPerMillion,
        before.cacheWriteInputNanosPerMillion,
      ),
      reasoningOutputNanosPerMillion: Math.max(
        tier.reasoningOutputNanosPerMillion,
        before.reasoningOutputNanosPerMillion,
      ),
    }
    before = raised
    return raised
  })
  return priceOf({ ...model, tiers })
})

/** The charge by arbitrary-precision arithmetic, with the tier looked for from the other end. */
function oracle({ model }: PriceRecord, call: TokenParts): bigint {
  if (model.kind !== 'per_token') throw new Error('the oracle knows tokens only')
  let chosen: TokenRates = model
  for (const tier of model.tiers) if (totalInput(call) >= tier.minInputTokens) chosen = tier
  const cost = (quantity: number, nanosPerMillion: number): bigint =>
    (BigInt(quantity) * BigInt(nanosPerMillion) + 500_000n) / 1_000_000n
  return (
    cost(call.input, chosen.inputNanosPerMillion) +
    cost(call.cachedInput, chosen.cachedInputNanosPerMillion) +
    cost(call.cacheWriteInput, chosen.cacheWriteInputNanosPerMillion) +
    cost(call.output, chosen.outputNanosPerMillion) +
    cost(call.reasoningOutput, chosen.reasoningOutputNanosPerMillion)
  )
}

describe('a charge', () => {
  test('has each token part at its own rate', () => {
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

  test('is one for a request, whatever it used', () => {
    const price = priceOf({ kind: 'per_request', requestNanos: 1_500_000 })
    expect(chargeFor(price, { ...noTokens, input: 5 })).toEqual({
      nanos: 1_500_000,
      currency: 'USD',
      priceVersion: 'v1',
      components: [{ kind: 'request', quantity: 1, rateNanos: 1_500_000, nanos: 1_500_000 }],
    })
  })

  test('is 0 under a subscription, and names the price that says so', () => {
    expect(chargeFor(priceOf({ kind: 'subscription' }), { ...noTokens, input: 5 })).toEqual({
      nanos: 0,
      currency: 'USD',
      priceVersion: 'v1',
      components: [{ kind: 'subscription', quantity: 1, rateNanos: 0, nanos: 0 }],
    })
  })

  test('without a price is marked instead of being one at zero', () => {
    expect(chargeFor(undefined, { ...noTokens, input: 5 })).toBe(unpriced)
    expect(noCharge(undefined)).toBe(unpriced)
  })

  test('is 0 for a call that failed, by the price that it would have had', () => {
    const price = priceOf({ kind: 'per_request', requestNanos: 1_500_000 })
    expect(noCharge(price)).toEqual({ nanos: 0, currency: 'USD', priceVersion: 'v1', components: [] })
  })

  test.each([
    ['below the first tier', { input: 199 }, 3, 15],
    ['at the first token of a tier', { input: 200 }, 6, 22],
    ['with what was cached and written counted', { input: 1, cachedInput: 100, cacheWriteInput: 99 }, 6, 22],
    ['just below the next tier', { input: 499 }, 6, 22],
    ['in the last tier, a cheaper one', { input: 500 }, 1, 1],
    ['far beyond it', { input: 1_000_000 }, 1, 1],
  ])('%s is at the rates of the tier in all its parts', (_, parts, inputRate, outputRate) => {
    const charge = chargeFor(longContext, { ...noTokens, ...parts, output: 10 })
    expect(charge.nanos).toBe(parts.input * inputRate + 10 * outputRate)
  })

  test('equals arbitrary-precision arithmetic rounded half up, and its components add up to it', () => {
    fc.assert(
      fc.property(tiered, tokens, (price, call) => {
        const { nanos, components } = chargeFor(price, call)
        expect(BigInt(nanos)).toBe(oracle(price, call))
        expect(components.reduce((sum, component) => sum + component.nanos, 0)).toBe(nanos)
      }),
    )
  })

  test('never falls when a call uses more, unless a tier is cheaper than the one before', () => {
    const part = fc.constantFrom<keyof TokenParts>(
      'input',
      'cachedInput',
      'cacheWriteInput',
      'output',
      'reasoningOutput',
    )
    fc.assert(
      fc.property(rising, tokens, part, tokenCount, (price, call, grown, extra) => {
        const larger = { ...call, [grown]: call[grown] + extra }
        expect(chargeFor(price, larger).nanos).toBeGreaterThanOrEqual(chargeFor(price, call).nanos)
      }),
    )
  })
})

describe('the dearest charge', () => {
  test('is never below the charge of a call that uses no more, however its tokens are split', () => {
    const share = fc.nat({ max: 1_000_000 }).map((part) => part / 1_000_000)
    fc.assert(
      fc.property(
        tiered,
        tokenCount,
        tokenCount,
        fc.array(share, { minLength: 5, maxLength: 5 }),
        (price, i, o, by) => {
          const reserved = { ...noTokens, input: i, output: o }
          const [inputShare = 0, cachedShare = 0, outputShare = 0, allInput = 1, allOutput = 1] = by
          const usedInput = Math.round(i * allInput)
          const usedOutput = Math.round(o * allOutput)
          const input = Math.round(usedInput * inputShare)
          const cachedInput = Math.round((usedInput - input) * cachedShare)
          const output = Math.round(usedOutput * outputShare)
          const call = {
            input,
            cachedInput,
            cacheWriteInput: usedInput - input - cachedInput,
            output,
            reasoningOutput: usedOutput - output,
          }
          expect(totalInput(call)).toBeLessThanOrEqual(i)
          expect(totalOutput(call)).toBeLessThanOrEqual(o)
          expect(chargeFor(price, call).nanos).toBeLessThanOrEqual(dearestCharge(price, reserved))
        },
      ),
      { numRuns: 1_000 },
    )
  })

  test('is not below the charge of any small call at all', () => {
    const small: fc.Arbitrary<PriceRecord> = fc
      .tuple(rates, rates, fc.integer({ min: 1, max: 5 }))
      .map(([own, tier, minInputTokens]) => perToken(own, [{ minInputTokens, ...tier }]))
    fc.assert(
      fc.property(small, fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 3 }), (price, i, o) => {
        const bound = dearestCharge(price, { ...noTokens, input: i, output: o })
        for (const call of splits(i, o)) expect(chargeFor(price, call).nanos).toBeLessThanOrEqual(bound)
      }),
    )
  })

  test('allows for each part that is rounded up', () => {
    const price = perToken({
      inputNanosPerMillion: 500_000,
      cachedInputNanosPerMillion: 500_000,
      cacheWriteInputNanosPerMillion: 500_000,
      outputNanosPerMillion: 500_000,
      reasoningOutputNanosPerMillion: 500_000,
    })
    const call = { input: 1, cachedInput: 1, cacheWriteInput: 1, output: 1, reasoningOutput: 1 }
    expect(chargeFor(price, call).nanos).toBe(5)
    expect(dearestCharge(price, call)).toBe(5)
  })

  test('is the charge itself when the dearest parts use all of it at whole nano-units a token', () => {
    const whole = rate.map((nanos) => Math.trunc(nanos / 1_000_000) * 1_000_000)
    fc.assert(
      fc.property(
        whole,
        whole,
        tokenCount,
        tokenCount,
        (inputNanosPerMillion, outputNanosPerMillion, input, output) => {
          const price = perToken({ inputNanosPerMillion, outputNanosPerMillion })
          const call = { ...noTokens, input, output }
          expect(dearestCharge(price, call)).toBe(chargeFor(price, call).nanos)
        },
      ),
    )
  })

  test('looks into every tier that the call could reach, and into no other', () => {
    const upTo = (input: number): number => dearestCharge(longContext, { ...noTokens, input, output: 10 })
    expect(upTo(199)).toBe(199 * 3 + 150)
    expect(upTo(200)).toBe(200 * 6 + 220)
    expect(upTo(10_000)).toBe(Math.max(499 * 6 + 220, 10_000 + 10))
  })

  test('is the request’s own, nothing under a subscription, and nothing without a price', () => {
    const call = { ...noTokens, input: 7 }
    expect(dearestCharge(priceOf({ kind: 'per_request', requestNanos: 9 }), call)).toBe(9)
    expect(dearestCharge(priceOf({ kind: 'subscription' }), call)).toBe(0)
    expect(dearestCharge(undefined, call)).toBe(0)
  })
})

/** Every call with at most so many input and output tokens. */
function* splits(mostInput: number, mostOutput: number): Generator<TokenParts> {
  for (let input = 0; input <= mostInput; input++) {
    for (let cachedInput = 0; input + cachedInput <= mostInput; cachedInput++) {
      for (let cacheWriteInput = 0; input + cachedInput + cacheWriteInput <= mostInput; cacheWriteInput++) {
        for (let output = 0; output <= mostOutput; output++) {
          for (let reasoningOutput = 0; output + reasoningOutput <= mostOutput; reasoningOutput++) {
            yield { input, cachedInput, cacheWriteInput, output, reasoningOutput }
          }
        }
      }
    }
  }
}
