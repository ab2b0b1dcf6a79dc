import type { MessageInitShape } from '@bufbuild/protobuf'
import type { ServiceOriginSchema } from '../../gen/marketplace/v1/registry_pb.ts'

/** Where a service comes from that an outside registry states, and what of its state is the registry's doing. */
export interface ServiceOrigin {
  /** URL of the registry. */
  readonly registry: string
  /** What the registry calls the service. */
  readonly id: string
  readonly providerId: string
  /** Why the registry keeps it from taking calls; left out: it does not. What an operator suspended here is neither. */
  readonly hold?: 'suspended' | 'gone'
  /** Unix milliseconds since when the registry does not list it; left out while it does. */
  readonly goneSinceMs?: number
  /** The price that the registry stated last, as JSON; empty for none. */
  readonly price: string
}

/** An origin as callers see it. */
export function originMessage({
  registry,
  id,
  providerId,
}: ServiceOrigin): MessageInitShape<typeof ServiceOriginSchema> {
  return { registry, serviceId: id, providerId }
}
