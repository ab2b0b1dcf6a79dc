import type { TokenParts } from '../metering/usage-event.ts'
import type { PriceRecord } from '../registry/records.ts'

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
  readonly kind: 'input' | 'cached_input' | 'cache_write_input' | 'output' | 'reasoning_output' | 'request'
  /** Tokens, or 1 for a request. */
  readonly quantity: number
  /** Nano-units per million tokens, or per request. */
  readonly rateNanos: number
  readonly nanos: number
}

/** The charge of an unpriced service; its record shows the missing price by an empty version. */
export const unpriced: Charge = { nanos: 0, currency: '', priceVersion: '', components: [] }

/**
 * Prices an answered call. Each token part is charged at its own rate and rounded half up to a whole nano-unit, so that
 * the components add up to the total exactly. Parts with no tokens have no component.
 */
export function chargeFor(price: PriceRecord | undefined, tokens: TokenParts): Charge {
  if (price === undefined) return unpriced
  const components = price.model.kind === 'per_token' ? tokenComponents(price.model, tokens) : [request(price.model)]
  let nanos = 0
  for (const component of components) nanos += component.nanos
  return { nanos, currency: price.currency, priceVersion: price.version, components }
}

type PerToken = Extract<PriceRecord['model'], { kind: 'per_token' }>
type PerRequest = Extract<PriceRecord['model'], { kind: 'per_request' }>

function tokenComponents(rates: PerToken, tokens: TokenParts): ChargeComponent[] {
  const components: ChargeComponent[] = []
  const add = (kind: ChargeComponent['kind'], quantity: number, rateNanos: number): void => {
    if (quantity > 0) components.push({ kind, quantity, rateNanos, nanos: perMillion(quantity, rateNanos) })
  }
  add('input', tokens.input, rates.inputNanosPerMillion)
  add('cached_input', tokens.cachedInput, rates.cachedInputNanosPerMillion)
  add('cache_write_input', tokens.cacheWriteInput, rates.cacheWriteInputNanosPerMillion)
  add('output', tokens.output, rates.outputNanosPerMillion)
  add('reasoning_output', tokens.reasoningOutput, rates.reasoningOutputNanosPerMillion)
  return components
}

function request(rates: PerRequest): ChargeComponent {
  return { kind: 'request', quantity: 1, rateNanos: rates.requestNanos, nanos: rates.requestNanos }
}

/**
 * quantity × rate / 10^6, rounded half up. Exact: products past 2^53 go through BigInt, which is rare (a million tokens
 * at 9 units of currency each).
 */
function perMillion(quantity: number, rateNanos: number): number {
  const product = quantity * rateNanos
  if (product <= Number.MAX_SAFE_INTEGER - 500_000) return Math.floor((product + 500_000) / 1_000_000)
  return Number((BigInt(quantity) * BigInt(rateNanos) + 500_000n) / 1_000_000n)
}
