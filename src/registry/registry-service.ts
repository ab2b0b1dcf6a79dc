import { timestampMs } from '@bufbuild/protobuf/wkt'
import type { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Handlers } from '../call.ts'
import type { TollgateError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { alreadyExists, storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { serviceNotFound } from './not-found.ts'
import { invalid, missing, priceModel, pricingMessage } from './price-message.ts'
import { type AddedPrice, addPrice } from './price-store.ts'
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
export function createRegistryService(options: RegistryServiceOptions): Handlers<typeof Registry.method> {
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
      return serviceMessage(await serviceOf(id), now())
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

    async createPrice({ serviceId, price }) {
      if (price === undefined) throw missing('price')
      const { currency, effectiveTime } = price
      const wanted = { currency, model: priceModel(price.model, 'price') }
      const fromMs = effectiveTime && timestampMs(effectiveTime)
      const added: AddedPrice = isUuid(serviceId)
        ? await storing(() => addPrice(sql, serviceId, wanted, fromMs))
        : { outcome: 'service_not_found' }
      if (added.outcome === 'service_not_found') throw serviceNotFound(serviceId)
      if (added.outcome === 'in_the_past') throw inThePast(added.nowMs)
      await snapshots.refresh()
      return pricingMessage(added.price)
    },

    async listPrices(request) {
      const { prices } = await serviceOf(request.serviceId)
      const isVersion = (part: string): boolean => prices.some(({ version }) => version === part)
      const [after] = parsePageToken(request.pageToken, 1, isVersion) ?? []
      const rest = prices.slice(1 + prices.findIndex(({ version }) => version === after))
      const page = pageOf(rest, pageSizeOf(request.pageSize), ({ version }) => [version])
      return { prices: page.rows.map(pricingMessage), nextPageToken: page.nextPageToken }
    },
  }

  async function serviceOf(idOrName: string): Promise<ServiceRecord> {
    const known = findService(snapshots.current(), idOrName)
    if (known !== undefined) return known
    // It may have been registered with another replica a moment ago.
    await snapshots.refresh()
    const service = findService(snapshots.current(), idOrName)
    if (service === undefined) throw serviceNotFound(idOrName)
    return service
  }
}

function inThePast(nowMs: number): TollgateError {
  const description = `must not be before now, which is ${new Date(nowMs).toISOString()} by the database's clock`
  return invalid('price.effective_time', description, 'not_past')
}
