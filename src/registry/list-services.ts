import type { ListServicesRequest } from '../../gen/marketplace/v1/registry_pb.ts'
import { Capability } from '../../gen/marketplace/v1/service_profile_pb.ts'
import { type Page, pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import type { ServiceRecord } from './records.ts'
import { statusMessage } from './service-message.ts'
import type { Capabilities } from './service-profile.ts'

/**
 * The page of services that a request asks for. A page token holds the order, and where the page before ended in it: by values
 * that never change, so that no change of a service moves it to another page. Throws INVALID_ARGUMENT for a token of
 * another order.
 */
export function listServices(services: Iterable<ServiceRecord>, request: ListServicesRequest): Page<ServiceRecord> {
  const order = request.orderBy === '' ? 'id' : request.orderBy
  const [field = 'id', direction] = order.split(' ')
  const sign = direction === 'desc' ? -1 : 1
  const keyOf = keys[field] ?? byId
  const compare = (a: readonly string[], b: readonly string[]): number => {
    const [first, second] = [compareTexts(a[0], b[0]), compareTexts(a[1], b[1])]
    return sign * (first === 0 ? second : first)
  }
  const token = parsePageToken(request.pageToken, 3, (part, index) => index > 0 || part === order)
  const after = token?.slice(1)
  const found = [...services]
    .filter((service) => fulfils(service, request))
    .map((service) => ({ service, key: [keyOf(service), service.id] }))
    .filter(({ key }) => after === undefined || compare(key, after) > 0)
    .sort((a, b) => compare(a.key, b.key))
  const page = pageOf(found, pageSizeOf(request.pageSize), ({ key }) => [order, ...key])
  return { rows: page.rows.map(({ service }) => service), nextPageToken: page.nextPageToken }
}

function fulfils(service: ServiceRecord, request: ListServicesRequest): boolean {
  const { name, statuses, category, tags, organizationId, capabilities } = request
  const { profile } = service
  return (
    (name === '' || service.name === name) &&
    (statuses.length === 0 || statuses.includes(statusMessage(service.status))) &&
    (category === '' || profile.category === category) &&
    tags.every((tag) => profile.tags.includes(tag)) &&
    (organizationId === '' || service.organizationId === organizationId) &&
    // The contract's rules let no undefined number get here.
    capabilities.every((capability) => can[capability]?.(profile.capabilities) ?? false)
  )
}

const can: Readonly<Record<Capability, (capabilities: Capabilities) => boolean>> = {
  [Capability.UNSPECIFIED]: () => true,
  [Capability.STREAMING]: ({ streaming }) => streaming,
  [Capability.TOOLS]: ({ tools }) => tools,
  [Capability.VISION]: ({ vision }) => vision,
  [Capability.EMBEDDINGS]: ({ embeddings }) => embeddings,
}

/** What services are ordered by, as texts that sort so. */
const keys: Readonly<Record<string, (service: ServiceRecord) => string>> = {
  name: ({ name }) => name,
  create_time: ({ createdAtMs }) => String(createdAtMs).padStart(16, '0'),
}

function byId({ id }: ServiceRecord): string {
  return id
}

function compareTexts(a = '', b = ''): number {
  return a < b ? -1 : a > b ? 1 : 0
}
