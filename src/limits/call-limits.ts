import { limitKey, monthEndMs, monthOf, periodKey } from './limit-keys.ts'
import type { LimitName, LimitRule, LimitScope } from './limit-rule.ts'
import type { Limit, UsageScope } from './limits.ts'

export type Tier = 'basic' | 'premium' | 'enterprise'

/** What a consumer may have in place of its tier's values, for each service by itself. */
export interface LimitOverrides {
  /** Refill of the request bucket. */
  readonly requestsPerSecond?: number
  /** Capacity of the request bucket; default twice the rate. */
  readonly requestBurst?: number
  /** Tokens of a UTC month; 0 refuses every call. */
  readonly tokensPerMonth?: number
}

/** Requests a second and tokens a month for each consumer and service. */
export const tiers: Readonly<Record<Tier, Required<Pick<LimitOverrides, 'requestsPerSecond' | 'tokensPerMonth'>>>> = {
  basic: { requestsPerSecond: 10, tokensPerMonth: 100_000 },
  premium: { requestsPerSecond: 100, tokensPerMonth: 10_000_000 },
  enterprise: { requestsPerSecond: 1_000, tokensPerMonth: 1_000_000_000 },
}

/** What a key has of its own by a tier: the tier's two limits, beside those of its consumer, or in their place. */
export interface KeyTier {
  readonly tier: Tier
  readonly replaces: boolean
}

/** Who calls what. */
export interface LimitedCall {
  readonly consumer: {
    readonly id: string
    readonly organizationId: string
    readonly tier: Tier
    readonly overrides: LimitOverrides
  }
  readonly serviceId: string
  /** Empty for calls without a key. */
  readonly keyId: string
  readonly keyTier?: KeyTier | undefined
  /** Unix milliseconds; its UTC month is the month of the call's periods, however long the call lasts. */
  readonly atMs: number
}

/** A limit of a call, and whence it comes. */
export type CallLimit = Limit & { readonly origin: LimitOrigin }

/** What set a limit: a rule of this scope, the consumer's own overrides, its tier, or the key's. Of a rate, what set the rate. */
export type LimitOrigin = LimitScope | 'overrides' | 'tier' | 'key_tier'

/** Rules by "<scope>:<subject id>". */
export type LimitRules = ReadonlyMap<string, readonly LimitRule[]>

/**
 * Every limit of a call. First the two that each consumer has for each service: `requests_per_second` and
 * `tokens_per_month`, from the first of: the rule for this consumer and service, the consumer's own overrides, the
 * service's rule for its consumers, the tier. A key with a tier has the same two of its own, by its tier: in the place of the
 * consumer's, or beside them. Then those that rules add for the key, the consumer, the organization and
 * the service, each for all calls of its subject or for those to this service. All must have room; the tightest wins.
 */
export function limitsOfCall(rules: LimitRules, call: LimitedCall): CallLimit[] {
  const { consumer, serviceId, keyId } = call
  const limits = limitsOfKeyTier(rules, call)
  if (call.keyTier?.replaces !== true) {
    const own: UsageScope = { kind: 'consumer', id: consumer.id, serviceId }
    limits.unshift(
      limitOf(defaultRule(rules, call, 'requests_per_second'), own, call.atMs),
      limitOf(defaultRule(rules, call, 'tokens_per_month'), own, call.atMs),
    )
  }
  const subjects: readonly UsageScope[] = [
    { kind: 'key', id: keyId, serviceId: undefined },
    { kind: 'consumer', id: consumer.id, serviceId: undefined },
    { kind: 'organization', id: consumer.organizationId, serviceId: undefined },
    { kind: 'service', id: serviceId, serviceId: undefined },
  ]
  for (const subject of subjects) {
    for (const rule of rules.get(`${subject.kind}:${subject.id}`) ?? none) {
      if (rule.serviceId !== undefined && rule.serviceId !== serviceId) continue
      const scope: UsageScope = { ...subject, serviceId: rule.serviceId }
      if (!isDefault(rule, scope)) limits.push(limitOf({ ...rule, origin: rule.scope }, scope, call.atMs))
    }
  }
  return limits
}

/** A rule of the key for the service takes the place of the tier's limit of its name: they share a counter. */
function limitsOfKeyTier(rules: LimitRules, { keyTier, keyId, serviceId, atMs }: LimitedCall): CallLimit[] {
  if (keyTier === undefined) return []
  const { requestsPerSecond, tokensPerMonth } = tiers[keyTier.tier]
  const ruled = (rules.get(`key:${keyId}`) ?? none).filter((rule) => rule.serviceId === serviceId)
  const figures = { burst: undefined, currency: undefined, origin: 'key_tier' } as const
  return [
    { ...figures, name: 'requests_per_second', amount: requestsPerSecond } as const,
    { ...figures, name: 'tokens_per_month', amount: tokensPerMonth } as const,
  ]
    .filter(({ name }) => !ruled.some((rule) => rule.name === name))
    .map((each) => limitOf(each, { kind: 'key', id: keyId, serviceId }, atMs))
}

const none: readonly LimitRule[] = []

interface Figures extends Pick<LimitRule, 'name' | 'amount' | 'burst' | 'currency'> {
  readonly origin: LimitOrigin
}

/** A rule for a consumer and service of a name that has a default replaces it; it is no further limit. */
function isDefault(rule: LimitRule, { kind, serviceId }: UsageScope): boolean {
  const hasDefault = rule.name === 'requests_per_second' || rule.name === 'tokens_per_month'
  return hasDefault && kind === 'consumer' && serviceId !== undefined
}

function defaultRule(rules: LimitRules, call: LimitedCall, name: 'requests_per_second' | 'tokens_per_month'): Figures {
  const { consumer, serviceId } = call
  const own = rules.get(`consumer:${consumer.id}`)?.find((rule) => rule.serviceId === serviceId && rule.name === name)
  if (own !== undefined) return { ...own, origin: own.scope }
  const ofService = rules.get(`service_consumer:${serviceId}`)?.find((rule) => rule.name === name)
  const { overrides } = consumer
  const isTokens = name === 'tokens_per_month'
  const override = isTokens ? overrides.tokensPerMonth : overrides.requestsPerSecond
  const burst = isTokens ? undefined : overrides.requestBurst
  const common = { name, burst, currency: undefined }
  if (override !== undefined) return { ...common, amount: override, origin: 'overrides' }
  if (ofService !== undefined) {
    return { ...common, amount: ofService.amount, burst: burst ?? ofService.burst, origin: ofService.scope }
  }
  const tier = tiers[consumer.tier]
  return { ...common, amount: isTokens ? tier.tokensPerMonth : tier.requestsPerSecond, origin: 'tier' }
}

/** Values are brought into the ranges of {@link Limit}, whole numbers. */
function limitOf({ name, amount, burst, currency = '', origin }: Figures, scope: UsageScope, atMs: number): CallLimit {
  const subject = `${scope.kind}:${scope.id}`
  const common = { name, subject, serviceId: scope.serviceId ?? '', key: limitKey(name, scope), origin }
  const form = forms[name]
  switch (form.kind) {
    case 'bucket': {
      const refill = clamped(amount, 1, form.most)
      const capacity = form.windowMs === 1_000 ? clamped(burst ?? 2 * refill, 1, 1e8) : refill
      return { ...common, kind: 'bucket', unit: form.unit, capacity, refill, windowMs: form.windowMs }
    }
    case 'concurrency':
      return { ...common, kind: 'concurrency', unit: 'calls', capacity: clamped(amount, 1, form.most) }
    case 'period': {
      const key = periodKey(name, scope, monthOf(atMs), currency)
      const capacity = clamped(amount, 0, form.most)
      return { ...common, kind: 'period', unit: form.unit, key, capacity, endsAtMs: monthEndMs(atMs), currency, scope }
    }
  }
}

type Form =
  | {
      readonly kind: 'bucket'
      readonly unit: 'requests' | 'tokens'
      readonly windowMs: 1_000 | 60_000
      readonly most: number
    }
  | { readonly kind: 'period'; readonly unit: 'tokens' | 'nanos'; readonly most: number }
  | { readonly kind: 'concurrency'; readonly most: number }

const forms: Readonly<Record<LimitName, Form>> = {
  requests_per_second: { kind: 'bucket', unit: 'requests', windowMs: 1_000, most: 1e6 },
  requests_per_minute: { kind: 'bucket', unit: 'requests', windowMs: 60_000, most: 5e7 },
  tokens_per_minute: { kind: 'bucket', unit: 'tokens', windowMs: 60_000, most: 5e7 },
  concurrent_requests: { kind: 'concurrency', most: 1e6 },
  tokens_per_month: { kind: 'period', unit: 'tokens', most: 1e12 },
  cost_per_month: { kind: 'period', unit: 'nanos', most: 8e15 },
}

function clamped(value: number, least: number, most: number): number {
  return Number.isFinite(value) ? Math.min(most, Math.max(least, Math.trunc(value))) : least
}
