import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import {
  type ConsumerSchema,
  type ConsumerService,
  ConsumerStatus,
  type LimitOverrides as LimitOverridesMessage,
  OrganizationSchema,
  Tier,
} from '../../gen/marketplace/v1/consumers_pb.ts'
import type { Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { consumerNotFound, organizationNotFound } from '../registry/not-found.ts'
import type { ConsumerStatus as ConsumerStatusName, LimitOverrides, Tier as TierName } from '../registry/records.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import { alreadyExists, storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import {
  type ConsumerRow,
  insertConsumer,
  insertOrganization,
  type OrganizationRow,
  selectConsumer,
  selectConsumers,
} from './identity-store.ts'
import { ownConsumer } from './own-consumer.ts'

export interface ConsumerServiceOptions {
  readonly sql: Sql
  /** UUIDv7, lower case. */
  readonly newId: () => string
  /** When given, a write answers only after this process's snapshot holds it. */
  readonly snapshots?: Pick<SnapshotSource, 'refresh'>
}

/** marketplace.v1.ConsumerService on Postgres. */
export function createConsumerService(options: ConsumerServiceOptions): Handlers<typeof ConsumerService.method> {
  const { sql, newId, snapshots } = options
  return {
    async createOrganization({ organization }, call) {
      const name = organization?.name ?? ''
      const add = async (tx: Transaction): Promise<OrganizationRow> => {
        const row = await insertOrganization(tx, { id: newId(), name })
        const after = resourceJson(OrganizationSchema, organizationMessage(row))
        await recordChange(tx, actorOf(call), {
          type: 'organization.created',
          id: row.id,
          organizationId: row.id,
          after,
        })
        return row
      }
      const row = await storing(() => sql.begin(add), {
        organizations_name_key: () => alreadyExists('organization.name', name),
      })
      return organizationMessage(row)
    },

    async createConsumer({ consumer }) {
      const { organizationId = '', name = '', grantedServices = [] } = consumer ?? {}
      if (!isUuid(organizationId.toLowerCase())) throw organizationNotFound(organizationId, 'consumer.organization_id')
      const row = {
        id: newId(),
        organization_id: organizationId,
        name,
        // The contract's rules let no undefined number get here.
        tier: tierNames[consumer?.tier ?? Tier.UNSPECIFIED] ?? 'basic',
        status: statusNames[consumer?.status ?? ConsumerStatus.UNSPECIFIED] ?? 'suspended',
        granted_services: grantedServices,
        overrides: overridesOf(consumer?.overrides),
      }
      const stored = await storing(() => insertConsumer(sql, row), {
        consumers_organization_id_fkey: () => organizationNotFound(organizationId, 'consumer.organization_id'),
        consumers_organization_id_name_key: () => alreadyExists('consumer.name', name, ' in the organization'),
      })
      await snapshots?.refresh()
      return consumerMessage(stored)
    },

    async getConsumer(request, call) {
      const id = ownConsumer(request.id, call.principal, 'id')
      const row = isUuid(id) ? await storing(() => selectConsumer(sql, id)) : undefined
      if (row === undefined) throw consumerNotFound(id, 'id')
      return consumerMessage(row)
    },

    async listConsumers(request) {
      const size = pageSizeOf(request.pageSize)
      const [afterId] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      const page = pageOf(await storing(() => selectConsumers(sql, afterId, size + 1)), size, (row) => [row.id])
      return { consumers: page.rows.map(consumerMessage), nextPageToken: page.nextPageToken }
    },
  }
}

const tierNames: Readonly<Record<Tier, TierName>> = {
  [Tier.UNSPECIFIED]: 'basic',
  [Tier.BASIC]: 'basic',
  [Tier.PREMIUM]: 'premium',
  [Tier.ENTERPRISE]: 'enterprise',
}

const tierValues: Readonly<Record<TierName, Tier>> = {
  basic: Tier.BASIC,
  premium: Tier.PREMIUM,
  enterprise: Tier.ENTERPRISE,
}

const statusNames: Readonly<Record<ConsumerStatus, ConsumerStatusName>> = {
  [ConsumerStatus.UNSPECIFIED]: 'active',
  [ConsumerStatus.ACTIVE]: 'active',
  [ConsumerStatus.SUSPENDED]: 'suspended',
  [ConsumerStatus.CLOSED]: 'closed',
}

const statusValues: Readonly<Record<ConsumerStatusName, ConsumerStatus>> = {
  active: ConsumerStatus.ACTIVE,
  suspended: ConsumerStatus.SUSPENDED,
  closed: ConsumerStatus.CLOSED,
}

function overridesOf(message: LimitOverridesMessage | undefined): LimitOverrides {
  return {
    ...(message?.requestsPerSecond !== undefined && { requestsPerSecond: Number(message.requestsPerSecond) }),
    ...(message?.requestBurst !== undefined && { requestBurst: Number(message.requestBurst) }),
    ...(message?.tokensPerMonth !== undefined && { tokensPerMonth: Number(message.tokensPerMonth) }),
  }
}

function overridesMessage(overrides: LimitOverrides): MessageInitShape<typeof ConsumerSchema>['overrides'] {
  if (Object.keys(overrides).length === 0) return undefined
  const { requestsPerSecond, requestBurst, tokensPerMonth } = overrides
  return {
    ...(requestsPerSecond !== undefined && { requestsPerSecond: BigInt(requestsPerSecond) }),
    ...(requestBurst !== undefined && { requestBurst: BigInt(requestBurst) }),
    ...(tokensPerMonth !== undefined && { tokensPerMonth: BigInt(tokensPerMonth) }),
  }
}

function organizationMessage(row: OrganizationRow): MessageInitShape<typeof OrganizationSchema> {
  return { id: row.id, name: row.name, createTime: timestampFromDate(row.created_at) }
}

function consumerMessage(row: ConsumerRow): MessageInitShape<typeof ConsumerSchema> {
  const overrides = overridesMessage(row.overrides)
  return {
    id: row.id,
    organizationId: row.organization_id,
    name: row.name,
    tier: tierValues[row.tier],
    status: statusValues[row.status],
    grantedServices: [...row.granted_services],
    ...(overrides !== undefined && { overrides }),
    createTime: timestampFromDate(row.created_at),
  }
}
