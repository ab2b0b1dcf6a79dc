import { create } from '@bufbuild/protobuf'
import { ConsumerSchema, type ConsumerService } from '../../gen/marketplace/v1/consumers_pb.ts'
import type { Handlers } from '../call.ts'
import { checkEtag, etagOf } from '../etag.ts'
import { compileFieldRules } from '../field-rules.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { consumerNotFound, organizationNotFound, projectNotFound } from '../registry/not-found.ts'
import { alreadyExists, type ConstraintErrors, storing } from '../storage/constraint-error.ts'
import type { Transaction } from '../storage/postgres.ts'
import { askedChange } from './asked-change.ts'
import { confinedOrganization, reachable } from './confine.ts'
import { consumerMessage, consumerRow, consumerStatusOf } from './consumer-message.ts'
import {
  type ConsumerRow,
  insertConsumer,
  lockConsumer,
  type NewConsumerRow,
  selectConsumer,
  selectConsumers,
  updateConsumer,
} from './consumer-store.ts'
import { checkDelegation } from './delegation.ts'
import { createOrganizationHandlers } from './organization-handlers.ts'
import { type OrganizationRow, selectOrganization } from './organization-store.ts'
import { ownConsumer } from './own-consumer.ts'
import type { Owner } from './principal.ts'
import { recordResource } from './record-resource.ts'
import type { IdentityServiceOptions } from './service-options.ts'
import { nextStanding } from './standing.ts'
import { tierOf } from './tier-message.ts'

/** marketplace.v1.ConsumerService on Postgres. Whoever reaches one organization adds, sees and changes its consumers only. */
export function createConsumerService(options: IdentityServiceOptions): Handlers<typeof ConsumerService.method> {
  const { sql, newId, snapshots } = options
  const rules = { schema: ConsumerSchema, mask: maskRules, fields: compileFieldRules([ConsumerSchema]) }
  return {
    ...createOrganizationHandlers(options),

    async createConsumer({ consumer = create(ConsumerSchema) }, call) {
      const add = async (tx: Transaction): Promise<ConsumerRow> => {
        const organization = await organizationOf(tx, consumer.organizationId)
        const row = consumerRow(consumer, newId(), organization)
        checkDelegation(call.principal, organization, undefined, row)
        checkProject(row)
        const added = await storing(() => insertConsumer(tx, row), brokenBy(row))
        const { id, organization_id: organizationId } = row
        const after = consumerMessage(added)
        await recordResource(tx, call, { type: 'consumer.created', id, organizationId, schema: ConsumerSchema, after })
        return added
      }
      const stored = await storing(() => sql.begin(add))
      await snapshots?.refresh()
      return consumerMessage(stored)
    },

    async getConsumer(request, call) {
      const id = ownConsumer(request.id, call.principal, 'id')
      const row = isUuid(id) ? await storing(() => selectConsumer(sql, id)) : undefined
      if (row === undefined) throw consumerNotFound(id, 'id')
      return consumerMessage(row)
    },

    async listConsumers(request, call) {
      const organizationId = confinedOrganization(call.principal, 'consumers.list', request.organizationId)
      if (organizationId !== undefined && !isUuid(organizationId)) {
        throw organizationNotFound(organizationId, 'organization_id')
      }
      const { projectId } = request
      if (projectId !== '' && !isUuid(projectId)) throw projectNotFound(projectId, 'project_id')
      const filter = {
        organizationId,
        projectId: projectId === '' ? undefined : projectId,
        status: consumerStatusOf(request.status),
        tier: tierOf(request.tier),
      }
      const size = pageSizeOf(request.pageSize)
      const [afterId] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      const rows = await storing(() => selectConsumers(sql, filter, afterId, size + 1))
      const page = pageOf(rows, size, (row) => [row.id])
      return { consumers: page.rows.map(consumerMessage), nextPageToken: page.nextPageToken }
    },

    async updateConsumer({ consumer = create(ConsumerSchema), updateMask: mask, reason }, call) {
      const { id } = consumer
      const change = async (tx: Transaction): Promise<ConsumerRow> => {
        const found = isUuid(id) ? await lockConsumer(tx, id) : undefined
        const row = reachable(call.principal, 'consumers.write', found, ownerOf, () =>
          consumerNotFound(id, 'consumer.id'),
        )
        checkEtag(consumer.etag, etagOf(row.revision), 'consumer.etag')
        const before = create(ConsumerSchema, consumerMessage(row))
        const wanted = askedChange(rules, { current: before, wanted: consumer, mask, field: 'consumer' })
        if (wanted === undefined) return row
        const organization = await organizationOf(tx, row.organization_id)
        const asked = consumerRow(wanted, id, organization)
        checkDelegation(call.principal, organization, row, asked)
        checkProject(asked)
        const status = nextStanding(row.status, asked.status, 'consumer.status')
        const stored = await storing(() => updateConsumer(tx, { ...row, ...asked, status }), brokenBy(asked))
        const { organization_id: organizationId } = row
        const after = consumerMessage(stored)
        const type = 'consumer.updated'
        const schema = ConsumerSchema
        await recordResource(tx, call, { type, id, organizationId, schema, before, after, reason })
        return stored
      }
      const stored = await storing(() => sql.begin(change))
      await snapshots?.refresh()
      return consumerMessage(stored)
    },
  }
}

const maskRules = {
  immutable: { organization_id: 'is never changed' },
  outputOnly: ['id', 'create_time', 'etag'],
}

function ownerOf({ id, organization_id }: ConsumerRow): Owner {
  return { consumerId: id, organizationId: organization_id }
}

async function organizationOf(tx: Transaction, id: string): Promise<OrganizationRow> {
  const known = isUuid(id.toLowerCase()) ? await selectOrganization(tx, id) : undefined
  if (known === undefined) throw organizationNotFound(id, 'consumer.organization_id')
  return known
}

/** Refuses as unknown what is no id: it must not get to Postgres. */
function checkProject({ project_id }: NewConsumerRow): void {
  if (project_id !== null && !isUuid(project_id)) throw projectNotFound(project_id, 'consumer.project_id')
}

function brokenBy({ name, project_id }: NewConsumerRow): ConstraintErrors {
  return {
    consumers_organization_id_name_key: () => alreadyExists('consumer.name', name, ' in the organization'),
    consumers_project_id_fkey: () => projectNotFound(project_id ?? '', 'consumer.project_id'),
  }
}
