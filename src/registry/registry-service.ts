import { create } from '@bufbuild/protobuf'
import { Registry, ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Handlers } from '../call.ts'
import { applyMask, type MaskRules } from '../field-mask.ts'
import { compileFieldRules } from '../field-rules.ts'
import type { Sql } from '../storage/postgres.ts'
import { addService, changeService } from './change-service.ts'
import { createDocumentHandlers } from './document-handlers.ts'
import { createEndpointStateHandlers, type EndpointStateHandlersOptions } from './endpoint-state-handlers.ts'
import { createLifecycleHandlers } from './lifecycle-handlers.ts'
import { listServices } from './list-services.ts'
import { createPriceHandlers } from './price-handlers.ts'
import { missing } from './price-message.ts'
import type { ServiceRecord } from './records.ts'
import { ownOrganization, shownService } from './service-access.ts'
import { createServiceLookup } from './service-lookup.ts'
import { changedServiceRecord, newServiceRecord, serviceMessage } from './service-message.ts'
import type { SnapshotSource } from './snapshot.ts'
import { createSplitHandlers } from './split-handlers.ts'

export interface RegistryServiceOptions {
  readonly sql: Sql
  readonly snapshots: SnapshotSource
  /** UUIDv7, lower case. */
  readonly newId: () => string
  /** Unix milliseconds; decides which price is shown. Default Date.now. */
  readonly now?: () => number
  /** What this replica knows of endpoints, and its name; without it ListEndpointStates is not served. */
  readonly endpoints?: Pick<EndpointStateHandlersOptions, 'standingOf' | 'replica'>
  /** True while an outside registry states services here, which are then changed there. Default false. */
  readonly followsRegistry?: boolean
}

/** marketplace.v1.Registry: writes to Postgres, reads from the snapshot. A writer reads its own write. */
export function createRegistryService(options: RegistryServiceOptions): Handlers<typeof Registry.method> {
  const { sql, snapshots, newId, now = Date.now, endpoints, followsRegistry = false } = options
  const serviceOf = createServiceLookup(snapshots)
  const rules = compileFieldRules([ServiceSchema])
  return {
    ...createPriceHandlers({ sql, snapshots, serviceOf }),
    ...createLifecycleHandlers({ sql, snapshots, serviceOf, followsRegistry, now }),
    ...createDocumentHandlers({ sql, snapshots, serviceOf, followsRegistry, now }),
    ...createSplitHandlers({ sql, snapshots, serviceOf }),
    ...(endpoints && createEndpointStateHandlers({ snapshots, serviceOf, ...endpoints })),

    async registerService({ service }, call) {
      if (service === undefined) throw missing('service')
      const nowMs = now()
      const { document, ...stated } = service
      const wanted = newServiceRecord(stated, newId, nowMs)
      const record = { ...wanted, organizationId: wanted.organizationId ?? ownOrganization(call.principal) }
      await addService(sql, call, record, nowMs)
      await snapshots.refresh()
      return shownService(record, call.principal, nowMs)
    },

    async updateService({ service, updateMask: mask }, call) {
      if (service === undefined) throw missing('service')
      const nowMs = now()
      const { id, etag } = service
      const apply = (record: ServiceRecord): ServiceRecord => {
        const current = create(ServiceSchema, serviceMessage(record, nowMs))
        const wanted = applyMask(ServiceSchema, maskRules, { current, wanted: service, mask, field: 'service' })
        rules.check(ServiceSchema, wanted, 'service')
        return changedServiceRecord(record, wanted, newId)
      }
      const method = Registry.method.updateService
      const change = {
        id,
        field: 'service.id',
        etag,
        etagField: 'service.etag',
        method,
        followsRegistry,
        apply,
      } as const
      const changed = await changeService(sql, call, { ...change, type: 'service.updated' }, nowMs)
      await snapshots.refresh()
      return shownService(changed, call.principal, nowMs)
    },

    async getService({ id }, call) {
      return shownService(await serviceOf(id), call.principal, now())
    },

    async listServices(request, call) {
      const page = listServices(snapshots.current().servicesById.values(), request)
      const services = page.rows.map((row) => shownService(row, call.principal, now()))
      return { services, nextPageToken: page.nextPageToken }
    },
  }
}

/** What UpdateService leaves as it is. */
const maskRules: MaskRules = {
  immutable: {
    name: 'is never changed: register another service',
    version: 'is never changed: register another version',
    pricing: 'is changed by CreatePrice',
    status: 'is changed by ActivateService, DeprecateService, SuspendService, ResumeService and RetireService',
    deprecation: 'is changed by DeprecateService and ResumeService',
  },
  outputOnly: ['id', 'etag', 'origin', 'document', 'create_time', 'update_time', 'status_reason', 'status_time'],
}
