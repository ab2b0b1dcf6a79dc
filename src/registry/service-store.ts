import type { JsonPointers } from '../providers/json-provider.ts'
import type { Protocol } from '../providers/provider.ts'
import type { AuthForm } from '../providers/target.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { assignments } from '../storage/statement.ts'
import type { HealthCheck } from './health-check.ts'
import { insertPrice, type PriceRow, priceRecord, selectPrices } from './price-store.ts'
import type {
  CacheSharing,
  DisconnectPolicy,
  EndpointRecord,
  FallbackRecord,
  RevocationPolicy,
  Routing,
  ServiceRecord,
  ServiceStatus,
} from './records.ts'
import type { ServiceOrigin } from './service-origin.ts'
import { emptyProfile, type ServiceProfile } from './service-profile.ts'

/** Statements on services and their endpoints. */

/** All services by id, as they are in the database: prices in force are not chosen yet. */
export async function selectServices(sql: Sql | Transaction): Promise<ServiceRecord[]> {
  const services = await sql<ServiceRow[]>`select * from services order by id`
  const endpoints = Map.groupBy(await sql<EndpointRow[]>`select * from endpoints order by position`, serviceOf)
  const prices = Map.groupBy(await selectPrices(sql), serviceOf)
  return services.map((row) => serviceRecord(row, endpoints.get(row.id) ?? [], prices.get(row.id) ?? []))
}

/** One service, which nobody else changes until the transaction ends. `id` must be a UUID. */
export async function lockService(tx: Transaction, id: string): Promise<ServiceRecord | undefined> {
  const [row] = await tx<ServiceRow[]>`select * from services where id = ${id} for no key update`
  if (row === undefined) return undefined
  const endpoints = await tx<EndpointRow[]>`select * from endpoints where service_id = ${id} order by position`
  return serviceRecord(row, endpoints, await selectPrices(tx, id))
}

/** Adds a service with its endpoints and its first price. */
export async function insertService(tx: Transaction, service: ServiceRecord): Promise<void> {
  const { id, name, version } = service
  await tx`insert into services ${tx({ id, name, version, ...changingColumns(tx, service) })}`
  await insertEndpoints(tx, service)
  for (const price of service.prices) await insertPrice(tx, id, price)
}

/** Stores a service that was changed, and its endpoints, over what is there. Prices have a way of their own. */
export async function updateService(tx: Transaction, service: ServiceRecord): Promise<void> {
  await tx`update services set ${assignments(changingColumns(tx, service))} where id = ${service.id}`
  // Ids stay: what is known of an endpoint is known by its id.
  await tx`delete from endpoints where service_id = ${service.id}`
  await insertEndpoints(tx, service)
}

async function insertEndpoints(tx: Transaction, service: ServiceRecord): Promise<void> {
  const endpoints = service.endpoints.map((endpoint, position) => ({
    id: endpoint.id,
    service_id: service.id,
    position,
    url: endpoint.url,
    protocol: endpoint.protocol,
    credential_ref: endpoint.credentialRef,
    weight: endpoint.weight,
    priority: endpoint.priority,
    timeout_ms: endpoint.timeoutMs ?? null,
    connect_timeout_ms: endpoint.connectTimeoutMs ?? null,
    headers_timeout_ms: endpoint.headersTimeoutMs ?? null,
    first_token_timeout_ms: endpoint.firstTokenTimeoutMs ?? null,
    idle_timeout_ms: endpoint.idleTimeoutMs ?? null,
    auth: endpoint.auth ?? null,
    model: endpoint.model,
    health_check: endpoint.healthCheck === undefined ? null : tx.json(endpoint.healthCheck),
  }))
  await tx`insert into endpoints ${tx(endpoints)}`
}

/** All columns but those of what a service is called. */
function changingColumns(tx: Transaction, service: ServiceRecord) {
  const { deprecation } = service
  return {
    description: service.description,
    organization_id: service.organizationId ?? null,
    profile: tx.json(service.profile),
    origin: service.origin === undefined ? null : tx.json({ ...service.origin }),
    revision: service.revision,
    created_at: new Date(service.createdAtMs),
    updated_at: new Date(service.updatedAtMs),
    status: service.status,
    status_since: new Date(service.statusSinceMs),
    status_reason: service.statusReason,
    deprecated_at: deprecation === undefined ? null : new Date(deprecation.atMs),
    sunset_at: deprecation?.sunsetAtMs === undefined ? null : new Date(deprecation.sunsetAtMs),
    deprecation_message: deprecation?.message ?? '',
    successor: deprecation?.successor ?? '',
    default_max_output_tokens: service.defaultMaxOutputTokens,
    routing: service.routing,
    on_disconnect: service.onDisconnect,
    on_revoke: service.onRevoke,
    drain_limit_ms: service.drainLimitMs ?? null,
    fallbacks: tx.json(service.fallbacks),
    refuses_stream_options: service.refusesStreamOptions,
    json_pointers: tx.json({ ...service.jsonPointers }),
    cache_ttl_ms: service.responseCache?.ttlMs ?? null,
    cache_sharing: service.responseCache?.sharing ?? 'organization',
  }
}

interface ServiceRow {
  readonly id: string
  readonly name: string
  readonly version: string
  readonly description: string
  readonly organization_id: string | null
  readonly profile: Partial<ServiceProfile>
  readonly origin: ServiceOrigin | null
  readonly revision: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly status: ServiceStatus
  readonly status_since: Date
  readonly status_reason: string
  readonly deprecated_at: Date | null
  readonly sunset_at: Date | null
  readonly deprecation_message: string
  readonly successor: string
  readonly default_max_output_tokens: number
  readonly routing: Routing
  readonly on_disconnect: DisconnectPolicy
  readonly on_revoke: RevocationPolicy
  readonly drain_limit_ms: number | null
  readonly fallbacks: readonly FallbackRecord[]
  readonly refuses_stream_options: boolean
  readonly json_pointers: JsonPointers
  readonly cache_ttl_ms: number | null
  readonly cache_sharing: CacheSharing
}

interface EndpointRow {
  readonly id: string
  readonly service_id: string
  readonly url: string
  readonly protocol: Protocol
  readonly credential_ref: string
  readonly weight: number
  readonly priority: number
  readonly timeout_ms: number | null
  readonly connect_timeout_ms: number | null
  readonly headers_timeout_ms: number | null
  readonly first_token_timeout_ms: number | null
  readonly idle_timeout_ms: number | null
  readonly auth: AuthForm | null
  readonly model: string
  readonly health_check: HealthCheck | null
}

function serviceOf(row: { readonly service_id: string }): string {
  return row.service_id
}

function serviceRecord(row: ServiceRow, endpoints: readonly EndpointRow[], prices: readonly PriceRow[]): ServiceRecord {
  return {
    id: row.id,
    name: row.name,
    version: row.version,
    description: row.description,
    organizationId: row.organization_id ?? undefined,
    profile: { ...emptyProfile, ...row.profile },
    revision: row.revision,
    ...(row.origin !== null && { origin: row.origin }),
    createdAtMs: row.created_at.getTime(),
    updatedAtMs: row.updated_at.getTime(),
    status: row.status,
    statusSinceMs: row.status_since.getTime(),
    statusReason: row.status_reason,
    deprecation: deprecationOf(row),
    endpoints: endpoints.map(endpointRecord),
    price: undefined,
    prices: prices.map(priceRecord),
    defaultMaxOutputTokens: row.default_max_output_tokens,
    routing: row.routing,
    onDisconnect: row.on_disconnect,
    onRevoke: row.on_revoke,
    drainLimitMs: row.drain_limit_ms ?? undefined,
    fallbacks: row.fallbacks,
    refusesStreamOptions: row.refuses_stream_options,
    jsonPointers: row.json_pointers,
    responseCache: row.cache_ttl_ms === null ? undefined : { ttlMs: row.cache_ttl_ms, sharing: row.cache_sharing },
  }
}

function deprecationOf(row: ServiceRow): ServiceRecord['deprecation'] {
  if (row.deprecated_at === null) return undefined
  return {
    atMs: row.deprecated_at.getTime(),
    sunsetAtMs: row.sunset_at?.getTime(),
    message: row.deprecation_message,
    successor: row.successor,
  }
}

function endpointRecord(row: EndpointRow): EndpointRecord {
  return {
    id: row.id,
    url: row.url,
    protocol: row.protocol,
    credentialRef: row.credential_ref,
    weight: row.weight,
    priority: row.priority,
    timeoutMs: row.timeout_ms ?? undefined,
    connectTimeoutMs: row.connect_timeout_ms ?? undefined,
    headersTimeoutMs: row.headers_timeout_ms ?? undefined,
    firstTokenTimeoutMs: row.first_token_timeout_ms ?? undefined,
    idleTimeoutMs: row.idle_timeout_ms ?? undefined,
    auth: row.auth ?? undefined,
    model: row.model,
    healthCheck: row.health_check ?? undefined,
  }
}
