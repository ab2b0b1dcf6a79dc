import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import { type ProjectSchema, ProjectStatus } from '../../gen/marketplace/v1/projects_pb.ts'
import { etagOf } from '../etag.ts'
import type { NewProjectRow, ProjectRow } from './project-store.ts'
import type { Standing } from './standing.ts'

/** A project as the contract has it. */
export function projectMessage(row: ProjectRow): MessageInitShape<typeof ProjectSchema> {
  return {
    id: row.id,
    organizationId: row.organization_id,
    name: row.name,
    status: values[row.status],
    labels: { ...row.labels },
    createTime: timestampFromDate(row.created_at),
    etag: etagOf(row.revision),
  }
}

/** What a caller states of a project, with the defaults of what it does not; whose it is was decided before. */
export function projectRow(
  message: MessageShape<typeof ProjectSchema>,
  owned: Pick<NewProjectRow, 'id' | 'organization_id'>,
): NewProjectRow {
  return {
    ...owned,
    name: message.name,
    status: projectStatusOf(message.status) ?? 'active',
    labels: message.labels,
  }
}

/** The name of a status; undefined when none is stated. */
export function projectStatusOf(status: ProjectStatus): Standing | undefined {
  return names.find((name) => values[name] === status)
}

const names: readonly Standing[] = ['active', 'suspended', 'closed']

const values: Readonly<Record<Standing, ProjectStatus>> = {
  active: ProjectStatus.ACTIVE,
  suspended: ProjectStatus.SUSPENDED,
  closed: ProjectStatus.CLOSED,
}
