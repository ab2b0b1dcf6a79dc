import type { MessageInitShape } from '@bufbuild/protobuf'
import { durationFromMs, durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  Endpoint_Protocol,
  type EndpointSchema,
  type Pricing,
  type Service,
  type ServiceSchema,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { missing, priceModel, pricingMessage } from './price-message.ts'
import {
  type EndpointRecord,
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
      // A rule keeps it above 0; what is below a millisecond counts as one.
      timeoutMs: endpoint.timeout === undefined ? undefined : Math.max(1, Math.round(durationMs(endpoint.timeout))),
    })),
    price,
    prices: price === undefined ? [] : [price],
    defaultMaxOutputTokens: Number(service.defaultMaxOutputTokens) || fallbackMaxOutputTokens,
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
  }
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
    ...(endpoint.timeoutMs !== undefined && { timeout: durationFromMs(endpoint.timeoutMs) }),
  }
}
