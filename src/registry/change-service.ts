import { create, type DescMethod, equals } from '@bufbuild/protobuf'
import { Registry, ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Call } from '../call.ts'
import { type Actor, actorOf } from '../control/actor.ts'
import type { ChangeOf } from '../control/change-types.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import type { TollgateError } from '../errors.ts'
import { checkEtag } from '../etag.ts'
import { isUuid } from '../ids.ts'
import { alreadyExists, storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { lockName } from './name-owners.ts'
import { organizationNotFound, serviceNotFound } from './not-found.ts'
import type { ServiceRecord } from './records.ts'
import { checkCredentials, checkReach } from './service-access.ts'
import { serviceMessage } from './service-message.ts'
import { insertService, lockService, updateService } from './service-store.ts'
import { refuseStated } from './stated-fields.ts'

export interface ServiceChange {
  /** Id of the service, and the path of the request field that holds it. */
  readonly id: string
  readonly field: string
  /** As its caller saw the service; empty for any. */
  readonly etag: string
  readonly etagField: string
  /** The RPC that asks for it: its permission must reach the service. */
  readonly method: DescMethod
  /** What became of the service. */
  readonly type: ChangeOf<'service'>
  readonly reason?: string
  /** The service as it is to be; throws when it may not be so. */
  apply(service: ServiceRecord): ServiceRecord
  /** True while an outside registry states services here: what it states of its own is not changed. */
  readonly followsRegistry: boolean
  /** Stores what belongs to the change beside the service, when it changed. */
  store?(tx: Transaction): Promise<void>
}

/**
 * Makes one change of a service: one writer after the other, each on what the one before left. Returns the service as it is
 * then; a change that changes nothing leaves no trail. Throws SERVICE_NOT_FOUND, ORGANIZATION_MISMATCH, ETAG_MISMATCH, and
 * what `apply` throws.
 */
export async function changeService(
  sql: Sql,
  call: Call,
  change: ServiceChange,
  nowMs: number,
): Promise<ServiceRecord> {
  const { id, field, method } = change
  if (!isUuid(id)) throw serviceNotFound(id, field)
  let wanted: ServiceRecord | undefined
  const apply = async (tx: Transaction): Promise<ServiceRecord> => {
    const service = await lockService(tx, id)
    if (service === undefined) throw serviceNotFound(id, field)
    checkReach(call.principal, method, service.organizationId, field)
    const before = create(ServiceSchema, serviceMessage(service, nowMs))
    checkEtag(change.etag, before.etag, change.etagField)
    wanted = change.apply(service)
    checkOwner(call, method, wanted)
    if (change.followsRegistry) refuseStated(service, wanted, nowMs)
    checkCredentials(call.principal, service.endpoints, wanted.endpoints)
    if (equals(ServiceSchema, before, create(ServiceSchema, serviceMessage(wanted, nowMs)))) return service
    const changed = { ...wanted, revision: service.revision + 1, updatedAtMs: nowMs }
    await updateService(tx, changed)
    await change.store?.(tx)
    await recordService(tx, actorOf(call), change, service, changed, nowMs)
    return changed
  }
  return storing(() => sql.begin(apply), {
    services_organization_id_fkey: () => ownerNotFound(wanted),
  })
}

/**
 * Adds a service. Throws ALREADY_EXISTS for a name and version that are taken, ORGANIZATION_NOT_FOUND and ORGANIZATION_MISMATCH
 * for its owner, or when others have versions of its name.
 */
export async function addService(sql: Sql, call: Call, service: ServiceRecord, nowMs: number): Promise<void> {
  checkOwner(call, Registry.method.registerService, service)
  checkCredentials(call.principal, [], service.endpoints)
  const add = async (tx: Transaction): Promise<void> => {
    const { method } = Registry
    for (const owner of await lockName(tx, service.name)) {
      if (owner !== service.organizationId) checkReach(call.principal, method.registerService, owner, 'service.name')
    }
    await insertService(tx, service)
    await recordService(tx, actorOf(call), { type: 'service.registered' }, undefined, service, nowMs)
  }
  const { name, version } = service
  await storing(() => sql.begin(add), {
    services_name_version_key: () => alreadyExists('service.version', version, ` for service ${name}`),
    services_organization_id_fkey: () => ownerNotFound(service),
  })
}

/** Leaves the trail of a change of a service; `before` undefined: it was registered. */
export async function recordService(
  tx: Transaction,
  actor: Actor,
  { type, reason = '' }: Pick<ServiceChange, 'type' | 'reason'>,
  before: ServiceRecord | undefined,
  after: ServiceRecord,
  nowMs: number,
): Promise<void> {
  await recordChange(tx, actor, {
    type,
    id: after.id,
    organizationId: after.organizationId ?? '',
    before: before && resourceJson(ServiceSchema, serviceMessage(before, nowMs)),
    after: resourceJson(ServiceSchema, serviceMessage(after, nowMs)),
    reason,
  })
}

const ownerField = 'service.owner.organization_id'

/** Nobody gives a service to an organization that it does not speak for. */
function checkOwner(call: Call, method: DescMethod, service: ServiceRecord): void {
  const { organizationId } = service
  if (organizationId !== undefined && !isUuid(organizationId)) throw ownerNotFound(service)
  checkReach(call.principal, method, organizationId, ownerField)
}

function ownerNotFound(service: ServiceRecord | undefined): TollgateError {
  return organizationNotFound(service?.organizationId ?? '', ownerField)
}
