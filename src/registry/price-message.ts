import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import type {
  Pricing,
  Pricing_PerToken,
  Pricing_PerTokenSchema,
  Pricing_Tier,
  PricingSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { TollgateError } from '../errors.ts'
import type { PriceModel, PriceRecord, PriceTier, TokenRates } from './records.ts'

/**
 * The model of a price to store. `field` is the path of the price in its request. Throws INVALID_ARGUMENT for a price
 * without a model, and for tiers that do not ascend.
 */
export function priceModel(model: Pricing['model'], field: string): PriceModel {
  switch (model.case) {
    case 'perToken':
      return { kind: 'per_token', ...tokenRates(model.value), tiers: priceTiers(model.value.tiers, field) }
    case 'perRequest':
      return { kind: 'per_request', requestNanos: Number(model.value.requestNanos) }
    case 'subscription':
      return { kind: 'subscription' }
    default:
      throw missing(`${field}.model`)
  }
}

/** What a price charges, as a text that is the same for all that charge the same; empty for none. */
export function priceText(pricing: Pricing | undefined): string {
  return pricing === undefined
    ? ''
    : JSON.stringify({ currency: pricing.currency, model: priceModel(pricing.model, 'service.pricing') })
}

/** A price as its callers see it: every rate is stated. */
export function pricingMessage(price: PriceRecord): MessageInitShape<typeof PricingSchema> {
  const { currency, version, effectiveFromMs, model } = price
  return { currency, version, effectiveTime: timestampFromMs(effectiveFromMs), model: modelMessage(model) }
}

/** INVALID_ARGUMENT for a request field that was left out, where the contract's own rules cannot say so. */
export function missing(field: string): TollgateError {
  return invalid(field, 'is required', 'required')
}

/** INVALID_ARGUMENT for a request field that breaks a rule which the contract cannot express. */
export function invalid(field: string, description: string, rule: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `${field} ${description}.`, { fields: [{ field, description, rule }] })
}

function tokenRates(rates: Pricing_PerToken | Pricing_Tier): TokenRates {
  const { inputNanosPerMillion: input, outputNanosPerMillion: output } = rates
  return {
    inputNanosPerMillion: Number(input),
    outputNanosPerMillion: Number(output),
    cachedInputNanosPerMillion: Number(rates.cachedInputNanosPerMillion ?? input),
    cacheWriteInputNanosPerMillion: Number(rates.cacheWriteInputNanosPerMillion ?? input),
    reasoningOutputNanosPerMillion: Number(rates.reasoningOutputNanosPerMillion ?? output),
  }
}

function priceTiers(tiers: readonly Pricing_Tier[], field: string): PriceTier[] {
  let least = 0
  return tiers.map((tier, i) => {
    const minInputTokens = Number(tier.minInputTokens)
    if (minInputTokens <= least) {
      const description = `must be more than that of the tier before, ${least}`
      throw invalid(`${field}.per_token.tiers[${i}].min_input_tokens`, description, 'ascending')
    }
    least = minInputTokens
    return { minInputTokens, ...tokenRates(tier) }
  })
}

function modelMessage(model: PriceModel): NonNullable<MessageInitShape<typeof PricingSchema>['model']> {
  switch (model.kind) {
    case 'per_token': {
      const tiers = model.tiers.map((tier) => ({
        minInputTokens: BigInt(tier.minInputTokens),
        ...ratesMessage(tier),
      }))
      return { case: 'perToken', value: { ...ratesMessage(model), tiers } }
    }
    case 'per_request':
      return { case: 'perRequest', value: { requestNanos: BigInt(model.requestNanos) } }
    case 'subscription':
      return { case: 'subscription', value: {} }
  }
}

function ratesMessage(rates: TokenRates) {
  return {
    inputNanosPerMillion: BigInt(rates.inputNanosPerMillion),
    outputNanosPerMillion: BigInt(rates.outputNanosPerMillion),
    cachedInputNanosPerMillion: BigInt(rates.cachedInputNanosPerMillion),
    cacheWriteInputNanosPerMillion: BigInt(rates.cacheWriteInputNanosPerMillion),
    reasoningOutputNanosPerMillion: BigInt(rates.reasoningOutputNanosPerMillion),
  } satisfies MessageInitShape<typeof Pricing_PerTokenSchema>
}
