import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import { Role, type UserSchema, UserStatus } from '../../gen/marketplace/v1/users_pb.ts'
import { etagOf } from '../etag.ts'
import { isRole, type Role as RoleName } from './principal.ts'
import type { Standing } from './standing.ts'
import type { UserRow } from './user-store.ts'

/** A user as the contract has it. */
export function userMessage(row: UserRow): MessageInitShape<typeof UserSchema> {
  return {
    id: row.id,
    organizationId: row.organization_id ?? '',
    issuer: row.issuer,
    subject: row.subject,
    displayName: row.display_name,
    email: row.email,
    status: statusValues[row.status],
    roles: row.roles.filter(isRole).map((role) => roleValues[role]),
    consumerId: row.consumer_id ?? '',
    createTime: timestampFromDate(row.created_at),
    etag: etagOf(row.revision),
  }
}

/** The name of a status; undefined when none is stated. */
export function userStatusOf(status: UserStatus): Standing | undefined {
  return statusNames.find((name) => statusValues[name] === status)
}

/** The names of roles; the contract's rules let no other number get here. */
export function rolesOf(values: readonly Role[]): RoleName[] {
  return Object.keys(roleValues)
    .filter(isRole)
    .filter((name) => values.includes(roleValues[name]))
}

const statusNames: readonly Standing[] = ['active', 'suspended', 'closed']

const statusValues: Readonly<Record<Standing, UserStatus>> = {
  active: UserStatus.ACTIVE,
  suspended: UserStatus.SUSPENDED,
  closed: UserStatus.CLOSED,
}

const roleValues: Readonly<Record<RoleName, Role>> = {
  admin: Role.ADMIN,
  operator: Role.OPERATOR,
  publisher: Role.PUBLISHER,
  org_admin: Role.ORG_ADMIN,
  finance: Role.FINANCE,
  auditor: Role.AUDITOR,
  gateway: Role.GATEWAY,
  consumer: Role.CONSUMER,
}
