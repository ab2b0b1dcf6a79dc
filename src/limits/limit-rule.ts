/**
 * A limit rule is a ceiling that an administrator set: for whom, for calls to which service, of what, how much. The gate
 * turns the rules that apply to a call into limits of the store.
 *
 * Every rule counts its subject's calls (with a service: its calls to that service), and all rules of a call hold side by
 * side: the tightest decides. The one exception is what each consumer has for each service by default,
 * `requests_per_second` and `tokens_per_month`. Of these exactly one value holds, the first of:
 *
 * 1. a rule for this consumer and this service,
 * 2. the consumer's overrides,
 * 3. a `service_consumer` rule of the service,
 * 4. the consumer's tier.
 */
export interface LimitRule {
  readonly scope: LimitScope
  /** Id of the organization or consumer, of the key, or of the service (for both service scopes). */
  readonly subjectId: string
  /** Only the subject's calls to this service; undefined: all its calls. Always undefined for the service scopes. */
  readonly serviceId: string | undefined
  readonly name: LimitName
  /** Requests, tokens, calls at once, or nano-units; an integer in the range of its {@link LimitName}. */
  readonly amount: number
  /** Requests that may come at once, 1 to 1e8; only `requests_per_second`. Undefined: twice the amount. */
  readonly burst: number | undefined
  /** ISO 4217; `cost_per_month` always has it, nothing else does. */
  readonly currency: string | undefined
}

/** `service`: all calls to a service together. `service_consumer`: each consumer's calls to it, in place of its tier. */
export type LimitScope = 'organization' | 'consumer' | 'key' | 'service' | 'service_consumer'

/** Contract and table hold the same ranges. A month is the UTC month, and its 0 refuses every call. */
export type LimitName =
  /** 1 to 1e6. */
  | 'requests_per_second'
  /** 1 to 5e7. */
  | 'requests_per_minute'
  /** 1 to 5e7. */
  | 'tokens_per_minute'
  /** 1 to 1e6. */
  | 'concurrent_requests'
  /** 0 to 1e12. */
  | 'tokens_per_month'
  /** 0 to 8e15. */
  | 'cost_per_month'

/** Key of `Snapshot.limitRules`: all rules of one subject. */
export function limitSubject(scope: LimitScope, subjectId: string): string {
  return `${scope}:${subjectId}`
}
