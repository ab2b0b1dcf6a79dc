import type { ConsumerRecord, EndpointRecord, ServiceRecord } from '../../src/registry/records.ts'
import { emptyProfile } from '../../src/registry/service-profile.ts'

/** An active service without endpoints and prices, and what `changes` say. */
export function serviceRecord(changes: Partial<ServiceRecord> = {}): ServiceRecord {
  return {
    id: 'service-1',
    name: 'service',
    version: '1.0.0',
    description: '',
    organizationId: undefined,
    profile: emptyProfile,
    revision: 1,
    statusSinceMs: 0,
    statusReason: '',
    deprecation: undefined,
    status: 'active',
    endpoints: [],
    price: undefined,
    prices: [],
    defaultMaxOutputTokens: 1024,
    routing: 'weighted',
    onDisconnect: 'cancel',
    onRevoke: 'finish',
    drainLimitMs: undefined,
    fallbacks: [],
    refusesStreamOptions: false,
    jsonPointers: {},
    responseCache: undefined,
    createdAtMs: 0,
    updatedAtMs: 0,
    ...changes,
  }
}

/** An endpoint of weight 1 where nobody listens, without a credential and deadlines, and what `changes` say. */
export function endpointRecord(changes: Partial<EndpointRecord> = {}): EndpointRecord {
  return {
    id: 'endpoint-1',
    url: 'http://127.0.0.1:9/',
    protocol: 'openai',
    credentialRef: '',
    weight: 1,
    priority: 0,
    timeoutMs: undefined,
    connectTimeoutMs: undefined,
    headersTimeoutMs: undefined,
    firstTokenTimeoutMs: undefined,
    idleTimeoutMs: undefined,
    auth: undefined,
    model: '',
    healthCheck: undefined,
    ...changes,
  }
}

/** An active consumer of the basic tier cleared for internal data, without grants and overrides, and what `changes` say. */
export function consumerRecord(changes: Partial<ConsumerRecord> = {}): ConsumerRecord {
  return {
    id: 'consumer-1',
    organizationId: 'organization-1',
    projectId: undefined,
    name: 'consumer',
    tier: 'basic',
    status: 'active',
    grantedServices: new Set(),
    overrides: {},
    clearance: 'internal',
    homeRegion: '',
    ...changes,
  }
}
