/**
 * A service in the words of reference 004 §6.1, "ServiceRegistration". What the reference does not name stands in the metadata,
 * by the names that the fields of marketplace.v1.Service have in the proto: an LLM-Registry keeps it without knowing it, and a
 * Tollgate understands it.
 */
import { create, enumToJson, type JsonObject, type JsonValue, toJson } from '@bufbuild/protobuf'
import {
  Endpoint_Protocol,
  EndpointSchema,
  type Service,
  ServiceSchema,
  ServiceStatusSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { CapabilitiesSchema } from '../../gen/marketplace/v1/service_profile_pb.ts'
import { isObject } from '../is-object.ts'
import { noteLabels, notesOf } from './registration-notes.ts'

/** What a registry is told of a service. */
export interface ServiceRegistration {
  readonly name: string
  readonly version: string
  readonly provider_id: string
  readonly capabilities: readonly { readonly name: string; readonly value: JsonValue }[]
  readonly metadata: JsonObject
}

/** Who tells of services, and what of their endpoints. */
export interface Teller {
  /** Names this installation. */
  readonly source: string
  /** Address of this gate: what is told in place of endpoints; undefined: nothing is. */
  readonly gateUrl: string | undefined
  /** Whether endpoints are told as they are. What opens them never is. */
  readonly tellsEndpoints: boolean
}

/** A service as a registry is told of it. What it is where it was registered first stays in it. */
export function registrationOf(service: Service, teller: Teller): ServiceRegistration {
  const notes = notesOf(service.labels)
  const { origin } = service
  return {
    name: service.name,
    version: service.version,
    provider_id: notes.providerId || origin?.providerId || service.owner?.organizationId || teller.source,
    capabilities: capabilitiesOf(service),
    metadata: {
      source: notes.source || origin?.registry || teller.source,
      service_id: notes.serviceId || origin?.serviceId || service.id,
      revision: notes.revision || revisionOf(service),
      description: service.description,
      status: enumToJson(ServiceStatusSchema, service.status),
      category: service.category,
      tags: service.tags,
      documentation_url: service.documentationUrl,
      ...restOf(service, teller),
      ...(origin !== undefined && { origin: { registry: origin.registry, service_id: origin.serviceId } }),
    },
  }
}

/** Moves with every change of what is told of a service. */
export function revisionOf({ etag, pricing }: Service): string {
  return pricing === undefined ? etag : `${etag}/${pricing.version}`
}

/** Those that are stated. */
function capabilitiesOf({ capabilities }: Service): ServiceRegistration['capabilities'] {
  if (capabilities === undefined) return []
  const stated = toJson(CapabilitiesSchema, capabilities, { useProtoFieldName: true })
  return isObject(stated) ? Object.entries(stated).map(([name, value]) => ({ name, value })) : []
}

/** What is stated beyond what every registration has. */
function restOf(service: Service, teller: Teller): JsonObject {
  const { owner, pricing, deprecation, serviceLevel, compliance, jsonPointers } = service
  const rest = create(ServiceSchema, {
    endpoints: endpointsTold(service, teller),
    statusReason: service.statusReason,
    refusesStreamOptions: service.refusesStreamOptions,
    labels: noteLabels.without(service.labels),
    ...(owner !== undefined && owner.contact !== '' && { owner: { contact: owner.contact } }),
    ...(pricing !== undefined && { pricing }),
    ...(deprecation !== undefined && { deprecation }),
    ...(serviceLevel !== undefined && { serviceLevel }),
    ...(compliance !== undefined && { compliance }),
    ...(jsonPointers !== undefined && { jsonPointers }),
  })
  const json = toJson(ServiceSchema, rest, { useProtoFieldName: true })
  return isObject(json) ? json : {}
}

function endpointsTold({ id, endpoints }: Service, { gateUrl, tellsEndpoints }: Teller): Service['endpoints'] {
  if (tellsEndpoints) return endpoints.map((endpoint) => ({ ...endpoint, id: '', credentialRef: '' }))
  if (gateUrl === undefined) return []
  return [create(EndpointSchema, { url: gateUrl, protocol: Endpoint_Protocol.GRPC, model: id })]
}
