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
  RevocationPolicy,
  Routing,
  type Service,
  type ServiceSchema,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { etagOf } from '../etag.ts'
import type { JsonPointers } from '../providers/json-provider.ts'
import { idsAfterUpdate } from './endpoint-ids.ts'
import { durationOf, endpointMessage, endpointRecord, wholeMs } from './endpoint-message.ts'
import { type Deprecation, firstStatuses } from './lifecycle.ts'
import { invalid, priceModel, pricingMessage } from './price-message.ts'
import { profileMessage, profileOf } from './profile-message.ts'
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
  type ServiceSettings,
  type ServiceStatus as ServiceStatusName,
} from './records.ts'
import { originMessage } from './service-origin.ts'

/**
 * The record of a service to register. Ids and the price's version are new; the first price is in force since ever, so
 * that no difference between two clocks leaves a call unpriced. Throws INVALID_ARGUMENT for a status that no life begins with,
 * a price without a model, and settings that contradict the service's protocol.
 */
export function newServiceRecord(service: Service, newId: () => string, nowMs: number): ServiceRecord {
  // The contract's rules let no undefined number get here.
  const status = statusNames[service.status] ?? 'suspended'
  if (!firstStatuses.includes(status)) {
    const description = 'must be SERVICE_STATUS_ACTIVE or SERVICE_STATUS_PENDING_APPROVAL for a new service'
    throw invalid('service.status', description, 'first_status')
  }
  const price = service.pricing && firstPrice(service.pricing)
  const endpointIds = service.endpoints.map(() => newId())
  return {
    ...settingsOf(service, endpointIds),
    id: newId(),
    revision: 1,
    status,
    statusSinceMs: nowMs,
    statusReason: '',
    deprecation: undefined,
    price,
    prices: price === undefined ? [] : [price],
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
  }
}

/**
 * A service with other settings: those of `service`, which has passed the rules of the contract. Throws INVALID_ARGUMENT for
 * settings that contradict the protocol, and for ids of endpoints that are not the service's.
 */
export function changedServiceRecord(record: ServiceRecord, service: Service, newId: () => string): ServiceRecord {
  return { ...record, ...settingsOf(service, idsAfterUpdate(service.endpoints, record.endpoints, newId)) }
}

function settingsOf(service: Service, ids: readonly string[]): ServiceSettings {
  const settings: ServiceSettings = {
    name: service.name,
    version: service.version,
    description: service.description,
    organizationId: service.owner?.organizationId || undefined,
    profile: profileOf(service),
    endpoints: service.endpoints.map((endpoint, index) => endpointRecord(endpoint, ids[index] ?? '')),
    defaultMaxOutputTokens: Number(service.defaultMaxOutputTokens) || fallbackMaxOutputTokens,
    routing: service.routing === Routing.LEAST_LATENCY ? 'least_latency' : 'weighted',
    onDisconnect: service.onDisconnect === DisconnectPolicy.DRAIN ? 'drain' : 'cancel',
    onRevoke: service.onRevoke === RevocationPolicy.CANCEL ? 'cancel' : 'finish',
    drainLimitMs: wholeMs(service.drainLimit),
    fallbacks: service.fallbacks.map(fallbackRecord),
    refusesStreamOptions: service.refusesStreamOptions,
    jsonPointers: statedPointers(service.jsonPointers),
    responseCache: service.responseCache && cachePolicy(service.responseCache),
  }
  checkProtocol(settings)
  return settings
}

/** A service as a handler answers it, field by field. */
export type ServiceFields = Exclude<MessageInitShape<typeof ServiceSchema>, Service>

/** A service as those see it who may change it, with the price in force at `nowMs`. */
export function serviceMessage(service: ServiceRecord, nowMs: number): ServiceFields {
  const price = priceAt(service, nowMs)
  return {
    id: service.id,
    name: service.name,
    version: service.version,
    description: service.description,
    ...profileMessage(service.profile, service.organizationId),
    endpoints: service.endpoints.map(endpointMessage),
    ...(price !== undefined && { pricing: pricingMessage(price) }),
    status: statusValues[service.status],
    statusReason: service.statusReason,
    statusTime: timestampFromMs(service.statusSinceMs),
    ...(service.deprecation !== undefined && { deprecation: deprecationMessage(service.deprecation) }),
    etag: etagOf(service.revision),
    ...(service.origin !== undefined && { origin: originMessage(service.origin) }),
    defaultMaxOutputTokens: BigInt(service.defaultMaxOutputTokens),
    createTime: timestampFromMs(service.createdAtMs),
    updateTime: timestampFromMs(service.updatedAtMs),
    routing: service.routing === 'least_latency' ? Routing.LEAST_LATENCY : Routing.WEIGHTED,
    onDisconnect: service.onDisconnect === 'drain' ? DisconnectPolicy.DRAIN : DisconnectPolicy.CANCEL,
    onRevoke: service.onRevoke === 'cancel' ? RevocationPolicy.CANCEL : RevocationPolicy.FINISH,
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

function deprecationMessage({ atMs, sunsetAtMs, message, successor }: Deprecation) {
  return {
    time: timestampFromMs(atMs),
    ...(sunsetAtMs !== undefined && { sunsetTime: timestampFromMs(sunsetAtMs) }),
    message,
    successor,
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

/** A status by its name in the contract ("SERVICE_STATUS_ACTIVE") or in the database ("active"); undefined for any other text. */
export function statusName(text: string): ServiceStatusName | undefined {
  const name = text.toLowerCase().replace(/^service_status_/, '')
  return Object.values(statusNames).find((each) => each === name)
}

/** A status in the contract. */
export function statusMessage(status: ServiceStatusName): ServiceStatus {
  return statusValues[status]
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
