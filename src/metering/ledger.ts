/**
 * The ledger: `usage_records`, one row an attempt, and what is derived from it in the same statement.
 *
 * - **seen**: the ids of all events that the ledger has; what makes a repeated delivery a no-op.
 * - **rollup**: `usage_hourly`, additive counters and a latency histogram by hour and dimension. Σ rollup = Σ ledger at
 *   every commit.
 * - **quarantine**: events that the ledger cannot take, kept whole with the reason. They are not "seen": they may be
 *   delivered again once the reason is gone.
 */
import { errorCode, type Sql, type Transaction } from '../storage/postgres.ts'
import { type Inserted, insertNew } from './insert-new.ts'
import { homelessReason, quarantine } from './quarantine.ts'
import type { UsageEvent } from './usage-event.ts'
import { type RejectedEvent, usageColumns } from './usage-rows.ts'

export interface BatchResult {
  /** Events that are in the ledger because of this batch. */
  readonly written: number
  /** Repeats within the batch, and events that the ledger or the quarantine had before. */
  readonly duplicates: number
  /** Events that went to quarantine; the three add up to the batch. */
  readonly quarantined: number
  /** Traceparents of the written events that carry one. */
  readonly traced: readonly string[]
}

const emptyResult: BatchResult = { written: 0, duplicates: 0, quarantined: 0, traced: [] }

/**
 * Writes a batch: seen, ledger and rollup in one statement, so that all of it happened or none. May be repeated any
 * number of times, from several processes at once. Throws what the database throws, and has then written nothing.
 */
export async function writeBatch(sql: Sql | Transaction, events: readonly UsageEvent[]): Promise<BatchResult> {
  const { columns, rejected } = usageColumns(events)
  const traceparents = traceparentsOf(events, rejected)
  const outcome = columns.records.ids.length === 0 ? nothing : await insertNew(sql, columns, [...traceparents.keys()])
  const homeless = new Set(outcome.homeless)
  const late = events.filter((event) => homeless.has(event.id))
  const misfits = [...rejected, ...late.map((event): RejectedEvent => ({ event, reason: homelessReason }))]
  const quarantined = await quarantine(sql, misfits)
  return {
    written: outcome.written,
    duplicates: events.length - outcome.written - quarantined,
    quarantined,
    traced: outcome.traced.flatMap((id) => traceparents.get(id) ?? []),
  }
}

/**
 * Like {@link writeBatch}, but an event that makes its batch fail by its data is found by halving and goes to
 * quarantine. Throws only what a later repetition may cure.
 */
export async function writeBatchIsolating(sql: Sql, events: readonly UsageEvent[]): Promise<BatchResult> {
  try {
    return await writeBatch(sql, events)
  } catch (error) {
    if (!isDataError(error)) throw error
    const [only, ...others] = events
    if (only === undefined) return emptyResult
    if (others.length === 0) {
      const reason = `refused by the database: ${errorCode(error) ?? 'unknown'}`
      return { ...emptyResult, quarantined: await quarantine(sql, [{ event: only, reason }]) }
    }
    const middle = Math.ceil(events.length / 2)
    const first = await writeBatchIsolating(sql, events.slice(0, middle))
    const second = await writeBatchIsolating(sql, events.slice(middle))
    return {
      written: first.written + second.written,
      duplicates: first.duplicates + second.duplicates,
      quarantined: first.quarantined + second.quarantined,
      traced: [...first.traced, ...second.traced],
    }
  }
}

const nothing: Inserted = { written: 0, homeless: [], traced: [] }

/** By id, of the events that have a row; a batch may hold an event twice. */
function traceparentsOf(events: readonly UsageEvent[], rejected: readonly RejectedEvent[]): Map<string, string> {
  const misfits = new Set(rejected.map(({ event }) => event))
  const traceparents = new Map<string, string>()
  for (const event of events) {
    if (event.traceparent !== '' && !misfits.has(event)) traceparents.set(event.id, event.traceparent)
  }
  return traceparents
}

/** Classes 22 (data exception), 23 (integrity violation), 54 (limit exceeded); the driver's own have other codes. */
function isDataError(error: unknown): boolean {
  const code = errorCode(error)
  return code !== undefined && /^(22|23|54)[0-9A-Z]{3}$/.test(code)
}
