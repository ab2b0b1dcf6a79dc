import { create } from '@bufbuild/protobuf'
import { type ConsumerService, OrganizationSchema } from '../../gen/marketplace/v1/consumers_pb.ts'
import type { Handlers } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { checkEtag, etagOf } from '../etag.ts'
import { compileFieldRules } from '../field-rules.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { organizationNotFound } from '../registry/not-found.ts'
import { alreadyExists, storing } from '../storage/constraint-error.ts'
import type { Transaction } from '../storage/postgres.ts'
import { askedChange } from './asked-change.ts'
import { confinedOrganization, reachable } from './confine.ts'
import { organizationMessage, organizationRow, organizationStatusOf } from './organization-message.ts'
import {
  insertOrganization,
  lockOrganization,
  type OrganizationRow,
  selectOrganization,
  selectOrganizations,
  updateOrganization,
} from './organization-store.ts'
import type { Owner } from './principal.ts'
import { recordResource } from './record-resource.ts'
import type { IdentityServiceOptions } from './service-options.ts'
import { nextStanding } from './standing.ts'
import { tierOf } from './tier-message.ts'

type OrganizationHandlers = Pick<
  Handlers<typeof ConsumerService.method>,
  'createOrganization' | 'getOrganization' | 'listOrganizations' | 'updateOrganization'
>

/** The part of marketplace.v1.ConsumerService that is about organizations. */
export function createOrganizationHandlers(options: IdentityServiceOptions): OrganizationHandlers {
  const { sql, newId, snapshots } = options
  const rules = { schema: OrganizationSchema, mask: maskRules, fields: compileFieldRules([OrganizationSchema]) }
  return {
    async createOrganization({ organization = create(OrganizationSchema) }, call) {
      const row = organizationRow(organization, newId())
      const add = async (tx: Transaction): Promise<OrganizationRow> => {
        const added = await insertOrganization(tx, row)
        const after = organizationMessage(added)
        const { id } = row
        const type = 'organization.created'
        await recordResource(tx, call, { type, id, organizationId: id, schema: OrganizationSchema, after })
        return added
      }
      const stored = await storing(() => sql.begin(add), {
        organizations_name_key: () => alreadyExists('organization.name', row.name),
      })
      await snapshots?.refresh()
      return organizationMessage(stored)
    },

    async getOrganization(request, call) {
      const id = confinedOrganization(call.principal, 'organizations.read', request.id)
      if (id === undefined) throw idMissing()
      const row = isUuid(id) ? await storing(() => selectOrganization(sql, id)) : undefined
      return organizationMessage(
        reachable(call.principal, 'organizations.read', row, ownerOf, () => organizationNotFound(id, 'id')),
      )
    },

    async listOrganizations(request, call) {
      const id = confinedOrganization(call.principal, 'organizations.read', '')
      const filter = { id, status: organizationStatusOf(request.status), tier: tierOf(request.tier) }
      const size = pageSizeOf(request.pageSize)
      const [afterId] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      const rows = await storing(() => selectOrganizations(sql, filter, afterId, size + 1))
      const page = pageOf(rows, size, (row) => [row.id])
      return { organizations: page.rows.map(organizationMessage), nextPageToken: page.nextPageToken }
    },

    async updateOrganization({ organization = create(OrganizationSchema), updateMask: mask, reason }, call) {
      const { id } = organization
      const change = async (tx: Transaction): Promise<OrganizationRow> => {
        const found = isUuid(id) ? await lockOrganization(tx, id) : undefined
        const row = reachable(call.principal, 'organizations.write', found, ownerOf, () =>
          organizationNotFound(id, 'organization.id'),
        )
        checkEtag(organization.etag, etagOf(row.revision), 'organization.etag')
        const before = create(OrganizationSchema, organizationMessage(row))
        const wanted = askedChange(rules, { current: before, wanted: organization, mask, field: 'organization' })
        if (wanted === undefined) return row
        const asked = organizationRow(wanted, id)
        const status = nextStanding(row.status, asked.status, 'organization.status')
        const stored = await storing(() => updateOrganization(tx, { ...row, ...asked, status }), {
          organizations_name_key: () => alreadyExists('organization.name', asked.name),
        })
        const after = organizationMessage(stored)
        const type = 'organization.updated'
        const schema = OrganizationSchema
        await recordResource(tx, call, { type, id, organizationId: id, schema, before, after, reason })
        return stored
      }
      const stored = await storing(() => sql.begin(change))
      await snapshots?.refresh()
      return organizationMessage(stored)
    },
  }
}

const maskRules = { immutable: {}, outputOnly: ['id', 'create_time', 'etag'] }

function ownerOf({ id }: OrganizationRow): Owner {
  return { organizationId: id }
}

function idMissing(): TollgateError {
  const description = 'the credential has no organization of its own: name one'
  return new TollgateError('INVALID_ARGUMENT', `id is required: ${description}.`, {
    fields: [{ field: 'id', description, rule: 'required' }],
  })
}
