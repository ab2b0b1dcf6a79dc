import { TollgateError } from '../errors.ts'
import { allowsModel, allowsService, scopeMissing } from '../identity/key-scopes.ts'
import type { Principal } from '../identity/principal.ts'
import { checkOrganization, checkProject } from '../identity/standing.ts'
import { consumerNotFound, serviceNotFound } from '../registry/not-found.ts'
import { type ConsumerRecord, type ServiceRecord, type ServiceStatus, takesCalls } from '../registry/records.ts'
import { findService, type Snapshot } from '../registry/snapshot.ts'

/**
 * The consumer that pays. Throws CONSUMER_NOT_FOUND, or CONSUMER_INACTIVE, PROJECT_INACTIVE or ORGANIZATION_INACTIVE when it, its
 * project or its organization is suspended or closed.
 */
export function resolveConsumer(snapshot: Snapshot, id: string): ConsumerRecord {
  const consumer = snapshot.consumersById.get(id)
  if (consumer === undefined) throw consumerNotFound(id, 'consumer_id')
  if (consumer.status !== 'active') {
    throw new TollgateError('CONSUMER_INACTIVE', `Consumer ${id} is ${consumer.status}.`, {
      metadata: { consumerId: id, status: consumer.status },
    })
  }
  checkProject(snapshot, consumer.projectId)
  checkOrganization(snapshot, consumer.organizationId)
  return consumer
}

/** The service by id or name. Throws SERVICE_NOT_FOUND, or SERVICE_INACTIVE when its status takes no calls. */
export function resolveService(snapshot: Snapshot, idOrName: string): ServiceRecord {
  const service = findService(snapshot, idOrName)
  if (service === undefined) throw serviceNotFound(idOrName)
  if (!takesCalls(service.status)) throw inactive(service)
  return service
}

/** Throws KEY_SCOPE_MISSING when the caller's key is narrowed to other services. */
export function requireServiceScope(principal: Principal, service: ServiceRecord): void {
  if (principal.kind === 'anonymous' || principal.scopes === undefined) return
  if (!allowsService(principal.scopes, service)) throw scopeMissing(principal.keyId, 'services', service.name)
}

/** Throws KEY_SCOPE_MISSING when the caller's key is narrowed to other models. */
export function requireModelScope(principal: Principal, model: string): void {
  if (principal.kind === 'anonymous' || principal.scopes === undefined) return
  if (!allowsModel(principal.scopes, model)) throw scopeMissing(principal.keyId, 'models', model)
}

/** Says what the caller can do. */
function inactive({ id, name, version, status, statusReason, deprecation }: ServiceRecord): TollgateError {
  const successor = deprecation?.successor ?? ''
  const why = statusReason === '' ? '' : ` (${statusReason})`
  const remedy = successor === '' ? remedies[status] : `Call ${successor} instead.`
  return new TollgateError('SERVICE_INACTIVE', `Service ${name} ${version} ${standings[status]}${why}. ${remedy}`, {
    metadata: { serviceId: id, status, ...(successor !== '' && { successor }) },
  })
}

const standings: Readonly<Record<ServiceStatus, string>> = {
  pending_approval: 'waits for approval',
  active: 'is active',
  deprecated: 'is deprecated',
  suspended: 'is suspended',
  retired: 'is retired',
}

const remedies: Readonly<Record<ServiceStatus, string>> = {
  pending_approval: 'Call it when it is approved.',
  active: '',
  deprecated: '',
  suspended: 'Call it when it is resumed, or call another service.',
  retired: 'Call another service.',
}
