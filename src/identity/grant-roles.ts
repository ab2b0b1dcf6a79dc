import { TollgateError } from '../errors.ts'
import { type Principal, type Role, roles } from './principal.ts'

/**
 * Refuses to let a caller give, or change, what it may not give itself: throws GRANT_EXCEEDED with the roles of `wanted` that
 * none of its own roles may grant. An update passes what its user had before, too: whoever could change somebody with more
 * rights could take them over.
 */
export function checkGrant(principal: Principal, wanted: Iterable<Role>, field = 'user.roles'): void {
  const own = principal.kind === 'anonymous' ? [] : principal.roles
  const grantable = new Set(own.flatMap((role) => [...roles[role].grants]))
  const exceeding = [...new Set(wanted)].filter((role) => !grantable.has(role))
  if (exceeding.length === 0) return
  const description = `the roles of this credential may not grant ${exceeding.join(', ')}`
  throw new TollgateError('GRANT_EXCEEDED', `${field}: ${description}`, {
    metadata: { field, roles: exceeding.join(',') },
    fields: [{ field, description, rule: 'grant' }],
  })
}

/** Refuses roles that could reach nothing: throws INVALID_ARGUMENT where one needs what its user does not have. */
export function checkRolesReach(
  wanted: readonly Role[],
  user: { readonly organizationId: string | undefined; readonly consumerId: string | undefined },
): void {
  for (const role of wanted) {
    const { reach } = roles[role]
    if (reach === 'organization' && user.organizationId === undefined) throw reachless(role, 'organization_id')
    if (reach === 'consumer' && user.consumerId === undefined) throw reachless(role, 'consumer_id')
  }
}

function reachless(role: Role, missing: string): TollgateError {
  const field = `user.${missing}`
  const description = `the role ${role} reaches nothing without it`
  return new TollgateError('INVALID_ARGUMENT', `${field}: ${description}`, {
    fields: [{ field, description, rule: 'required' }],
  })
}
