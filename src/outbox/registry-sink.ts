import { fromJson } from '@bufbuild/protobuf'
import { type Service, ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { registrationOf } from '../registrations/registration.ts'
import { createRegistryClient, type RegistryClientOptions } from '../registrations/registry-client.ts'
import { RegistryError } from '../registrations/registry-error.ts'
import { tellRegistry } from '../registrations/tell-registry.ts'
import type { DomainEvent } from './domain-event.ts'
import { deliverInLanes } from './lanes.ts'
import type { Delivery, OutboxSink } from './outbox-sink.ts'

export interface RegistrySinkOptions extends RegistryClientOptions {
  /** Address of this gate, which stands for endpoints; undefined: none are told. */
  readonly gateUrl: string | undefined
}

const concurrency = 4

/**
 * Tells an outside LLM-Registry of each service: registers it as reference 004 §6.1 does, and replaces what is there after
 * each change of it, where the registry can. It begins with the oldest change that is kept, so that a registry that is set
 * later is told of what was registered before. Services that come from the registry are not told back.
 */
export function createRegistrySink({ gateUrl, ...options }: RegistrySinkOptions): OutboxSink {
  const client = createRegistryClient({ connections: concurrency, ...options })
  return {
    name: 'registry',
    beginsAt: 'oldest',
    deliver: (events, signal) =>
      deliverInLanes(events, concurrency, signal, async (event): Promise<Delivery> => {
        const service = toldService(event)
        if (service === undefined) return 'delivered'
        const { source } = event
        const registration = registrationOf(service, { source, gateUrl, tellsEndpoints: false })
        try {
          await tellRegistry(client, registration, { isNew: event.type === 'tollgate.service.registered' }, signal)
          return 'delivered'
        } catch (error) {
          // Given up by us: nobody knows whether it arrived, and it is no fault of the registry.
          if (!(error instanceof RegistryError)) return 'held_back'
          return { reason: error.message, isFinal: error.kind === 'refused', retryAfterMs: error.retryAfterMs }
        }
      }),
    close: client.close,
  }
}

/** The service that an event is about; undefined for one that a registry is not told. */
function toldService({ type, data }: DomainEvent): Service | undefined {
  if (!type.startsWith('tollgate.service.') || type === 'tollgate.service.documented') return undefined
  const service = fromJson(ServiceSchema, data.resource, { ignoreUnknownFields: true })
  return service.origin === undefined ? service : undefined
}
