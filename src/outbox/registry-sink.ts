import { enumToJson, fromJson, toJson } from '@bufbuild/protobuf'
import { type Service, ServiceSchema, ServiceStatusSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { CapabilitiesSchema } from '../../gen/marketplace/v1/service_profile_pb.ts'
import type { DomainEvent } from './domain-event.ts'
import { deliverInLanes } from './lanes.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { createPoster } from './poster.ts'

export interface RegistrySinkOptions {
  /** Base of the registry's routes. */
  readonly url: string
  readonly apiKey: string
  /** Longest wait for an answer, in milliseconds; default 10 000. */
  readonly timeoutMs?: number
  /** Requests at once; default 4. */
  readonly concurrency?: number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
}

/** What an outside registry is told of a service: reference 004, §6.1, "ServiceRegistration". */
export interface ServiceRegistration {
  readonly name: string
  readonly version: string
  readonly provider_id: string
  readonly capabilities: readonly { readonly name: string; readonly value: unknown }[]
  readonly metadata: Readonly<Record<string, unknown>>
}

/**
 * Registers each service at an outside LLM-Registry, as reference 004 §6.1 does: once, when it comes. A registry that has the
 * name and version already answers 409, which is a receipt. It begins with the oldest change that is kept, so that a registry
 * that is set later is told of what was registered before.
 */
export function createRegistrySink(options: RegistrySinkOptions): OutboxSink {
  const { url, apiKey, timeoutMs = 10_000, concurrency = 4, now = Date.now } = options
  const target = `${url.replace(/\/+$/, '')}/api/v1/services`
  const poster = createPoster({ url: target, timeoutMs, concurrency, receipts: [409], now })
  const headers = { 'content-type': 'application/json', 'x-api-key': apiKey }
  return {
    name: 'registry',
    beginsAt: 'oldest',
    deliver: (events, signal) =>
      deliverInLanes(events, concurrency, signal, async (event) => {
        const registration = registrationOf(event)
        return registration === undefined
          ? 'delivered'
          : await poster.post(headers, JSON.stringify(registration), signal)
      }),
    close: poster.close,
  }
}

/** Undefined for what is no registration of a service. Where endpoints are, and what opens them, is not told. */
export function registrationOf({ type, source, data }: DomainEvent): ServiceRegistration | undefined {
  if (type !== 'tollgate.service.registered') return undefined
  const service = fromJson(ServiceSchema, data.resource, { ignoreUnknownFields: true })
  return {
    name: service.name,
    version: service.version,
    provider_id: service.owner?.organizationId || source,
    capabilities: capabilitiesOf(service),
    metadata: {
      source,
      service_id: service.id,
      description: service.description,
      status: enumToJson(ServiceStatusSchema, service.status),
      category: service.category,
      tags: service.tags,
      documentation_url: service.documentationUrl,
    },
  }
}

/** Those that are stated. */
function capabilitiesOf({ capabilities }: Service): ServiceRegistration['capabilities'] {
  if (capabilities === undefined) return []
  const stated = toJson(CapabilitiesSchema, capabilities)
  return Object.entries(Object(stated)).map(([name, value]) => ({ name, value }))
}
