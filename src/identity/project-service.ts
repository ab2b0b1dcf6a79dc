import { create } from '@bufbuild/protobuf'
import { ProjectSchema, type ProjectService } from '../../gen/marketplace/v1/projects_pb.ts'
import type { Handlers } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { checkEtag, etagOf } from '../etag.ts'
import { compileFieldRules } from '../field-rules.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { organizationNotFound, projectNotFound } from '../registry/not-found.ts'
import { alreadyExists, type ConstraintErrors, storing } from '../storage/constraint-error.ts'
import type { Transaction } from '../storage/postgres.ts'
import { askedChange } from './asked-change.ts'
import { confinedOrganization, reachable } from './confine.ts'
import type { Owner } from './principal.ts'
import { projectMessage, projectRow, projectStatusOf } from './project-message.ts'
import {
  insertProject,
  lockProject,
  type NewProjectRow,
  type ProjectRow,
  selectProject,
  selectProjects,
  updateProject,
} from './project-store.ts'
import { recordResource } from './record-resource.ts'
import type { IdentityServiceOptions } from './service-options.ts'
import { nextStanding } from './standing.ts'

/** marketplace.v1.ProjectService on Postgres. Whoever reaches one organization adds, sees and changes its projects only. */
export function createProjectService(options: IdentityServiceOptions): Handlers<typeof ProjectService.method> {
  const { sql, newId, snapshots } = options
  const rules = { schema: ProjectSchema, mask: maskRules, fields: compileFieldRules([ProjectSchema]) }
  return {
    async createProject({ project = create(ProjectSchema) }, call) {
      const organizationId = confinedOrganization(call.principal, 'projects.write', project.organizationId)
      if (organizationId === undefined) throw organizationMissing()
      if (!isUuid(organizationId)) throw organizationNotFound(organizationId, 'project.organization_id')
      const row = projectRow(project, { id: newId(), organization_id: organizationId })
      const add = async (tx: Transaction): Promise<ProjectRow> => {
        const added = await insertProject(tx, row)
        const { id } = row
        const after = projectMessage(added)
        await recordResource(tx, call, { type: 'project.created', id, organizationId, schema: ProjectSchema, after })
        return added
      }
      const stored = await storing(() => sql.begin(add), brokenBy(row))
      await snapshots?.refresh()
      return projectMessage(stored)
    },

    async getProject({ id }, call) {
      const row = isUuid(id) ? await storing(() => selectProject(sql, id)) : undefined
      return projectMessage(reachable(call.principal, 'projects.read', row, ownerOf, () => projectNotFound(id, 'id')))
    },

    async listProjects(request, call) {
      const organizationId = confinedOrganization(call.principal, 'projects.read', request.organizationId)
      if (organizationId !== undefined && !isUuid(organizationId)) {
        throw organizationNotFound(organizationId, 'organization_id')
      }
      const filter = { organizationId, status: projectStatusOf(request.status) }
      const size = pageSizeOf(request.pageSize)
      const [afterId] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      const page = pageOf(await storing(() => selectProjects(sql, filter, afterId, size + 1)), size, (row) => [row.id])
      return { projects: page.rows.map(projectMessage), nextPageToken: page.nextPageToken }
    },

    async updateProject({ project = create(ProjectSchema), updateMask: mask, reason }, call) {
      const { id } = project
      const change = async (tx: Transaction): Promise<ProjectRow> => {
        const found = isUuid(id) ? await lockProject(tx, id) : undefined
        const row = reachable(call.principal, 'projects.write', found, ownerOf, () => projectNotFound(id, 'project.id'))
        checkEtag(project.etag, etagOf(row.revision), 'project.etag')
        const before = create(ProjectSchema, projectMessage(row))
        const wanted = askedChange(rules, { current: before, wanted: project, mask, field: 'project' })
        if (wanted === undefined) return row
        const asked = projectRow(wanted, row)
        const status = nextStanding(row.status, asked.status, 'project.status')
        const stored = await storing(() => updateProject(tx, { ...row, ...asked, status }), brokenBy(asked))
        const { organization_id: organizationId } = row
        const after = projectMessage(stored)
        const type = 'project.updated'
        const schema = ProjectSchema
        await recordResource(tx, call, { type, id, organizationId, schema, before, after, reason })
        return stored
      }
      const stored = await storing(() => sql.begin(change))
      await snapshots?.refresh()
      return projectMessage(stored)
    },
  }
}

const maskRules = {
  immutable: { organization_id: 'is never changed' },
  outputOnly: ['id', 'create_time', 'etag'],
}

function ownerOf({ organization_id }: ProjectRow): Owner {
  return { organizationId: organization_id }
}

function brokenBy({ name, organization_id }: NewProjectRow): ConstraintErrors {
  return {
    projects_organization_id_fkey: () => organizationNotFound(organization_id, 'project.organization_id'),
    projects_organization_id_name_key: () => alreadyExists('project.name', name, ' in the organization'),
  }
}

function organizationMissing(): TollgateError {
  const field = 'project.organization_id'
  const description = 'the credential has no organization of its own: name one'
  return new TollgateError('INVALID_ARGUMENT', `${field} is required: ${description}.`, {
    fields: [{ field, description, rule: 'required' }],
  })
}
