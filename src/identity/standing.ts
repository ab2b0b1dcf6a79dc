import { TollgateError } from '../errors.ts'
import type { Snapshot } from '../registry/snapshot.ts'
import type { Caller } from './principal.ts'

/** Whether an organization, a project, a consumer or a user may call. */
export type Standing = 'active' | 'suspended' | 'closed'

/**
 * The standing that follows from the one that was and the one that is wanted. All moves are allowed but those away from
 * `closed`, which is final: throws STATUS_FINAL. `field` is the path of the request field.
 */
export function nextStanding(was: Standing, wanted: Standing, field: string): Standing {
  if (was !== 'closed' || wanted === 'closed') return wanted
  const description = `is closed, which is final: it does not become ${wanted}`
  throw new TollgateError('STATUS_FINAL', `${field}: ${description}. Create another one.`, {
    metadata: { field, status: was, wanted },
    fields: [{ field, description, rule: 'transition' }],
  })
}

/** Throws ORGANIZATION_INACTIVE unless the organization is active; undefined: there is none. */
export function checkOrganization({ organizationsById }: Snapshot, id: string | undefined): void {
  const organization = id === undefined ? undefined : organizationsById.get(id)
  if (organization === undefined || organization.status === 'active') return
  const { status } = organization
  throw new TollgateError('ORGANIZATION_INACTIVE', `Organization ${id} is ${status}. ${remedy[status]}`, {
    metadata: { organizationId: organization.id, status },
  })
}

/** Throws PROJECT_INACTIVE unless the project is active; undefined: there is none. */
export function checkProject({ projectsById }: Snapshot, id: string | undefined): void {
  const project = id === undefined ? undefined : projectsById.get(id)
  if (project === undefined || project.status === 'active') return
  const { status } = project
  throw new TollgateError('PROJECT_INACTIVE', `Project ${id} is ${status}. ${remedy[status]}`, {
    metadata: { projectId: project.id, status },
  })
}

const remedy: Readonly<Record<Exclude<Standing, 'active'>, string>> = {
  suspended: 'An administrator can activate it.',
  closed: 'That is final.',
}

/**
 * Lets nobody in whose organization is not active, whatever the credential, and no key whose consumer's project is not: throws
 * what {@link checkOrganization} and {@link checkProject} throw. Asks the snapshot, so that a change holds on every replica as
 * soon as it is there. A caller that is known at once is let in at once.
 */
export function requireStanding<A extends readonly unknown[]>(
  authenticate: (...args: A) => Caller | Promise<Caller>,
  snapshots: { current(): Snapshot },
): (...args: A) => Caller | Promise<Caller> {
  return (...args) => {
    const caller = authenticate(...args)
    return caller instanceof Promise ? caller.then(standing) : standing(caller)
  }

  function standing(caller: Caller): Caller {
    const snapshot = snapshots.current()
    checkOrganization(snapshot, caller.organizationId)
    if (caller.keyId !== undefined && caller.consumerId !== undefined) {
      checkProject(snapshot, snapshot.consumersById.get(caller.consumerId)?.projectId)
    }
    return caller
  }
}
