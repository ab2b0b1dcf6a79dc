import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import {
  type ConsumerSchema,
  ConsumerStatus,
  type LimitOverrides as LimitOverridesMessage,
} from '../../gen/marketplace/v1/consumers_pb.ts'
import { etagOf } from '../etag.ts'
import { classificationMessage, classificationOf } from '../registry/classification.ts'
import type { LimitOverrides } from '../registry/records.ts'
import type { ConsumerRow, NewConsumerRow } from './consumer-store.ts'
import type { OrganizationRow } from './organization-store.ts'
import type { Standing } from './standing.ts'
import { tierMessage, tierOf } from './tier-message.ts'

/** A consumer as the contract has it. */
export function consumerMessage(row: ConsumerRow): MessageInitShape<typeof ConsumerSchema> {
  const overrides = overridesMessage(row.overrides)
  return {
    id: row.id,
    organizationId: row.organization_id,
    projectId: row.project_id ?? '',
    name: row.name,
    tier: tierMessage(row.tier),
    status: values[row.status],
    grantedServices: [...row.granted_services],
    ...(overrides !== undefined && { overrides }),
    clearance: classificationMessage(row.clearance ?? undefined),
    homeRegion: row.home_region,
    createTime: timestampFromDate(row.created_at),
    etag: etagOf(row.revision),
  }
}

/** What a caller states of a consumer, with the defaults of what it does not. */
export function consumerRow(
  message: MessageShape<typeof ConsumerSchema>,
  id: string,
  organization: Pick<OrganizationRow, 'id' | 'tier'>,
): NewConsumerRow {
  return {
    id,
    organization_id: organization.id,
    project_id: message.projectId === '' ? null : message.projectId,
    name: message.name,
    tier: tierOf(message.tier) ?? organization.tier,
    status: consumerStatusOf(message.status) ?? 'active',
    granted_services: message.grantedServices,
    overrides: overridesOf(message.overrides),
    clearance: classificationOf(message.clearance) ?? null,
    home_region: message.homeRegion,
  }
}

/** The name of a status; undefined when none is stated. */
export function consumerStatusOf(status: ConsumerStatus): Standing | undefined {
  return names.find((name) => values[name] === status)
}

const names: readonly Standing[] = ['active', 'suspended', 'closed']

const values: Readonly<Record<Standing, ConsumerStatus>> = {
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
