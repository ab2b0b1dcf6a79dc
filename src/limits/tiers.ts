import type { BucketLimit, Limit, PeriodLimit } from './limits.ts'

export type Tier = 'basic' | 'premium' | 'enterprise'

/** What a consumer may have in place of its tier's values. */
export interface LimitOverrides {
  /** Refill of the request bucket. */
  readonly requestsPerSecond?: number
  /** Capacity of the request bucket; default twice the rate. */
  readonly requestBurst?: number
  /** Tokens of a UTC month; 0 refuses every call. */
  readonly tokensPerMonth?: number
}

export interface LimitedConsumer {
  readonly id: string
  readonly organizationId: string
  readonly tier: Tier
  readonly overrides: LimitOverrides
}

/** Requests a second and tokens a month for each consumer and service. */
export const tiers: Readonly<Record<Tier, Required<Pick<LimitOverrides, 'requestsPerSecond' | 'tokensPerMonth'>>>> = {
  basic: { requestsPerSecond: 10, tokensPerMonth: 100_000 },
  premium: { requestsPerSecond: 100, tokensPerMonth: 10_000_000 },
  enterprise: { requestsPerSecond: 1_000, tokensPerMonth: 1_000_000_000 },
}

/**
 * The limits of a consumer's calls to one service at a moment: first the bucket `requests_per_second`, then the period
 * `tokens_per_month`. Values of overrides are brought into the ranges of {@link Limit}: whole numbers, at least 1 for
 * the bucket. The period's key holds the UTC month of `nowMs`, so a new month is a new counter and nothing has to reset.
 */
export function limitsFor(
  consumer: LimitedConsumer,
  serviceId: string,
  nowMs: number,
): [requests: BucketLimit, tokens: PeriodLimit] {
  const { overrides } = consumer
  const tier = tiers[consumer.tier]
  const rate = within(overrides.requestsPerSecond ?? tier.requestsPerSecond, 1, 1e6)
  const burst = within(overrides.requestBurst ?? 2 * rate, 1, 1e8)
  const tokens = within(overrides.tokensPerMonth ?? tier.tokensPerMonth, 0, 1e12)
  const now = new Date(nowMs)
  const month = now.toISOString().slice(0, 7)
  const subject = `consumer:${consumer.id}`
  const scope = `consumer:${consumer.id}:service:${serviceId}`
  return [
    {
      kind: 'bucket',
      name: 'requests_per_second',
      unit: 'requests',
      subject,
      key: `requests:${scope}`,
      capacity: burst,
      refillPerSecond: rate,
    },
    {
      kind: 'period',
      name: 'tokens_per_month',
      unit: 'tokens',
      subject,
      key: `tokens:${scope}:${month}`,
      capacity: tokens,
      endsAtMs: Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1),
    },
  ]
}

/** Whose usage of which month a `tokens_per_month` limit counts. */
export interface QuotaScope {
  readonly consumerId: string
  readonly serviceId: string
  /** Unix milliseconds, inclusive. */
  readonly monthStartMs: number
  /** Unix milliseconds, exclusive. */
  readonly monthEndMs: number
}

/** The inverse of {@link limitsFor}'s period key: what the ledger must add up to know a counter. */
export function quotaScopeOf({ key, endsAtMs }: Pick<PeriodLimit, 'key' | 'endsAtMs'>): QuotaScope {
  const quota = parseQuotaKey(key)
  if (quota === undefined) throw new RangeError(`${key} is no monthly quota`)
  const { consumerId, serviceId, month } = quota
  return { consumerId, serviceId, monthStartMs: Date.parse(`${month}-01T00:00:00Z`), monthEndMs: endsAtMs }
}

/** Whose tokens of which UTC month ("YYYY-MM") a period's key counts; undefined for other keys. */
export function parseQuotaKey(key: string): { consumerId: string; serviceId: string; month: string } | undefined {
  const [, consumerId, serviceId, month] = /^tokens:consumer:([^:]+):service:([^:]+):(\d{4}-\d{2})$/.exec(key) ?? []
  if (consumerId === undefined || serviceId === undefined || month === undefined) return undefined
  return { consumerId, serviceId, month }
}

function within(value: number, least: number, most: number): number {
  return Number.isFinite(value) ? Math.min(most, Math.max(least, Math.trunc(value))) : least
}
