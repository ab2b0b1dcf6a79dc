import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Handlers } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { changeService } from './change-service.ts'
import { missing } from './price-message.ts'
import { documentInfoMessage, documentInfoOf } from './service-document.ts'
import type { ServiceLookup } from './service-lookup.ts'
import type { SnapshotSource } from './snapshot.ts'

export interface DocumentHandlersOptions {
  readonly sql: Sql
  readonly snapshots: Pick<SnapshotSource, 'refresh'>
  readonly serviceOf: ServiceLookup
  /** True while an outside registry states services here. */
  readonly followsRegistry: boolean
  /** Unix milliseconds. */
  readonly now: () => number
}

/** The RPCs of marketplace.v1.Registry that are about the documents of services. */
export function createDocumentHandlers(
  options: DocumentHandlersOptions,
): Pick<Handlers<typeof Registry.method>, 'setServiceDocument' | 'getServiceDocument'> {
  const { sql, snapshots, serviceOf, followsRegistry, now } = options
  return {
    async setServiceDocument({ document, etag }, call) {
      if (document === undefined) throw missing('document')
      const { serviceId: id, content } = document
      const nowMs = now()
      const info = documentInfoOf(document, nowMs)
      const changed = await changeService(
        sql,
        call,
        {
          id,
          field: 'document.service_id',
          etag,
          etagField: 'etag',
          method: Registry.method.setServiceDocument,
          followsRegistry,
          type: 'service.documented',
          apply(service) {
            const { document: known, ...profile } = service.profile
            const isSame = known?.sha256 === info?.sha256 && known?.format === info?.format
            return isSame
              ? service
              : { ...service, profile: info === undefined ? profile : { ...profile, document: info } }
          },
          async store(tx) {
            await tx`delete from service_documents where service_id = ${id}`
            if (info === undefined) return
            await tx`insert into service_documents (service_id, content) values (${id}, ${content})`
          },
        },
        nowMs,
      )
      await snapshots.refresh()
      const { document: stored } = changed.profile
      return stored === undefined ? { serviceId: id } : { serviceId: id, content, ...headOf(stored) }
    },

    async getServiceDocument({ serviceId }) {
      const { id, profile } = await serviceOf(serviceId, 'service_id')
      const { document } = profile
      const [row] = await storing(
        async () => sql<{ content: string }[]>`
        select content from service_documents where service_id = ${id}`,
      )
      if (row === undefined || document === undefined) throw withoutDocument(id)
      return { serviceId: id, content: row.content, ...headOf(document) }
    },
  }
}

function headOf(document: Parameters<typeof documentInfoMessage>[0]) {
  const { format, updateTime } = documentInfoMessage(document)
  return { ...(format !== undefined && { format }), ...(updateTime !== undefined && { updateTime }) }
}

function withoutDocument(serviceId: string): TollgateError {
  return new TollgateError('SERVICE_DOCUMENT_NOT_FOUND', `Service ${serviceId} has no document.`, {
    metadata: { serviceId },
  })
}
