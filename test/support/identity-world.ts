import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { type ConsumerSchema, ConsumerService, type OrganizationSchema } from '../../gen/marketplace/v1/consumers_pb.ts'
import { type ProjectSchema, ProjectService } from '../../gen/marketplace/v1/projects_pb.ts'
import { createConsumerService } from '../../src/identity/consumer-service.ts'
import type { Caller, Role } from '../../src/identity/principal.ts'
import { createProjectService } from '../../src/identity/project-service.ts'
import type { IdentityServiceOptions } from '../../src/identity/service-options.ts'
import { administrator, invoke } from './invoke.ts'

/** Calls the handlers of organizations, projects and consumers directly, as the administrator unless somebody else is given. */
export function identityWorld(options: Omit<IdentityServiceOptions, 'newId'>) {
  const consumers = createConsumerService({ ...options, newId: randomUUID })
  const projects = createProjectService({ ...options, newId: randomUUID })
  const { createOrganization, createConsumer, updateOrganization, updateConsumer } = ConsumerService.method
  const { createProject, updateProject } = ProjectService.method
  let names = 0
  const name = (): string => `name-${++names}`
  const maskOf = (paths: readonly string[]) => ({ paths: [...paths] })
  return {
    consumers,
    projects,
    newOrganization: (organization: MessageInitShape<typeof OrganizationSchema> = {}, by: Caller = administrator) =>
      invoke(createOrganization, consumers.createOrganization, { organization: { name: name(), ...organization } }, by),
    newConsumer: (consumer: MessageInitShape<typeof ConsumerSchema>, by: Caller = administrator) =>
      invoke(createConsumer, consumers.createConsumer, { consumer: { name: name(), ...consumer } }, by),
    newProject: (project: MessageInitShape<typeof ProjectSchema>, by: Caller = administrator) =>
      invoke(createProject, projects.createProject, { project: { name: name(), ...project } }, by),
    updateOrganization: (
      organization: MessageInitShape<typeof OrganizationSchema>,
      paths: readonly string[],
      by: Caller = administrator,
    ) =>
      invoke(
        updateOrganization,
        consumers.updateOrganization,
        { organization, updateMask: maskOf(paths), reason: 'asked' },
        by,
      ),
    updateConsumer: (
      consumer: MessageInitShape<typeof ConsumerSchema>,
      paths: readonly string[],
      by: Caller = administrator,
    ) => invoke(updateConsumer, consumers.updateConsumer, { consumer, updateMask: maskOf(paths), reason: 'asked' }, by),
    updateProject: (
      project: MessageInitShape<typeof ProjectSchema>,
      paths: readonly string[],
      by: Caller = administrator,
    ) => invoke(updateProject, projects.updateProject, { project, updateMask: maskOf(paths), reason: 'asked' }, by),
  }
}

/** Somebody with roles in an organization; undefined: in none. */
export function callerOf(roles: readonly Role[], organizationId: string | undefined): Caller {
  return { ...administrator, kind: 'key', subject: 'user:somebody', roles, organizationId }
}
