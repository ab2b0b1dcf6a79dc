import type { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { UnaryService } from '../call.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { alreadyExists, storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { serviceNotFound } from './not-found.ts'
import type { ServiceRecord } from './records.ts'
import { insertService } from './registry-store.ts'
import { newServiceRecord, serviceMessage } from './service-message.ts'
import { findService, type SnapshotSource } from './snapshot.ts'

export interface RegistryServiceOptions {
  readonly sql: Sql
  readonly snapshots: SnapshotSource
  /** UUIDv7, lower case. */
  readonly newId: () => string
  /** Unix milliseconds; decides which price is shown. Default Date.now. */
  readonly now?: () => number
}

/** marketplace.v1.Registry: writes to Postgres, reads from the snapshot. A writer reads its own write. */
export function createRegistryService(options: RegistryServiceOptions): UnaryService<typeof Registry.method> {
  const { sql, snapshots, newId, now = Date.now } = options
  return {
    async registerService(request) {
      const record = newServiceRecord(request.service, newId, now())
      const { name, version } = record
      await storing(() => insertService(sql, record), {
        services_name_version_key: () => alreadyExists('service.version', version, ` for service ${name}`),
      })
      await snapshots.refresh()
      return serviceMessage(snapshots.current().servicesById.get(record.id) ?? record, now())
    },

    async getService({ id }) {
      let service = findService(snapshots.current(), id)
      if (service === undefined) {
        // It may have been registered with another replica a moment ago.
        await snapshots.refresh()
        service = findService(snapshots.current(), id)
      }
      if (service === undefined) throw serviceNotFound(id)
      return serviceMessage(service, now())
    },

    async listServices(request) {
      const size = pageSizeOf(request.pageSize)
      const [afterId = ''] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      // The snapshot is in the order of ids.
      const found: ServiceRecord[] = []
      for (const service of snapshots.current().servicesById.values()) {
        if (service.id > afterId) found.push(service)
        if (found.length > size) break
      }
      const page = pageOf(found, size, (service) => [service.id])
      return { services: page.rows.map((row) => serviceMessage(row, now())), nextPageToken: page.nextPageToken }
    },
  }
}
