import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  EndpointState_Breaker as Breaker,
  EndpointState_Health as Health,
} from '../../gen/marketplace/v1/endpoint_health_pb.ts'
import type { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Handlers } from '../call.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { durationOf } from './endpoint-message.ts'
import type { EndpointRecord, ServiceRecord } from './records.ts'
import { mayChange } from './service-access.ts'
import type { ServiceLookup } from './service-lookup.ts'
import type { SnapshotSource } from './snapshot.ts'

/** What this replica knows of an endpoint. */
export interface EndpointStanding {
  readonly breaker: 'closed' | 'half_open' | 'open'
  /** Undefined without a check. */
  readonly health: StandingHealth | undefined
  readonly inFlight: number
  readonly latencyMs: number | undefined
  readonly isResting: boolean
}

export interface StandingHealth {
  readonly isSick: boolean
  /** Unix milliseconds. */
  readonly sinceMs: number
  readonly checkedAtMs: number
  readonly failure: string | undefined
}

export interface EndpointStateHandlersOptions {
  readonly snapshots: Pick<SnapshotSource, 'current'>
  readonly serviceOf: ServiceLookup
  readonly standingOf: (endpointId: string) => EndpointStanding
  /** Name of this replica. */
  readonly replica: string
}

/** The RPC of marketplace.v1.Registry that says what this replica knows of endpoints. */
export function createEndpointStateHandlers(
  options: EndpointStateHandlersOptions,
): Pick<Handlers<typeof Registry.method>, 'listEndpointStates'> {
  const { snapshots, serviceOf, standingOf, replica } = options
  return {
    async listEndpointStates({ serviceId, pageSize, pageToken }, { principal }) {
      const services =
        serviceId === '' ? [...snapshots.current().servicesById.values()] : [await serviceOf(serviceId, 'service_id')]
      const reached = services.filter((service) => mayChange(principal, service.organizationId))
      const [afterService = '', afterPosition = ''] = parsePageToken(pageToken, 2, () => true) ?? []
      const rest = reached.flatMap((service) => {
        return service.endpoints.flatMap((endpoint, index) => {
          const position = String(index).padStart(4, '0')
          const isAfter = service.id > afterService || (service.id === afterService && position > afterPosition)
          return isAfter ? [{ service, endpoint, key: [service.id, position] }] : []
        })
      })
      const page = pageOf(rest, pageSizeOf(pageSize), ({ key }) => key)
      const endpointStates = page.rows.map(({ service, endpoint }) =>
        stateMessage(service, endpoint, standingOf(endpoint.id)),
      )
      return { endpointStates, nextPageToken: page.nextPageToken, replica }
    },
  }
}

function stateMessage(service: ServiceRecord, endpoint: EndpointRecord, standing: EndpointStanding) {
  const { breaker, health, inFlight, latencyMs, isResting } = standing
  return {
    serviceId: service.id,
    serviceName: service.name,
    serviceVersion: service.version,
    endpointId: endpoint.id,
    url: endpoint.url,
    breaker: breakers[breaker],
    ...(health !== undefined && {
      health: health.isSick ? Health.SICK : Health.WELL,
      healthTime: timestampFromMs(health.sinceMs),
      checkTime: timestampFromMs(health.checkedAtMs),
      checkFailure: health.failure ?? '',
    }),
    inFlight,
    ...(latencyMs !== undefined && { latency: durationOf(Math.round(latencyMs)) }),
    resting: isResting,
  }
}

const breakers: Readonly<Record<EndpointStanding['breaker'], Breaker>> = {
  closed: Breaker.CLOSED,
  half_open: Breaker.HALF_OPEN,
  open: Breaker.OPEN,
}
