import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  DisconnectPolicy,
  type Fallback,
  Fallback_Condition,
  type JsonPointers as JsonPointersMessage,
  type Pricing,
  type ResponseCache,
  ResponseCache_Sharing,
  type ResponseCacheSchema,
  Routing,
  type Service,
  type ServiceSchema,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import type { JsonPointers } from '../providers/json-provider.ts'
import { durationOf, endpointMessage, newEndpointRecord, wholeMs } from './endpoint-message.ts'
import { missing, priceModel, pricingMessage } from './price-message.ts'
import { checkProtocol } from './protocol-rules.ts'
import {
  type CacheSharing,
  type FallbackCondition,
  type FallbackRecord,
  fallbackMaxOutputTokens,
  type PriceRecord,
  priceAt,
  type ResponseCachePolicy,
  type ServiceRecord,
  type ServiceStatus as ServiceStatusName,
} from './records.ts'

/**
 * The record of a service to register. Ids and the price's version are new; the first price is in force since ever, so
 * that no difference between two clocks leaves a call unpriced. Throws INVALID_ARGUMENT for a price without a model, and for
 * settings that contradict the service's protocol.
 */
export function newServiceRecord(service: Service | undefined, newId: () => string, nowMs: number): ServiceRecord {
  if (service === undefined) throw missing('service')
  const price = service.pricing && firstPrice(service.pricing)
  const record: ServiceRecord = {
    id: newId(),
    name: service.name,
    version: service.version,
    description: service.description,
    // The contract's rules let no undefined number get here.
    status: statusNames[service.status] ?? 'suspended',
    endpoints: service.endpoints.map((endpoint) => newEndpointRecord(endpoint, newId())),
    price,
    prices: price === undefined ? [] : [price],
    defaultMaxOutputTokens: Number(service.defaultMaxOutputTokens) || fallbackMaxOutputTokens,
    routing: service.routing === Routing.LEAST_LATENCY ? 'least_latency' : 'weighted',
    onDisconnect: service.onDisconnect === DisconnectPolicy.DRAIN ? 'drain' : 'cancel',
    drainLimitMs: wholeMs(service.drainLimit),
    fallbacks: service.fallbacks.map(fallbackRecord),
    refusesStreamOptions: service.refusesStreamOptions,
    jsonPointers: statedPointers(service.jsonPointers),
    responseCache: service.responseCache && cachePolicy(service.responseCache),
    createdAtMs: nowMs,
  }
  checkProtocol(record)
  return record
}

/** A service as its callers see it, with the price in force at `nowMs`. */
export function serviceMessage(service: ServiceRecord, nowMs: number): MessageInitShape<typeof ServiceSchema> {
  const price = priceAt(service, nowMs)
  return {
    id: service.id,
    name: service.name,
    version: service.version,
    description: service.description,
    endpoints: service.endpoints.map(endpointMessage),
    ...(price !== undefined && { pricing: pricingMessage(price) }),
    status: statusValues[service.status],
    defaultMaxOutputTokens: BigInt(service.defaultMaxOutputTokens),
    createTime: timestampFromMs(service.createdAtMs),
    routing: service.routing === 'least_latency' ? Routing.LEAST_LATENCY : Routing.WEIGHTED,
    onDisconnect: service.onDisconnect === 'drain' ? DisconnectPolicy.DRAIN : DisconnectPolicy.CANCEL,
    drainLimit: durationOf(service.drainLimitMs),
    ...(service.responseCache !== undefined && { responseCache: cacheMessage(service.responseCache) }),
    fallbacks: service.fallbacks.map(({ serviceId, on }) => ({
      serviceId,
      on: on.map((name) => conditionValues[name]),
    })),
    refusesStreamOptions: service.refusesStreamOptions,
    ...(Object.keys(service.jsonPointers).length > 0 && { jsonPointers: service.jsonPointers }),
  }
}

const conditionValues: Readonly<Record<FallbackCondition, Fallback_Condition>> = {
  error: Fallback_Condition.ERROR,
  busy: Fallback_Condition.BUSY,
  timeout: Fallback_Condition.TIMEOUT,
  content_filter: Fallback_Condition.CONTENT_FILTER,
  context_length: Fallback_Condition.CONTEXT_LENGTH,
}
const conditions = ['error', 'busy', 'timeout', 'content_filter', 'context_length'] as const

function fallbackRecord({ serviceId, on }: Fallback): FallbackRecord {
  const named = conditions.filter((name) => on.includes(conditionValues[name]))
  return { serviceId, on: named.length === 0 ? ['error', 'busy', 'timeout'] : named }
}

const sharingValues: Readonly<Record<CacheSharing, ResponseCache_Sharing>> = {
  consumer: ResponseCache_Sharing.CONSUMER,
  organization: ResponseCache_Sharing.ORGANIZATION,
  everyone: ResponseCache_Sharing.EVERYONE,
}

function cachePolicy({ ttl, sharing }: ResponseCache): ResponseCachePolicy {
  const { CONSUMER, EVERYONE } = ResponseCache_Sharing
  const name = sharing === CONSUMER ? 'consumer' : sharing === EVERYONE ? 'everyone' : 'organization'
  return { ttlMs: wholeMs(ttl) ?? 0, sharing: name }
}

function cacheMessage({ ttlMs, sharing }: ResponseCachePolicy): MessageInitShape<typeof ResponseCacheSchema> {
  return { ttl: durationOf(ttlMs), sharing: sharingValues[sharing] }
}

const statusNames: Readonly<Record<ServiceStatus, ServiceStatusName>> = {
  [ServiceStatus.UNSPECIFIED]: 'active',
  [ServiceStatus.PENDING_APPROVAL]: 'pending_approval',
  [ServiceStatus.ACTIVE]: 'active',
  [ServiceStatus.DEPRECATED]: 'deprecated',
  [ServiceStatus.SUSPENDED]: 'suspended',
  [ServiceStatus.RETIRED]: 'retired',
}

const statusValues: Readonly<Record<ServiceStatusName, ServiceStatus>> = {
  pending_approval: ServiceStatus.PENDING_APPROVAL,
  active: ServiceStatus.ACTIVE,
  deprecated: ServiceStatus.DEPRECATED,
  suspended: ServiceStatus.SUSPENDED,
  retired: ServiceStatus.RETIRED,
}

/** Pointers that point somewhere. */
function statedPointers(message: JsonPointersMessage | undefined): JsonPointers {
  if (message === undefined) return {}
  const { $typeName, $unknown, ...pointers } = message
  return Object.fromEntries(Object.entries(pointers).filter(([, pointer]) => pointer !== ''))
}

function firstPrice({ currency, model }: Pricing): PriceRecord {
  return { version: 'v1', currency, effectiveFromMs: 0, model: priceModel(model, 'service.pricing') }
}
