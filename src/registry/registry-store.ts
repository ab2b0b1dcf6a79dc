import { selectConsumerRecords } from '../identity/consumer-store.ts'
import { selectOrganizationRecords } from '../identity/organization-store.ts'
import { selectProjectRecords } from '../identity/project-store.ts'
import type { UserRecord } from '../identity/user-record.ts'
import { selectUserRecords } from '../identity/user-store.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import { selectLimitRules } from '../limits/limit-store.ts'
import type { JsonPointers } from '../providers/json-provider.ts'
import type { Protocol } from '../providers/provider.ts'
import type { AuthForm } from '../providers/target.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { insertPrice, type PriceRow, priceRecord, selectPrices } from './price-store.ts'
import type {
  CacheSharing,
  ConsumerRecord,
  DisconnectPolicy,
  EndpointRecord,
  FallbackRecord,
  OrganizationRecord,
  ProjectRecord,
  Routing,
  ServiceRecord,
  ServiceStatus,
} from './records.ts'

/** Statements on the catalog: services, endpoints, control_version; and all that snapshots hold, at one instant. */

export interface ControlVersion {
  /** Moves with every change of the control plane. */
  readonly version: number
  /** Moves with every change of what {@link Catalog} holds. */
  readonly catalogVersion: number
}

export async function selectControlVersion(sql: Sql | Transaction): Promise<ControlVersion> {
  const [row] = await sql<{ version: number; catalog_version: number }[]>`
    select version, catalog_version from control_version`
  if (row === undefined) throw new Error('control_version has lost its row')
  return { version: row.version, catalogVersion: row.catalog_version }
}

export interface Catalog extends ControlVersion {
  /** By id. */
  readonly services: readonly ServiceRecord[]
  readonly organizations: readonly OrganizationRecord[]
  readonly projects: readonly ProjectRecord[]
  readonly consumers: readonly ConsumerRecord[]
  readonly users: readonly UserRecord[]
  readonly limitRules: readonly LimitRule[]
}

/** Everything at one instant: the versions belong exactly to the records. Prices in force are not chosen yet. */
export async function selectCatalog(sql: Sql): Promise<Catalog> {
  return sql.begin(async (tx) => {
    const versions = await selectControlVersion(tx)
    const services = await tx<ServiceRow[]>`select * from services order by id`
    const endpoints = Map.groupBy(await tx<EndpointRow[]>`select * from endpoints order by position`, serviceOf)
    const prices = Map.groupBy(await selectPrices(tx), serviceOf)
    return {
      ...versions,
      services: services.map((row) => serviceRecord(row, endpoints.get(row.id) ?? [], prices.get(row.id) ?? [])),
      organizations: await selectOrganizationRecords(tx),
      projects: await selectProjectRecords(tx),
      consumers: await selectConsumerRecords(tx),
      users: await selectUserRecords(tx),
      limitRules: await selectLimitRules(tx),
    }
  }, 'isolation level repeatable read read only')
}

/** Adds a service with its endpoints and its first price in one transaction. */
export async function insertService(sql: Sql, service: Omit<ServiceRecord, 'price' | 'createdAtMs'>): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`
      insert into services (id, name, version, description, status, default_max_output_tokens, routing,
        on_disconnect, drain_limit_ms, fallbacks, refuses_stream_options, json_pointers,
        cache_ttl_ms, cache_sharing)
      values (${service.id}, ${service.name}, ${service.version}, ${service.description}, ${service.status},
        ${service.defaultMaxOutputTokens}, ${service.routing}, ${service.onDisconnect},
        ${service.drainLimitMs ?? null}, ${tx.json(service.fallbacks)}, ${service.refusesStreamOptions},
        ${tx.json({ ...service.jsonPointers })},
        ${service.responseCache?.ttlMs ?? null}, ${service.responseCache?.sharing ?? 'organization'})`
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
    }))
    await tx`insert into endpoints ${tx(endpoints)}`
    for (const price of service.prices) await insertPrice(tx, service.id, price)
  })
}

interface ServiceRow {
  readonly id: string
  readonly name: string
  readonly version: string
  readonly description: string
  readonly status: ServiceStatus
  readonly default_max_output_tokens: number
  readonly routing: Routing
  readonly on_disconnect: DisconnectPolicy
  readonly drain_limit_ms: number | null
  readonly fallbacks: readonly FallbackRecord[]
  readonly refuses_stream_options: boolean
  readonly json_pointers: JsonPointers
  readonly cache_ttl_ms: number | null
  readonly cache_sharing: CacheSharing
  readonly created_at: Date
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
    status: row.status,
    endpoints: endpoints.map(endpointRecord),
    price: undefined,
    prices: prices.map(priceRecord),
    defaultMaxOutputTokens: row.default_max_output_tokens,
    routing: row.routing,
    onDisconnect: row.on_disconnect,
    drainLimitMs: row.drain_limit_ms ?? undefined,
    fallbacks: row.fallbacks,
    refusesStreamOptions: row.refuses_stream_options,
    jsonPointers: row.json_pointers,
    responseCache: row.cache_ttl_ms === null ? undefined : { ttlMs: row.cache_ttl_ms, sharing: row.cache_sharing },
    createdAtMs: row.created_at.getTime(),
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
  }
}
