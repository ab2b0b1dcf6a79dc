import type { Sql, Transaction } from '../storage/postgres.ts'
import type { PriceModel, PriceRecord, PriceTier } from './records.ts'

/** Statements on prices. A row is never changed: a trigger refuses it. */

export interface PriceRow {
  readonly service_id: string
  readonly version: string
  readonly effective_from: Date
  readonly currency: string
  readonly kind: PriceModel['kind']
  readonly input_nanos_per_million: number | null
  readonly output_nanos_per_million: number | null
  readonly cached_input_nanos_per_million: number | null
  readonly cache_write_input_nanos_per_million: number | null
  readonly reasoning_output_nanos_per_million: number | null
  readonly tiers: readonly PriceTier[]
  readonly request_nanos: number | null
}

/** Prices of all services, or of one, of each in the order of `ServiceRecord.prices`. */
export async function selectPrices(sql: Sql | Transaction, serviceId?: string): Promise<PriceRow[]> {
  const which = serviceId === undefined ? sql`` : sql`where service_id = ${serviceId}`
  return sql<PriceRow[]>`select * from prices ${which} order by effective_from desc, ordinal desc`
}

export async function insertPrice(tx: Transaction, serviceId: string, price: PriceRecord): Promise<PriceRecord> {
  const { version, currency, model } = price
  const row = {
    service_id: serviceId,
    version,
    currency,
    effective_from: new Date(price.effectiveFromMs),
    kind: model.kind,
    ...modelColumns(tx, model),
  }
  const [stored] = await tx<[PriceRow]>`insert into prices ${tx(row)} returning *`
  return priceRecord(stored)
}

/** What becomes of a price that is to be added. */
export type AddedPrice =
  | { readonly outcome: 'added'; readonly price: PriceRecord }
  /** It asks to be in force before now, which is this instant. */
  | { readonly outcome: 'in_the_past'; readonly nowMs: number }

/**
 * Adds the next version of a service's price, in force from `fromMs` on, or from now on. Now is the database's: a price
 * that asks for an instant up to {@link graceMs} ago, as an administrator's clock that is slow would, is in force from
 * now on, and one that asks for more is not added. So no call that has been priced would be priced otherwise today.
 * The transaction must hold the service's row: versions are given one after the other, and the clock is read by whoever has
 * its turn.
 */
export async function addPrice(
  tx: Transaction,
  serviceId: string,
  price: Pick<PriceRecord, 'currency' | 'model'>,
  fromMs: number | undefined,
): Promise<AddedPrice> {
  const [next] = await tx<[{ now: Date; number: number }]>`
    select clock_timestamp() as now,
      1 + greatest(count(*), coalesce(max(substring(version from '^v([0-9]{1,9})$')::int8), 0)) as number
    from prices where service_id = ${serviceId}`
  const nowMs = next.now.getTime()
  const wantedMs = fromMs ?? nowMs
  if (wantedMs < nowMs - graceMs) return { outcome: 'in_the_past', nowMs }
  const record = { ...price, version: `v${next.number}`, effectiveFromMs: Math.max(wantedMs, nowMs) }
  return { outcome: 'added', price: await insertPrice(tx, serviceId, record) }
}

/** How far a clock may be behind the database's, in milliseconds. */
const graceMs = 5_000

export function priceRecord(row: PriceRow): PriceRecord {
  const { version, currency } = row
  return { version, currency, effectiveFromMs: row.effective_from.getTime(), model: priceModel(row) }
}

/** The table's check makes sure that the rates of the kind are there. */
function priceModel(row: PriceRow): PriceModel {
  if (row.kind === 'subscription') return { kind: 'subscription' }
  if (row.kind === 'per_request') return { kind: 'per_request', requestNanos: row.request_nanos ?? 0 }
  const input = row.input_nanos_per_million ?? 0
  const output = row.output_nanos_per_million ?? 0
  return {
    kind: 'per_token',
    inputNanosPerMillion: input,
    outputNanosPerMillion: output,
    cachedInputNanosPerMillion: row.cached_input_nanos_per_million ?? input,
    cacheWriteInputNanosPerMillion: row.cache_write_input_nanos_per_million ?? input,
    reasoningOutputNanosPerMillion: row.reasoning_output_nanos_per_million ?? output,
    tiers: row.tiers,
  }
}

function modelColumns(tx: Transaction, model: PriceModel) {
  if (model.kind === 'subscription') return {}
  if (model.kind === 'per_request') return { request_nanos: model.requestNanos }
  return {
    input_nanos_per_million: model.inputNanosPerMillion,
    output_nanos_per_million: model.outputNanosPerMillion,
    cached_input_nanos_per_million: model.cachedInputNanosPerMillion,
    cache_write_input_nanos_per_million: model.cacheWriteInputNanosPerMillion,
    reasoning_output_nanos_per_million: model.reasoningOutputNanosPerMillion,
    tiers: tx.json(model.tiers.map((tier) => ({ ...tier }))),
  }
}
