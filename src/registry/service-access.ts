import { type DescMethod, getOption } from '@bufbuild/protobuf'
import { access } from '../../gen/marketplace/v1/options_pb.ts'
import { Registry, type Service } from '../../gen/marketplace/v1/registry_pb.ts'
import { TollgateError } from '../errors.ts'
import { type Principal, reaches, reachOf } from '../identity/principal.ts'
import type { EndpointRecord, ServiceRecord } from './records.ts'
import { type ServiceFields, serviceMessage } from './service-message.ts'

/** Whose services a caller may change, and what it sees of the others. */

/**
 * Refuses a caller whose permission for `method` does not reach the services of an organization. Throws ORGANIZATION_MISMATCH;
 * `field` is the path of the request field that names the service or the organization.
 */
export function checkReach(
  principal: Principal,
  method: DescMethod,
  organizationId: string | undefined,
  field: string,
): void {
  if (reaches(principal, permissionOf(method), { organizationId })) return
  throw new TollgateError(
    'ORGANIZATION_MISMATCH',
    `${field} names a service of an organization that the credential does not speak for.`,
    { metadata: { field } },
  )
}

/** Organization of a new service that names none: the caller's own, unless the caller speaks for the whole registry. */
export function ownOrganization(principal: Principal): string | undefined {
  if (principal.kind === 'anonymous') return undefined
  return reachOf(principal, permissionOf(Registry.method.registerService)) === 'all'
    ? undefined
    : principal.organizationId
}

/** A service as a caller sees it: where its endpoints are and what opens them is for those who may change them. */
export function shownService(service: ServiceRecord, principal: Principal, nowMs: number): ServiceFields {
  return shownMessage(serviceMessage(service, nowMs), principal)
}

/** As {@link shownService}, of a message; the one given stays as it is. */
export function shownMessage<T extends ServiceFields | Service>(message: T, principal: Principal): T {
  const organizationId = message.owner?.organizationId || undefined
  if (mayChange(principal, organizationId)) return message
  const endpoints = message.endpoints?.map((endpoint) => ({ ...endpoint, url: '', credentialRef: '' })) ?? []
  return { ...message, endpoints }
}

/**
 * Refuses a caller who gives a credential of the gate to an address, unless it speaks for the whole registry: a publisher
 * could else name the credential of somebody else, or a file of the gate, and have it sent to a server of its own. What an
 * operator gave to an address may stay there. Throws PERMISSION_MISSING.
 */
export function checkCredentials(
  principal: Principal,
  before: readonly EndpointRecord[],
  after: readonly EndpointRecord[],
): void {
  const permission = permissionOf(Registry.method.updateService)
  if (reachOf(principal, permission) === 'all') return
  for (const [index, { url, credentialRef, protocol, auth }] of after.entries()) {
    const isKnown = before.some((known) => {
      return (
        known.url === url && known.credentialRef === credentialRef && known.protocol === protocol && known.auth === auth
      )
    })
    if (credentialRef === '' || isKnown) continue
    const field = `service.endpoints[${index}].credential_ref`
    throw new TollgateError(
      'PERMISSION_MISSING',
      `${field} gives a credential of the gate to an address: ask an operator of the registry to do that.`,
      { metadata: { field, permission } },
    )
  }
}

/** Whether a caller may change the services of an organization. */
export function mayChange(principal: Principal, organizationId: string | undefined): boolean {
  return reaches(principal, permissionOf(Registry.method.updateService), { organizationId })
}

function permissionOf(method: DescMethod): string {
  return getOption(method, access).permission
}
