/**
 * What the control plane knows, as plain immutable values for the hot path. All amounts are safe integers.
 *
 * - A **service** is one registered version; its **endpoints** are where its calls go.
 * - A **price** is one version of what calls cost, in force from an instant until the next version's instant.
 */
import type { Standing } from '../identity/standing.ts'
import type { JsonPointers } from '../providers/json-provider.ts'
import type { Protocol } from '../providers/provider.ts'
import type { AuthForm } from '../providers/target.ts'
import type { DataClassification } from './classification.ts'
import type { HealthCheck } from './health-check.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { ServiceOrigin } from './service-origin.ts'
import type { ServiceProfile } from './service-profile.ts'

/** Lifecycle of a service version; `active` and `deprecated` take calls. */
export type ServiceStatus = 'pending_approval' | 'active' | 'deprecated' | 'suspended' | 'retired'

export interface ServiceRecord extends ServiceSettings, Lifecycle {
  /** UUID, lower case. */
  readonly id: string
  /** Moves with every change of the service; what it is served as is its etag. */
  readonly revision: number
  /** Left out: it was registered here. */
  readonly origin?: ServiceOrigin
  /** In force when the snapshot was made; undefined means unpriced. {@link priceAt} is exact for any instant. */
  readonly price: PriceRecord | undefined
  /** All versions, newest `effectiveFromMs` first and of one instant the later version first, future ones included. */
  readonly prices: readonly PriceRecord[]
  readonly createdAtMs: number
  readonly updatedAtMs: number
}

/** What the owner of a service states of it. */
export interface ServiceSettings {
  readonly name: string
  /** Semantic version. */
  readonly version: string
  readonly description: string
  /** Undefined: it belongs to the operator of the registry. */
  readonly organizationId: string | undefined
  readonly profile: ServiceProfile
  /** At least one, by position; all of one protocol. */
  readonly endpoints: readonly EndpointRecord[]
  /** Output tokens to reserve for a call that names no maximum; at least 1. */
  readonly defaultMaxOutputTokens: number
  readonly routing: Routing
  readonly onDisconnect: DisconnectPolicy
  readonly onRevoke: RevocationPolicy
  /** Longest that a drained call goes on without its caller; undefined means until the call's deadline. */
  readonly drainLimitMs: number | undefined
  /** Services that take over failed calls, in this order. */
  readonly fallbacks: readonly FallbackRecord[]
  /** True for OpenAI-compatible backends whose streams must not be asked for usage. */
  readonly refusesStreamOptions: boolean
  /** Of protocol json. */
  readonly jsonPointers: JsonPointers
  /** Undefined: no answer is kept for others. */
  readonly responseCache: ResponseCachePolicy | undefined
}

export interface ResponseCachePolicy {
  /** Age up to which an answer is used, in milliseconds. */
  readonly ttlMs: number
  /** Who gets answers to requests of whom. */
  readonly sharing: CacheSharing
}

export type CacheSharing = 'consumer' | 'organization' | 'everyone'

export interface FallbackRecord {
  /** Id or name. */
  readonly serviceId: string
  /** At least one. */
  readonly on: readonly FallbackCondition[]
}

/** A kind of failure, after all attempts at the endpoints of a service. */
export type FallbackCondition = 'error' | 'busy' | 'timeout' | 'content_filter' | 'context_length'

/** How an endpoint is chosen among those of one priority. */
export type Routing = 'weighted' | 'least_latency'

/** What becomes of a call whose caller went away: cancelled at the backend, or read to its end. */
export type DisconnectPolicy = 'cancel' | 'drain'

/** What becomes of running calls whose key is revoked or expires. */
export type RevocationPolicy = 'finish' | 'cancel'

export interface EndpointRecord {
  readonly id: string
  /** Absolute http or https URL that payloads are posted to. */
  readonly url: string
  readonly protocol: Protocol
  /** "env:NAME", "file:/path", or empty for none. */
  readonly credentialRef: string
  /** Share of the calls among endpoints of one priority; at least 1. */
  readonly weight: number
  /** Lower numbers go first. */
  readonly priority: number
  /** Longest wait for the whole answer; undefined means the call's own deadline. */
  readonly timeoutMs: number | undefined
  /** Longest wait for a connection, TLS included; undefined means the setting of the gate. */
  readonly connectTimeoutMs: number | undefined
  /** Longest wait from the request to the headers of the answer; undefined here and below means no limit of its own. */
  readonly headersTimeoutMs: number | undefined
  /** Longest wait from the request to the first output of a stream. */
  readonly firstTokenTimeoutMs: number | undefined
  /** Longest silence within an answer that has begun. */
  readonly idleTimeoutMs: number | undefined
  /** How the credential is shown; undefined means the protocol's own way. */
  readonly auth: AuthForm | undefined
  /** What the backend is asked for; empty means the service's name, or what a request of the backend's own API names. */
  readonly model: string
  /** Undefined: it is not checked. */
  readonly healthCheck: HealthCheck | undefined
}

export interface PriceRecord {
  /** Unique within the service; usage records name it. */
  readonly version: string
  /** ISO 4217. */
  readonly currency: string
  /** Unix milliseconds. */
  readonly effectiveFromMs: number
  readonly model: PriceModel
}

export type PriceModel =
  /** The own rates hold for calls whose input reaches no tier. */
  | (TokenRates & { readonly kind: 'per_token' /** Ascending sizes. */; readonly tiers: readonly PriceTier[] })
  | { readonly kind: 'per_request' /** Nano-units per answered request. */; readonly requestNanos: number }
  /** Calls cost nothing: they are paid beforehand. */
  | { readonly kind: 'subscription' }

/** Nano-units per million tokens of each part; parts without a rate of their own hold the rate that applies. */
export interface TokenRates {
  readonly inputNanosPerMillion: number
  readonly outputNanosPerMillion: number
  readonly cachedInputNanosPerMillion: number
  readonly cacheWriteInputNanosPerMillion: number
  readonly reasoningOutputNanosPerMillion: number
}

/** Rates of calls from an input size on. */
export interface PriceTier extends TokenRates {
  /** Total input tokens, cached ones included; at least 1. */
  readonly minInputTokens: number
}

export type Tier = 'basic' | 'premium' | 'enterprise'

export type ConsumerStatus = Standing

export interface OrganizationRecord {
  /** UUID, lower case. */
  readonly id: string
  readonly name: string
  readonly status: Standing
  readonly tier: Tier
  readonly clearance: DataClassification
  /** Empty for none. */
  readonly homeRegion: string
}

export interface ProjectRecord {
  /** UUID, lower case. */
  readonly id: string
  readonly organizationId: string
  readonly name: string
  readonly status: Standing
  readonly labels: Readonly<Record<string, string>>
}

export interface ConsumerRecord {
  /** UUID, lower case. */
  readonly id: string
  readonly organizationId: string
  /** Undefined: it belongs to no project. */
  readonly projectId: string | undefined
  readonly name: string
  readonly tier: Tier
  readonly status: ConsumerStatus
  /** Ids of services, or "*" for all of them. */
  readonly grantedServices: ReadonlySet<string>
  readonly overrides: LimitOverrides
  /** Highest classification of data that it may send: its own, and never more than its organization's. */
  readonly clearance: DataClassification
  /** Region that its data belongs to: its own, else its organization's; empty for none. */
  readonly homeRegion: string
}

/** Limits that differ from the tier's; an absent one is the tier's. */
export interface LimitOverrides {
  readonly requestsPerSecond?: number
  readonly requestBurst?: number
  readonly tokensPerMonth?: number
}

/** Output tokens reserved for a call that names no maximum, when the service states none either. */
export const fallbackMaxOutputTokens = 1024

/** The price in force at an instant: the newest that is effective by then; undefined when there is none. */
export function priceAt(service: Pick<ServiceRecord, 'prices'>, atMs: number): PriceRecord | undefined {
  for (const price of service.prices) if (price.effectiveFromMs <= atMs) return price
  return undefined
}

/** Whether a service of this status takes calls. */
export function takesCalls(status: ServiceStatus): boolean {
  return status === 'active' || status === 'deprecated'
}
