import { timestampMs } from '@bufbuild/protobuf/wkt'
import { PricingSchema, Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { type Actor, actorOf } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import type { TollgateError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { serviceNotFound } from './not-found.ts'
import { invalid, missing, priceModel, pricingMessage } from './price-message.ts'
import { addPrice } from './price-store.ts'
import type { PriceRecord, ServiceRecord } from './records.ts'
import { checkReach } from './service-access.ts'
import type { ServiceLookup } from './service-lookup.ts'
import { lockService } from './service-store.ts'
import type { SnapshotSource } from './snapshot.ts'

export interface PriceHandlersOptions {
  readonly sql: Sql
  readonly snapshots: Pick<SnapshotSource, 'refresh'>
  readonly serviceOf: ServiceLookup
}

/** The RPCs of marketplace.v1.Registry that are about prices. */
export function createPriceHandlers(
  options: PriceHandlersOptions,
): Pick<Handlers<typeof Registry.method>, 'createPrice' | 'listPrices'> {
  const { sql, snapshots, serviceOf } = options

  async function create(tx: Transaction, serviceId: string, wanted: WantedPrice, call: Call): Promise<PriceRecord> {
    const service = await lockService(tx, serviceId)
    if (service === undefined) throw serviceNotFound(serviceId)
    const { organizationId } = service
    checkReach(call.principal, Registry.method.createPrice, organizationId, 'service_id')
    const added = await addPrice(tx, serviceId, wanted, wanted.fromMs)
    if (added.outcome === 'in_the_past') throw inThePast(added.nowMs)
    await recordPrice(tx, actorOf(call), service, added.price)
    return added.price
  }

  return {
    async createPrice({ serviceId, price }, call) {
      if (price === undefined) throw missing('price')
      const { currency, effectiveTime } = price
      const fromMs = effectiveTime && timestampMs(effectiveTime)
      const wanted = { currency, model: priceModel(price.model, 'price'), fromMs }
      if (!isUuid(serviceId)) throw serviceNotFound(serviceId)
      const added = await storing(() => sql.begin((tx) => create(tx, serviceId, wanted, call)))
      await snapshots.refresh()
      return pricingMessage(added)
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
}

/** Leaves the trail of a price that was added. */
export async function recordPrice(
  tx: Transaction,
  actor: Actor,
  { id, organizationId }: Pick<ServiceRecord, 'id' | 'organizationId'>,
  price: PriceRecord,
): Promise<void> {
  await recordChange(tx, actor, {
    type: 'price.created',
    id: `${id}/${price.version}`,
    organizationId: organizationId ?? '',
    after: resourceJson(PricingSchema, pricingMessage(price)),
  })
}

interface WantedPrice extends Pick<PriceRecord, 'currency' | 'model'> {
  /** Unix milliseconds; undefined: from now on. */
  readonly fromMs: number | undefined
}

function inThePast(nowMs: number): TollgateError {
  const description = `must not be before now, which is ${new Date(nowMs).toISOString()} by the database's clock`
  return invalid('price.effective_time', description, 'not_past')
}
