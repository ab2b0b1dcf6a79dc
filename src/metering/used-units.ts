import { asStorageError, type Sql } from '../storage/postgres.ts'
import { plainArray } from './array-literal.ts'
import { isCountable } from './usage-defects.ts'
import { totalTokens, type UsageEvent } from './usage-event.ts'

export interface UsedUnitsQuery {
  readonly scope: UsageScope
  readonly unit: 'tokens' | { readonly currency: string }
  /** Unix milliseconds, start of an hour; inclusive. */
  readonly monthStartMs: number
  /** Unix milliseconds, start of an hour; exclusive. */
  readonly monthEndMs: number
  /**
   * Events of this scope that were on their way to the ledger at some moment before this call: they count unless the
   * ledger has them by now. Those of other months or currencies add nothing.
   */
  readonly waiting: readonly UsageEvent[]
}

/** Whose usage. */
export interface UsageScope {
  readonly kind: 'organization' | 'consumer' | 'key' | 'service'
  readonly id: string
  /** Only calls of this service; undefined for all. */
  readonly serviceId: string | undefined
}

/**
 * What a scope used in a month: the sum over the ledger, and what is still on its way or in quarantine, each event once.
 * Tokens, or nano-units of the currency. Exact while events move: one statement has one snapshot of the database, in
 * which an event is either in the ledger or not, and `usage_seen` tells which. A sum beyond the safe integers is answered
 * as the greatest of them. Entries of the quarantine that are no events, and figures that are no counts, add nothing.
 * Throws STORAGE_UNAVAILABLE.
 */
export async function usedUnits(sql: Sql, query: UsedUnitsQuery): Promise<number> {
  const { scope, unit, monthStartMs, monthEndMs } = query
  const waiting = query.waiting.filter((event) => isOfMonth(event, query) && isCountable(event))
  const ids = waiting.map(({ id }) => id)
  const units = waiting.map((event) => unitsOf(event, unit))
  const column = sql(columns[scope.kind])
  const service = scope.serviceId === undefined ? sql`` : sql`and service_id = ${scope.serviceId}`
  const currency = unit === 'tokens' ? sql`` : sql`and currency = ${unit.currency}`
  const from = sql`to_timestamp(${monthStartMs}::int8 / 1000.0)`
  const to = sql`to_timestamp(${monthEndMs}::int8 / 1000.0)`
  const inRollup =
    unit === 'tokens'
      ? sql`input_tokens + cached_input_tokens + cache_write_input_tokens + output_tokens + reasoning_output_tokens`
      : sql`cost_nanos`
  // Indexes of usage_hourly that begin with the scope's id: its primary key, or one of its own with the hour.
  const [row] = await sql<[{ used: number }]>`
    with recorded as (
      select coalesce(sum(${inRollup}), 0) as units from usage_hourly
      where ${column} = ${scope.id} ${service} and hour >= ${from} and hour < ${to} ${currency}
    ),
    on_their_way as (
      select event_id, units
      from unnest(${plainArray(ids)}::uuid[], ${plainArray(units)}::int8[]) as waiting (event_id, units)
      union all
      select event_id, ${unit === 'tokens' ? sql`tokens` : sql`cost_nanos`} from usage_quarantine
      where ${column} = ${scope.id} ${service} and start_time >= ${from} and start_time < ${to} ${currency}
    ),
    unrecorded as (
      select distinct on (event_id) units from on_their_way
      where not exists (select from usage_seen where usage_seen.event_id = on_their_way.event_id)
      order by event_id
    )
    select least(recorded.units + (select coalesce(sum(units), 0) from unrecorded), ${Number.MAX_SAFE_INTEGER})::int8 as used
    from recorded`.catch((error: unknown) => {
    throw asStorageError(error)
  })
  return row.used
}

const columns = {
  organization: 'organization_id',
  consumer: 'consumer_id',
  key: 'key_id',
  service: 'service_id',
} as const

function unitsOf(event: UsageEvent, unit: UsedUnitsQuery['unit']): number {
  if (unit === 'tokens') return totalTokens(event.tokens)
  return event.currency === unit.currency ? event.costNanos : 0
}

function isOfMonth({ startMs }: UsageEvent, { monthStartMs, monthEndMs }: UsedUnitsQuery): boolean {
  return startMs >= monthStartMs && startMs < monthEndMs
}
