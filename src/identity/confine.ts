/**
 * For handlers whose callers may reach less than everything. The `confine` middleware refuses calls whose request names a
 * consumer or an organization out of reach, where the contract declares the field. What is left is here: lists that name no
 * organization, and objects that are named by an id of their own.
 *
 * - A list reads what {@link confinedOrganization} answers: `select … where organization_id = …`, or everything.
 * - An object is read first and then passed through {@link reachable}, before anything of it is answered or changed.
 *
 * Both take the permission that the RPC's contract names. The walk of test/permissions.server.test.ts calls every RPC with
 * every role, and knows by name the RPCs that confine themselves in this way.
 */
import { TollgateError } from '../errors.ts'
import { type Owner, type Principal, reaches, reachOf } from './principal.ts'

/**
 * The organization that a list or a new resource is confined to, given the one that the request names (empty for none): that
 * one, or the caller's own; undefined when the caller reaches everything and names none.
 *
 * Throws ORGANIZATION_MISMATCH when the permission does not reach all of that organization, also for callers that have none.
 */
export function confinedOrganization(principal: Principal, permission: string, requested: string): string | undefined {
  const own = principal.kind === 'anonymous' ? undefined : principal.organizationId
  const organizationId = requested === '' && reachOf(principal, permission) !== 'all' ? own : requested
  if (organizationId === '') return undefined
  if (organizationId === undefined || !reaches(principal, permission, { organizationId })) throw outOfReach(permission)
  return organizationId
}

/**
 * What was found, when the caller's permission reaches its owner. Callers that do not reach everything get
 * ORGANIZATION_MISMATCH for what is absent and for what belongs to others alike, so that ids tell them nothing; who reaches
 * everything gets `notFound`.
 */
export function reachable<T>(
  principal: Principal,
  permission: string,
  found: T | undefined,
  ownerOf: (found: T) => Owner,
  notFound: () => TollgateError,
): T {
  if (reachOf(principal, permission) === 'all') {
    if (found === undefined) throw notFound()
    return found
  }
  if (found === undefined || !reaches(principal, permission, ownerOf(found))) throw outOfReach(permission)
  return found
}

function outOfReach(permission: string): TollgateError {
  const message = `The permission ${permission} of this credential does not reach that: it belongs to somebody else, or is not there.`
  return new TollgateError('ORGANIZATION_MISMATCH', message, { metadata: { permission } })
}
