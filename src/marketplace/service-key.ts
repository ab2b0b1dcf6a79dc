import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { type ApiKey, type CreateKeyRequest, CreateKeyRequestSchema } from '../../gen/marketplace/v1/keys_pb.ts'
import type {
  CreateServiceKeyRequest,
  CreateServiceKeyResponseSchema,
  ServiceKeySchema,
} from '../../gen/marketplace/v1/marketplace_api_pb.ts'
import { tierMessage, tierOf, tiers } from '../identity/tier-message.ts'

/** The key that a request of reference 001 means: one service is a scope of one. */
export function keyRequest(request: CreateServiceKeyRequest): CreateKeyRequest {
  const { serviceId, consumerId, expiresInDays } = request
  const tier = tiers.find((name) => name === request.tier)
  return create(CreateKeyRequestSchema, {
    consumerId,
    expiresInDays,
    tier: tier === undefined ? Tier.UNSPECIFIED : tierMessage(tier),
    ...(serviceId !== '' && { scopes: { services: [serviceId] } }),
  })
}

export function newKeyMessage(apiKey: ApiKey, key: string): MessageInitShape<typeof CreateServiceKeyResponseSchema> {
  const { id, serviceId, tier, createdAt, expiresAt } = factsOf(apiKey)
  return { id, key, serviceId, tier, ...(createdAt && { createdAt }), ...(expiresAt && { expiresAt }) }
}

export function serviceKeyMessage(apiKey: ApiKey): MessageInitShape<typeof ServiceKeySchema> {
  const { id, serviceId, tier, createdAt, expiresAt, revokedAt } = factsOf(apiKey)
  return {
    id,
    serviceId,
    tier,
    ...(createdAt && { createdAt }),
    ...(expiresAt && { expiresAt }),
    ...(revokedAt && { revokedAt }),
  }
}

function factsOf({ id, scopes, tier, createTime, expireTime, revokeTime }: ApiKey) {
  const [service = '', ...others] = scopes?.services ?? []
  return {
    id,
    serviceId: others.length === 0 ? service : '',
    tier: tierOf(tier) ?? '',
    createdAt: createTime,
    expiresAt: expireTime,
    revokedAt: revokeTime,
  }
}
