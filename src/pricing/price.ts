import { type TokenParts, totalInput, totalOutput } from '../metering/usage-event.ts'
import type { PriceModel, PriceRecord, TokenRates } from '../registry/records.ts'

/** The price of a call, exact, in integer nano-units (10^-9 of the currency's unit). */
export interface Charge {
  /** Sum of `components`. */
  readonly nanos: number
  /** ISO 4217; empty when the service is unpriced. */
  readonly currency: string
  /** Version of the price; empty when the service is unpriced. */
  readonly priceVersion: string
  readonly components: readonly ChargeComponent[]
}

export interface ChargeComponent {
  readonly kind:
    | 'input'
    | 'cached_input'
    | 'cache_write_input'
    | 'output'
    | 'reasoning_output'
    | 'request'
    | 'subscription'
  /** Tokens, or 1 for a request and a subscription. */
  readonly quantity: number
  /** Nano-units per million tokens, or per request. */
  readonly rateNanos: number
  readonly nanos: number
}

/** The charge of an unpriced service; its record shows the missing price by an empty version. */
export const unpriced: Charge = { nanos: 0, currency: '', priceVersion: '', components: [] }

/**
 * Prices an answered call. Each token part is charged at its own rate and rounded half up to a whole nano-unit, so that
 * the components add up to the total exactly. Parts with no tokens have no component. The call's total input chooses the
 * tier, and all parts are charged at its rates. A subscription's call costs 0 and says so by a component.
 */
export function chargeFor(price: PriceRecord | undefined, tokens: TokenParts): Charge {
  if (price === undefined) return unpriced
  const components = componentsOf(price.model, tokens)
  let nanos = 0
  for (const component of components) nanos += component.nanos
  return { nanos, currency: price.currency, priceVersion: price.version, components }
}

/** The charge of a call that used nothing, because it failed: 0, and the price that says so. */
export function noCharge(price: PriceRecord | undefined): Charge {
  if (price === undefined) return unpriced
  return { nanos: 0, currency: price.currency, priceVersion: price.version, components: [] }
}

function componentsOf(model: PriceModel, tokens: TokenParts): ChargeComponent[] {
  switch (model.kind) {
    case 'per_token':
      return tokenComponents(ratesFor(model, totalInput(tokens)), tokens)
    case 'per_request':
      return [{ kind: 'request', quantity: 1, rateNanos: model.requestNanos, nanos: model.requestNanos }]
    case 'subscription':
      return [{ kind: 'subscription', quantity: 1, rateNanos: 0, nanos: 0 }]
  }
}

type PerToken = Extract<PriceModel, { kind: 'per_token' }>

/** The rates of the last tier that the input reaches. */
function ratesFor(model: PerToken, inputTokens: number): TokenRates {
  return model.tiers.findLast((tier) => tier.minInputTokens <= inputTokens) ?? model
}

function tokenComponents(rates: TokenRates, tokens: TokenParts): ChargeComponent[] {
  const components: ChargeComponent[] = []
  const add = (kind: ChargeComponent['kind'], quantity: number, rateNanos: number): void => {
    if (quantity > 0) components.push({ kind, quantity, rateNanos, nanos: perMillion(quantity, rateNanos, half) })
  }
  add('input', tokens.input, rates.inputNanosPerMillion)
  add('cached_input', tokens.cachedInput, rates.cachedInputNanosPerMillion)
  add('cache_write_input', tokens.cacheWriteInput, rates.cacheWriteInputNanosPerMillion)
  add('output', tokens.output, rates.outputNanosPerMillion)
  add('reasoning_output', tokens.reasoningOutput, rates.reasoningOutputNanosPerMillion)
  return components
}

/**
 * The most nano-units that {@link chargeFor} can give for a call with at most these totals of input and output tokens,
 * whatever part of them turns out to be cached, written to the cache or reasoning. It is what a budget reserves. Equal
 * to the charge when all tokens are used, all at the dearest rates, and these are whole nano-units a token (as every
 * price in thousandths of a unit per million tokens is); else above it.
 */
export function dearestCharge(price: PriceRecord | undefined, tokens: TokenParts): number {
  const model = price?.model
  if (model?.kind === 'per_request') return model.requestNanos
  if (model?.kind !== 'per_token') return 0
  const most = totalInput(tokens)
  let nanos = 0
  let rates: TokenRates = model
  // A dear tier for small calls may cost more than a cheap one for large calls: every tier within reach counts.
  for (const next of model.tiers) {
    if (next.minInputTokens > most) break
    nanos = Math.max(nanos, dearestAt(rates, next.minInputTokens - 1, totalOutput(tokens)))
    rates = next
  }
  return Math.max(nanos, dearestAt(rates, most, totalOutput(tokens)))
}

function dearestAt(rates: TokenRates, inputTokens: number, outputTokens: number): number {
  const { inputNanosPerMillion, cachedInputNanosPerMillion, cacheWriteInputNanosPerMillion } = rates
  const input = [inputNanosPerMillion, cachedInputNanosPerMillion, cacheWriteInputNanosPerMillion]
  const output = [rates.outputNanosPerMillion, rates.reasoningOutputNanosPerMillion]
  return dearestSplit(input, inputTokens) + dearestSplit(output, outputTokens)
}

/**
 * A bound of what tokens cost however they are split over parts with these rates: all at the dearest one, and half a
 * nano-unit for each part that may be rounded up. Parts at a whole number of nano-units a token never are.
 */
function dearestSplit(rates: readonly number[], quantity: number): number {
  const rounded = rates.filter((rate) => rate % million !== 0).length
  return perMillion(quantity, Math.max(...rates), half * Math.min(rounded, quantity))
}

const million = 1_000_000
const half = million / 2

/**
 * (quantity × rate + extra) / 10^6, rounded down. Exact: products past 2^53 go through BigInt, which is rare (a million
 * tokens at 9 units of currency each).
 */
function perMillion(quantity: number, rateNanos: number, extra: number): number {
  const product = quantity * rateNanos
  if (product <= Number.MAX_SAFE_INTEGER - extra) return Math.floor((product + extra) / million)
  return Number((BigInt(quantity) * BigInt(rateNanos) + BigInt(extra)) / BigInt(million))
}
