import type { MessageInitShape } from '@bufbuild/protobuf'
import { type Duration, durationFromMs, durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  DisconnectPolicy,
  Endpoint_Protocol,
  type EndpointSchema,
  type Fallback,
  Fallback_Condition,
  type Pricing,
  Routing,
  type Service,
  type ServiceSchema,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { missing, priceModel, pricingMessage } from './price-message.ts'
import {
  type EndpointRecord,
  type FallbackCondition,
  type FallbackRecord,
  fallbackMaxOutputTokens,
  type PriceRecord,
  priceAt,
  type ServiceRecord,
  type ServiceStatus as ServiceStatusName,
} from './records.ts'

/**
 * The record of a service to register. Ids and the price's version are new; the first price is in force since ever, so
 * that no difference between two clocks leaves a call unpriced. Throws INVALID_ARGUMENT for a price without a model.
 */
export function newServiceRecord(service: Service | undefined, newId: () => string, nowMs: number): ServiceRecord {
  if (service === undefined) throw missing('service')
  const price = service.pricing && firstPrice(service.pricing)
  return {
    id: newId(),
    name: service.name,
    version: service.version,
    description: service.description,
    // The contract's rules let no undefined number get here.
    status: statusNames[service.status] ?? 'suspended',
    endpoints: service.endpoints.map((endpoint) => ({
      id: newId(),
      url: endpoint.url,
      protocol: 'openai',
      credentialRef: endpoint.credentialRef,
      weight: endpoint.weight || 1,
      priority: endpoint.priority,
      timeoutMs: wholeMs(endpoint.timeout),
      connectTimeoutMs: wholeMs(endpoint.connectTimeout),
      headersTimeoutMs: wholeMs(endpoint.headersTimeout),
      firstTokenTimeoutMs: wholeMs(endpoint.firstTokenTimeout),
      idleTimeoutMs: wholeMs(endpoint.idleTimeout),
    })),
    price,
    prices: price === undefined ? [] : [price],
    defaultMaxOutputTokens: Number(service.defaultMaxOutputTokens) || fallbackMaxOutputTokens,
    routing: service.routing === Routing.LEAST_LATENCY ? 'least_latency' : 'weighted',
    onDisconnect: service.onDisconnect === DisconnectPolicy.DRAIN ? 'drain' : 'cancel',
    drainLimitMs: wholeMs(service.drainLimit),
    fallbacks: service.fallbacks.map(fallbackRecord),
    createdAtMs: nowMs,
  }
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
    fallbacks: service.fallbacks.map(({ serviceId, on }) => ({
      serviceId,
      on: on.map((name) => conditionValues[name]),
    })),
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

function firstPrice({ currency, model }: Pricing): PriceRecord {
  return { version: 'v1', currency, effectiveFromMs: 0, model: priceModel(model, 'service.pricing') }
}

function endpointMessage(endpoint: EndpointRecord): MessageInitShape<typeof EndpointSchema> {
  return {
    id: endpoint.id,
    url: endpoint.url,
    protocol: Endpoint_Protocol.OPENAI,
    credentialRef: endpoint.credentialRef,
    weight: endpoint.weight,
    priority: endpoint.priority,
    timeout: durationOf(endpoint.timeoutMs),
    connectTimeout: durationOf(endpoint.connectTimeoutMs),
    headersTimeout: durationOf(endpoint.headersTimeoutMs),
    firstTokenTimeout: durationOf(endpoint.firstTokenTimeoutMs),
    idleTimeout: durationOf(endpoint.idleTimeoutMs),
  }
}

/** A rule keeps durations above 0; what is below a millisecond counts as one. */
function wholeMs(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Math.max(1, Math.round(durationMs(duration)))
}

function durationOf(ms: number | undefined): Duration | undefined {
  return ms === undefined ? undefined : durationFromMs(ms)
}
