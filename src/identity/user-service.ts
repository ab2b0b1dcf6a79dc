import { create } from '@bufbuild/protobuf'
import { UserSchema, type UserService } from '../../gen/marketplace/v1/users_pb.ts'
import type { Handlers } from '../call.ts'
import { checkEtag, etagOf } from '../etag.ts'
import { compileFieldRules } from '../field-rules.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { consumerNotFound, organizationNotFound, userNotFound } from '../registry/not-found.ts'
import { alreadyExists, type ConstraintErrors, storing } from '../storage/constraint-error.ts'
import type { Transaction } from '../storage/postgres.ts'
import { askedChange } from './asked-change.ts'
import { confinedOrganization, reachable } from './confine.ts'
import { checkGrant, checkRolesReach } from './grant-roles.ts'
import { isRole, type Owner } from './principal.ts'
import { recordResource } from './record-resource.ts'
import type { IdentityServiceOptions } from './service-options.ts'
import { nextStanding } from './standing.ts'
import { rolesOf, userMessage, userStatusOf } from './user-message.ts'
import { insertUser, lockUser, selectUser, selectUsers, type UserRow, updateUser } from './user-store.ts'

/** marketplace.v1.UserService on Postgres. Whoever reaches one organization adds, sees and changes its users only. */
export function createUserService(options: IdentityServiceOptions): Handlers<typeof UserService.method> {
  const { sql, newId, snapshots } = options
  const rules = { schema: UserSchema, mask: maskRules, fields: compileFieldRules([UserSchema]) }
  return {
    async createUser({ user = create(UserSchema) }, call) {
      const organizationId = confinedOrganization(call.principal, 'users.write', user.organizationId)
      const row = {
        id: newId(),
        organization_id: organizationId ?? null,
        issuer: user.issuer,
        subject: user.subject,
        display_name: user.displayName,
        email: user.email,
        status: userStatusOf(user.status) ?? 'active',
        roles: rolesOf(user.roles),
        consumer_id: user.consumerId === '' ? null : user.consumerId,
      }
      checkIds(row)
      checkRolesReach(row.roles, { organizationId, consumerId: row.consumer_id ?? undefined })
      checkGrant(call.principal, row.roles)
      const add = async (tx: Transaction): Promise<UserRow> => {
        const added = await insertUser(tx, row)
        const change = { id: row.id, organizationId: organizationId ?? '', schema: UserSchema }
        await recordResource(tx, call, { type: 'user.created', ...change, after: userMessage(added) })
        return added
      }
      const stored = await storing(() => sql.begin(add), brokenBy(row))
      await snapshots?.refresh()
      return userMessage(stored)
    },

    async getUser({ id }, call) {
      const row = isUuid(id) ? await storing(() => selectUser(sql, id)) : undefined
      return userMessage(reachable(call.principal, 'users.read', row, ownerOf, () => userNotFound(id, 'id')))
    },

    async listUsers(request, call) {
      const organizationId = confinedOrganization(call.principal, 'users.read', request.organizationId)
      if (organizationId !== undefined && !isUuid(organizationId)) {
        throw organizationNotFound(organizationId, 'organization_id')
      }
      const { issuer, subject } = request
      const filter = { organizationId, status: userStatusOf(request.status), issuer, subject }
      const size = pageSizeOf(request.pageSize)
      const [afterId] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      const page = pageOf(await storing(() => selectUsers(sql, filter, afterId, size + 1)), size, (row) => [row.id])
      return { users: page.rows.map(userMessage), nextPageToken: page.nextPageToken }
    },

    async updateUser({ user = create(UserSchema), updateMask: mask, reason }, call) {
      const { id } = user
      const change = async (tx: Transaction): Promise<UserRow> => {
        const found = isUuid(id) ? await lockUser(tx, id) : undefined
        const row = reachable(call.principal, 'users.write', found, ownerOf, () => userNotFound(id, 'user.id'))
        checkEtag(user.etag, etagOf(row.revision), 'user.etag')
        const before = create(UserSchema, userMessage(row))
        const wanted = askedChange(rules, { current: before, wanted: user, mask, field: 'user' })
        if (wanted === undefined) return row
        const next = {
          ...row,
          display_name: wanted.displayName,
          email: wanted.email,
          status: nextStanding(row.status, userStatusOf(wanted.status) ?? 'active', 'user.status'),
          roles: rolesOf(wanted.roles),
          consumer_id: wanted.consumerId === '' ? null : wanted.consumerId,
        }
        checkIds(next)
        checkRolesReach(next.roles, {
          organizationId: next.organization_id ?? undefined,
          consumerId: next.consumer_id ?? undefined,
        })
        checkGrant(call.principal, [...row.roles.filter(isRole), ...next.roles])
        const stored = await storing(() => updateUser(tx, next), brokenBy(next))
        const organizationId = row.organization_id ?? ''
        const after = userMessage(stored)
        const type = 'user.updated'
        await recordResource(tx, call, { type, id, organizationId, schema: UserSchema, before, after, reason })
        return stored
      }
      const stored = await storing(() => sql.begin(change))
      await snapshots?.refresh()
      return userMessage(stored)
    },
  }
}

const never = 'is never changed'
const maskRules = {
  immutable: { organization_id: never, issuer: never, subject: never },
  outputOnly: ['id', 'create_time', 'etag'],
}

function ownerOf(row: UserRow): Owner {
  return { organizationId: row.organization_id ?? undefined }
}

type Ids = Pick<UserRow, 'organization_id' | 'consumer_id' | 'issuer' | 'subject'>

/** Refuses as unknown what is no id: it must not get to Postgres. */
function checkIds({ organization_id, consumer_id }: Ids): void {
  if (organization_id !== null && !isUuid(organization_id)) {
    throw organizationNotFound(organization_id, 'user.organization_id')
  }
  if (consumer_id !== null && !isUuid(consumer_id)) throw consumerNotFound(consumer_id, 'user.consumer_id')
}

function brokenBy({ organization_id, consumer_id, issuer, subject }: Ids): ConstraintErrors {
  const noConsumer = () => consumerNotFound(consumer_id ?? '', 'user.consumer_id')
  return {
    users_organization_id_fkey: () => organizationNotFound(organization_id ?? '', 'user.organization_id'),
    users_consumer_id_fkey: noConsumer,
    users_consumer_id_organization_id_fkey: noConsumer,
    users_issuer_subject_key: () => alreadyExists('user.subject', subject, ` for issuer ${issuer}`),
  }
}
