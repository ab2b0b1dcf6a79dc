import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import { Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import {
  type ApiKey,
  ApiKeySchema,
  KeyEnvironment,
  type KeyScopes as KeyScopesMessage,
  KeyState,
} from '../../gen/marketplace/v1/keys_pb.ts'
import { etagOf } from '../etag.ts'
import type { KeyEnvironment as EnvironmentName } from './key-format.ts'
import { type KeyLife, type KeyState as StateName, stateOf } from './key-life.ts'
import type { ScopeLists } from './key-scopes.ts'
import type { KeyRow } from './key-store.ts'
import { tierMessage } from './tier-message.ts'

/** A key as callers see it at a moment. */
export function keyMessage(row: KeyRow, nowMs: number): ApiKey {
  const scopes = scopesOfRow(row)
  const isNarrowed = scopes.services.length + scopes.permissions.length + scopes.models.length > 0
  const init: MessageInitShape<typeof ApiKeySchema> = {
    id: row.id,
    consumerId: row.consumer_id,
    name: row.name,
    createTime: timestampFromDate(row.created_at),
    ...(row.expires_at !== null && { expireTime: timestampFromDate(row.expires_at) }),
    ...(row.revoked_at !== null && { revokeTime: timestampFromDate(row.revoked_at) }),
    environment: environmentValues[row.environment],
    metadata: { ...row.metadata },
    ...(isNarrowed && { scopes: listsMessage(scopes) }),
    tier: row.tier === null ? Tier.UNSPECIFIED : tierMessage(row.tier),
    tierReplaces: row.tier_replaces,
    state: stateValues[stateOf(lifeOf(row), nowMs)],
    ...(row.used_at !== null && { lastUseTime: timestampFromDate(row.used_at) }),
    lastUseAddress: row.used_address ?? '',
    rotatedFrom: row.rotated_from ?? '',
    rotatedTo: row.rotated_to ?? '',
    madeWith: row.made_with ?? '',
    etag: etagOf(row.revision),
  }
  return create(ApiKeySchema, init)
}

/** What decides whether a key is good. */
export function lifeOf(row: KeyRow): KeyLife {
  return {
    id: row.id,
    expiresAtMs: row.expires_at?.getTime(),
    revokedAtMs: row.revoked_at?.getTime(),
    successor: row.rotated_to ?? undefined,
  }
}

export function scopesOfRow(row: Pick<KeyRow, 'scope_services' | 'scope_permissions' | 'scope_models'>): ScopeLists {
  return { services: row.scope_services, permissions: row.scope_permissions, models: row.scope_models }
}

/** Unset is not narrowed. */
export function scopesOf(message: KeyScopesMessage | undefined): ScopeLists {
  const { services = [], permissions = [], models = [] } = message ?? {}
  return { services, permissions, models }
}

/** Live for the unspecified one. */
export function environmentOf(environment: KeyEnvironment): EnvironmentName {
  return environment === KeyEnvironment.TEST ? 'test' : 'live'
}

const environmentValues: Readonly<Record<EnvironmentName, KeyEnvironment>> = {
  live: KeyEnvironment.LIVE,
  test: KeyEnvironment.TEST,
}

const stateValues: Readonly<Record<StateName, KeyState>> = {
  active: KeyState.ACTIVE,
  expired: KeyState.EXPIRED,
  revoked: KeyState.REVOKED,
}

function listsMessage({ services, permissions, models }: ScopeLists): MessageInitShape<typeof ApiKeySchema>['scopes'] {
  return { services: [...services], permissions: [...permissions], models: [...models] }
}
