import {
  create,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type MessageShape,
} from '@bufbuild/protobuf'
import { timestampMs } from '@bufbuild/protobuf/wkt'
import { type Service, ServiceSchema, ServiceStatus } from '../../gen/marketplace/v1/registry_pb.ts'
import { CapabilitiesSchema } from '../../gen/marketplace/v1/service_profile_pb.ts'
import { TollgateError } from '../errors.ts'
import type { FieldRules } from '../field-rules.ts'
import type { StatedLife } from '../registry/lifecycle-steps.ts'
import { invalid } from '../registry/price-message.ts'
import { statusName } from '../registry/service-message.ts'

/** A registration as JSON, of a request or of a registry's answer. */
export interface RegistrationJson {
  readonly name: string
  readonly version: string
  readonly capabilities: readonly { readonly name: string; readonly value: JsonValue }[]
  readonly metadata: JsonObject
}

/** What a registration says. */
export interface ReadRegistration {
  /** Without an owner, ids and a status other than a first one; its fields keep the rules of the contract. */
  readonly service: Service
  readonly life: StatedLife
  readonly source: string
  readonly serviceId: string
  readonly revision: string
  /** True when the registry that tells it has it from another one. */
  readonly isSecondHand: boolean
}

/** As long as the RPCs that say why take it. */
const longestText = 1_024

/** Fields of Service that metadata may state, by their names in the proto. */
const statedFields = [
  'description',
  'status_reason',
  'deprecation',
  'category',
  'tags',
  'labels',
  'owner',
  'documentation_url',
  'endpoints',
  'pricing',
  'service_level',
  'compliance',
  'refuses_stream_options',
  'json_pointers',
] as const

/**
 * Reads a registration; `rules` hold those of Service. What metadata says beyond what a service has is passed over; where it
 * says nothing of endpoints, `known` ones stand. Throws INVALID_ARGUMENT, naming fields in the words of the registration, such
 * as "metadata.endpoints[0].url".
 */
export function readRegistration(
  json: RegistrationJson,
  rules: FieldRules,
  known: Service['endpoints'] = [],
): ReadRegistration {
  const { metadata } = json
  const status = statusOf(metadata.status)
  const stated = fieldByField(ServiceSchema, statedIn(metadata), 'metadata')
  const service = create(ServiceSchema, {
    ...stated,
    name: json.name,
    version: json.version,
    capabilities: capabilitiesOf(json.capabilities),
    status: status === 'pending_approval' ? ServiceStatus.PENDING_APPROVAL : ServiceStatus.ACTIVE,
  })
  if (service.owner !== undefined) service.owner.organizationId = ''
  if (service.endpoints.length === 0) service.endpoints = known
  inWordsOfRegistrations(() => rules.check(ServiceSchema, service, 'service'))
  const { deprecation } = service
  const sunset = deprecation?.sunsetTime
  const origin = metadata.origin
  return {
    service: { ...service, statusReason: '', deprecation: undefined },
    life: {
      status,
      reason: service.statusReason.slice(0, longestText) || defaultReason(status),
      deprecation: deprecation && {
        sunsetAtMs: sunset && timestampMs(sunset),
        message: deprecation.message.slice(0, longestText),
        successor: deprecation.successor,
      },
    },
    source: textOf(metadata.source),
    serviceId: textOf(metadata.service_id),
    revision: textOf(metadata.revision),
    isSecondHand: origin !== undefined && origin !== null,
  }
}

/** Runs what refuses fields of a service, and refuses them by the names that they have in a registration. */
export function inWordsOfRegistrations<T>(run: () => T): T {
  try {
    return run()
  } catch (error) {
    throw inWords(error)
  }
}

/** An error about fields of a service as one about fields of its registration; every other one as it is. */
export function inWords(error: unknown): unknown {
  if (!(error instanceof TollgateError)) return error
  const { reason, message, metadata, fields, retryAfterMs } = error
  const { field } = metadata
  return new TollgateError(reason, renamed(message), {
    metadata: field === undefined ? metadata : { ...metadata, field: renamed(field) },
    fields: fields.map((each) => ({ ...each, field: renamed(each.field) })),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    cause: error,
  })
}

function renamed(text: string): string {
  return text
    .replaceAll(/\bservice\.(name|version|capabilities)\b/g, '$1')
    .replaceAll(/\bservice\.(?=[a-z_]+)/g, 'metadata.')
}

function statedIn(metadata: JsonObject): JsonObject {
  const { endpoint } = metadata
  const stated = statedFields.flatMap((name) => {
    const value = metadata[name]
    return value === undefined || value === null ? [] : [[name, value] as const]
  })
  const single = typeof endpoint === 'string' ? [['endpoints', [{ url: endpoint }]] as const] : []
  return Object.fromEntries([...single, ...stated])
}

/** Capabilities by name; one without a value is there. Those that nobody here knows are passed over. */
function capabilitiesOf(list: RegistrationJson['capabilities']): MessageShape<typeof CapabilitiesSchema> {
  const known = Object.fromEntries(list.map(({ name, value }) => [name, value ?? true]))
  return fieldByField(CapabilitiesSchema, known, 'capabilities')
}

/** A message of JSON, decoded field by field, so that the one at fault can be named. */
function fieldByField<D extends DescMessage>(schema: D, json: JsonObject, within: string): MessageShape<D> {
  for (const [name, value] of Object.entries(json)) {
    try {
      fromJson(schema, { [name]: value }, { ignoreUnknownFields: true })
    } catch {
      throw invalid(`${within}.${name}`, 'is not of the form that it has in marketplace.v1', 'form')
    }
  }
  return fromJson(schema, json, { ignoreUnknownFields: true })
}

/** Callers of a service that takes no calls for now are told why. */
function defaultReason(status: StatedLife['status']): string {
  return status === 'suspended' || status === 'pending_approval' ? `is ${status} where it is registered` : ''
}

/** A status by its name in the contract, or in reference 004's table of services; active without one. */
function statusOf(value: JsonValue | undefined): StatedLife['status'] {
  if (value === undefined || value === null || value === '') return 'active'
  const name = typeof value === 'string' ? statusName(value) : undefined
  if (name === undefined) throw invalid('metadata.status', 'must be a status of a service, such as "active"', 'status')
  return name
}

function textOf(value: JsonValue | undefined): string {
  return typeof value === 'string' ? value.slice(0, 256) : ''
}
