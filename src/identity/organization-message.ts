import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import { type OrganizationSchema, OrganizationStatus } from '../../gen/marketplace/v1/consumers_pb.ts'
import { etagOf } from '../etag.ts'
import { classificationMessage, classificationOf } from '../registry/classification.ts'
import type { NewOrganizationRow, OrganizationRow } from './organization-store.ts'
import type { Standing } from './standing.ts'
import { tierMessage, tierOf } from './tier-message.ts'

/** An organization as the contract has it. */
export function organizationMessage(row: OrganizationRow): MessageInitShape<typeof OrganizationSchema> {
  return {
    id: row.id,
    name: row.name,
    createTime: timestampFromDate(row.created_at),
    status: values[row.status],
    tier: tierMessage(row.tier),
    clearance: classificationMessage(row.clearance),
    homeRegion: row.home_region,
    grantedServices: [...row.granted_services],
    etag: etagOf(row.revision),
  }
}

/** What a caller states of an organization, with the defaults of what it does not. */
export function organizationRow(message: MessageShape<typeof OrganizationSchema>, id: string): NewOrganizationRow {
  return {
    id,
    name: message.name,
    status: organizationStatusOf(message.status) ?? 'active',
    tier: tierOf(message.tier) ?? 'basic',
    clearance: classificationOf(message.clearance) ?? 'internal',
    home_region: message.homeRegion,
    granted_services: message.grantedServices,
  }
}

/** The name of a status; undefined when none is stated. */
export function organizationStatusOf(status: OrganizationStatus): Standing | undefined {
  return names.find((name) => values[name] === status)
}

const names: readonly Standing[] = ['active', 'suspended', 'closed']

const values: Readonly<Record<Standing, OrganizationStatus>> = {
  active: OrganizationStatus.ACTIVE,
  suspended: OrganizationStatus.SUSPENDED,
  closed: OrganizationStatus.CLOSED,
}
