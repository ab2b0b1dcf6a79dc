import type { MessageInitShape } from '@bufbuild/protobuf'
import { ConsumerService, Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { type PricingSchema, Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Tollgate } from './tollgate.ts'

/** A service, and a consumer with a key that is granted it alone. */
export interface Tenant {
  readonly organizationId: string
  readonly serviceId: string
  readonly consumerId: string
  readonly endpointId: string
  readonly key: string
}

/**
 * Makes a tenant as an administrator would; requests cost a thousandth of a dollar by default, "unpriced" ones have no
 * price. Names must differ.
 */
export async function makeTenant(
  tollgate: Tollgate,
  adminKey: string,
  name: string,
  backendUrl: string,
  overrides: { requestsPerSecond?: bigint; requestBurst?: bigint; tokensPerMonth?: bigint } = {},
  model: MessageInitShape<typeof PricingSchema>['model'] | 'unpriced' = {
    case: 'perRequest',
    value: { requestNanos: 1_000_000n },
  },
): Promise<Tenant> {
  const service = await tollgate.client(Registry, adminKey).registerService({
    service: {
      name,
      version: '1.0.0',
      endpoints: [{ url: backendUrl }],
      ...(model === 'unpriced' ? {} : { pricing: { currency: 'USD', model } }),
    },
  })
  const consumers = tollgate.client(ConsumerService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name } })
  const consumer = await consumers.createConsumer({
    consumer: { name, organizationId, tier: Tier.PREMIUM, grantedServices: [service.id], overrides },
  })
  const { key } = await tollgate.client(KeyService, adminKey).createKey({ consumerId: consumer.id })
  const endpointId = service.endpoints[0]?.id ?? ''
  return { organizationId, serviceId: service.id, consumerId: consumer.id, endpointId, key }
}
