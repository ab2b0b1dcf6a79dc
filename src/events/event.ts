/**
 * What Tollgate tells analytics, and how it is written down.
 *
 * An event is a fact of the past as plain typed data. {@link AnalyticsEvent} is the closed list of them: a new kind is a
 * member of the union, a name in {@link eventTypes}, and a case of {@link dataOf}. What goes out is built there field by
 * field, so that nothing else that an object carries, a prompt least of all, can travel with it.
 */
import type { LimitViolation } from '../errors.ts'
import type { Tier } from '../limits/call-limits.ts'

export type AnalyticsEvent = RateLimited | QuotaExceeded | QuotaThreshold | PolicyViolated

/** Names of the events, as in metrics; on the wire "marketplace.consumption." stands before them. */
export const eventTypes = [
  'rate_limited',
  'quota_exceeded',
  'quota_threshold',
  'policy_violation',
] as const satisfies readonly EventType[]

export type EventType = AnalyticsEvent['type']

/** The call that an event is about. */
interface OfCall {
  readonly organizationId: string
  readonly consumerId: string
  /** Empty when no key called. */
  readonly keyId: string
  readonly serviceId: string
  /** UUIDv7 of the call. */
  readonly requestId: string
}

/** The limit that an event is about; amounts are in `unit`. */
interface OfLimit {
  /** Whose limit, for example "consumer:<id>". */
  readonly subject: string
  /** Name of the limit, for example "tokens_per_month". */
  readonly limit: string
  readonly unit: LimitViolation['unit']
  readonly capacity: number
}

interface Refused extends OfCall, OfLimit {
  readonly tier: Tier
  readonly remaining: number
  /** Unix milliseconds at which the limit is whole again. */
  readonly resetAtMs: number
  /** Undefined when no wait helps: the call needs more than the whole limit. */
  readonly retryAfterMs: number | undefined
}

/** A bucket refused a call. */
export interface RateLimited extends Refused {
  readonly type: 'rate_limited'
}

/** A quota refused a call. */
export interface QuotaExceeded extends Refused {
  readonly type: 'quota_exceeded'
}

/** A call brought what was used of a month's quota to 80 % or to all of it. */
export interface QuotaThreshold extends OfCall, OfLimit {
  readonly type: 'quota_threshold'
  /** After the call; above the capacity when it ran over. */
  readonly used: number
  /** Percent of the capacity. */
  readonly threshold: 80 | 100
  /** Unix milliseconds at which the period ends. */
  readonly periodEndMs: number
}

/** A call broke a policy, or somebody reported that one did. Ids are empty where nobody knows them. */
export interface PolicyViolated extends OfCall {
  readonly type: 'policy_violation'
  /** "policy:<id>". */
  readonly subject: string
  readonly policyId: string
  readonly policyName: string
  readonly policyVersion: number
  readonly severity: string
  /** "denied", "redacted", "marked", "audited" or "reported". */
  readonly outcome: string
}

/** An event that was taken: its id and time stay the same however often it is sent. */
export interface TakenEvent {
  /** UUIDv7. */
  readonly id: string
  /** Unix milliseconds. */
  readonly timeMs: number
  readonly event: AnalyticsEvent
}

/** CloudEvents 1.0, https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md; `partitionkey` is its extension. */
export interface CloudEvent {
  readonly specversion: '1.0'
  readonly id: string
  readonly source: string
  readonly type: `marketplace.consumption.${EventType}`
  readonly time: string
  readonly subject: string
  readonly partitionkey: string
  readonly datacontenttype: 'application/json'
  readonly data: Readonly<Record<string, string | number>>
}

/** @param source who tells it, a URI reference. */
export function toCloudEvent({ id, timeMs, event }: TakenEvent, source: string): CloudEvent {
  return {
    specversion: '1.0',
    id,
    source,
    type: `marketplace.consumption.${event.type}`,
    time: iso(timeMs),
    subject: event.subject,
    partitionkey: orderingKey(event),
    datacontenttype: 'application/json',
    data: dataOf(event),
  }
}

/** Events of one key stay in order. */
export function orderingKey(event: AnalyticsEvent): string {
  return event.organizationId
}

/** What an event says, by the names of its JSON. */
export function dataOf(event: AnalyticsEvent): Record<string, string | number> {
  const { organizationId, consumerId, keyId, serviceId, requestId, subject } = event
  const call = { organizationId, consumerId, keyId, serviceId, requestId, subject }
  if (event.type === 'policy_violation') {
    const { policyId, policyName, policyVersion, severity, outcome } = event
    return { ...call, policyId, policyName, policyVersion, severity, outcome }
  }
  const { limit, unit, capacity } = event
  const common = { ...call, limit, unit, capacity }
  switch (event.type) {
    case 'rate_limited':
    case 'quota_exceeded':
      return {
        ...common,
        tier: event.tier,
        remaining: event.remaining,
        resetAt: iso(event.resetAtMs),
        ...(event.retryAfterMs === undefined ? {} : { retryAfterMs: event.retryAfterMs }),
      }
    case 'quota_threshold':
      return { ...common, used: event.used, threshold: event.threshold, periodEnd: iso(event.periodEndMs) }
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
