import { UsageRecordSchema } from '../../gen/marketplace/v1/usage_pb.ts'
import type { Actor } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import { TollgateError } from '../errors.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { correctionIds, correctionOf } from './correction.ts'
import { writeBatch } from './ledger.ts'
import { usageRecordMessage } from './messages.ts'
import type { TokenParts, UsageEvent, UsageSource } from './usage-event.ts'
import { recordColumns, toEvent, type UsageRow } from './usage-store.ts'

/** What an administrator says a record should have been. */
export interface RecordCorrection {
  /** Who says it. */
  readonly actor: Actor
  readonly recordId: string
  /** UUID of the request: a repeat of it changes nothing. */
  readonly requestId: string
  readonly reason: string
  readonly tokens: TokenParts
  /** Undefined: as in the record. */
  readonly usageSource: UsageSource | undefined
  /** Undefined: what `priceOf` says. */
  readonly cost: { readonly nanos: number; readonly currency: string } | undefined
  /** The price of `tokens` when the call of this record started. */
  readonly priceOf: (record: UsageEvent) => BookedCost
}

export interface BookedCost {
  readonly nanos: number
  readonly currency: string
  readonly priceVersion: string
}

/** The entries of a correction, as the ledger has them. */
export interface CorrectedRecord {
  readonly reversal: UsageEvent
  readonly rebooking: UsageEvent
}

/** Labels that the entries carry beside those of the record. */
const reasonLabel = 'correction_reason'
const requestLabel = 'correction_request_id'

/**
 * Adds the entries that correct a record, or finds those that another try of the same request added. Of several at the
 * same time one succeeds, because their entries have the same ids. Throws USAGE_RECORD_NOT_FOUND (also for a record that retention
 * dropped), USAGE_RECORD_REVERSED when another request corrected the record before, ALREADY_EXISTS when this request
 * stated another usage then, STORAGE_UNAVAILABLE, and what `priceOf` throws.
 */
export function correctRecord(sql: Sql, correction: RecordCorrection): Promise<CorrectedRecord> {
  return storing(() =>
    sql.begin(async (tx) => {
      const record = await selectRecord(tx, correction.recordId)
      const entries = await selectEntries(tx, record.id)
      if (entries.length > 0) return otherTry(tx, record, entries, correction)
      if (record.requests < 0) throw await reversed(tx, record)
      if (record.requests === 0) throw superseded(record)
      const { cost } = correction
      const { nanos, currency, priceVersion } =
        cost === undefined ? correction.priceOf(record) : { ...cost, priceVersion: '' }
      const right: UsageEvent = {
        ...record,
        tokens: correction.tokens,
        usageSource: correction.usageSource ?? record.usageSource,
        costNanos: nanos,
        currency,
        priceVersion,
        metadata: {
          ...record.metadata,
          [reasonLabel]: correction.reason,
          [requestLabel]: correction.requestId,
        },
      }
      const [reversal, rebooking] = correctionOf(record, right, correctionIds(record.id))
      const { written } = await writeBatch(tx, [reversal, rebooking])
      if (written === 2) {
        await recordCorrection(tx, correction, record, rebooking)
        return { reversal, rebooking }
      }
      // Others came in between, and if only one did, what was written here is taken back.
      return otherTry(tx, record, await selectEntries(tx, record.id), correction)
    }),
  )
}

/** Without the labels of its caller: what they say is in the ledger, and nobody changes it. */
async function recordCorrection(
  tx: Transaction,
  { actor, reason }: RecordCorrection,
  record: UsageEvent,
  rebooking: UsageEvent,
): Promise<void> {
  const json = (event: UsageEvent) => resourceJson(UsageRecordSchema, { ...usageRecordMessage(event), metadata: {} })
  await recordChange(tx, actor, {
    type: 'usage_record.corrected',
    id: record.id,
    organizationId: record.organizationId,
    before: json(record),
    after: json(rebooking),
    reason,
  })
}

async function selectRecord(tx: Transaction, id: string): Promise<UsageEvent> {
  // Primary key of usage_records, in each partition.
  const [row] = await tx<UsageRow[]>`select ${recordColumns(tx)} from usage_records where id = ${id}`
  if (row !== undefined) return toEvent(row)
  throw new TollgateError('USAGE_RECORD_NOT_FOUND', `There is no usage record ${id}.`, { metadata: { recordId: id } })
}

/** Index usage_records_corrects. */
async function selectEntries(tx: Transaction, recordId: string): Promise<UsageEvent[]> {
  const rows = await tx<UsageRow[]>`select ${recordColumns(tx)} from usage_records where corrects = ${recordId}`
  return rows.map(toEvent)
}

async function otherTry(
  tx: Transaction,
  record: UsageEvent,
  entries: readonly UsageEvent[],
  { requestId, reason, tokens, cost }: RecordCorrection,
): Promise<CorrectedRecord> {
  const reversal = entries.find(({ requests }) => requests < 0)
  const rebooking = entries.find(({ requests }) => requests > 0)
  const isOwn = reversal?.metadata[requestLabel] === requestId && rebooking?.metadata[requestLabel] === requestId
  if (!isOwn) throw await reversed(tx, record)
  const isSame =
    rebooking.metadata[reasonLabel] === reason &&
    parts.every((part) => rebooking.tokens[part] === tokens[part]) &&
    (cost === undefined || (rebooking.costNanos === cost.nanos && rebooking.currency === cost.currency))
  if (isSame) return { reversal, rebooking }
  throw new TollgateError('ALREADY_EXISTS', `Request ${requestId} stated another usage, cost or reason before.`, {
    metadata: { field: 'request_id', value: requestId },
    fields: [{ field: 'request_id', description: 'belongs to another correction', rule: 'unique' }],
  })
}

const parts = ['input', 'cachedInput', 'cacheWriteInput', 'output', 'reasoningOutput'] as const

/** It never counts, whatever is stated of it. */
function superseded({ id, requestId }: UsageEvent): TollgateError {
  const description = 'is of an attempt that another one followed; correct the record of the last attempt'
  return new TollgateError('INVALID_ARGUMENT', `Usage record ${id} ${description}, of request ${requestId}.`, {
    metadata: { recordId: id, requestId },
    fields: [{ field: 'usage_record_id', description, rule: 'last_attempt' }],
  })
}

/** Names the version of a record that can be corrected: the last one of its rebookings, or of a reversal's record. */
async function reversed(tx: Transaction, { id, requests, corrects }: UsageEvent): Promise<TollgateError> {
  const from = requests < 0 ? corrects : id
  const [latest] = await tx<{ id: string }[]>`
    with recursive version as (
      select ${from}::uuid as id, 0 as place
      union all
      select record.id, version.place + 1 from version
      join usage_records record on record.corrects = version.id and record.requests = 1
    )
    select id from version order by place desc limit 1`
  const latestId = latest?.id ?? from
  const why = requests < 0 ? 'is a reversal' : 'was corrected before'
  return new TollgateError('USAGE_RECORD_REVERSED', `Usage record ${id} ${why}. Correct ${latestId} instead.`, {
    metadata: { recordId: id, latestRecordId: latestId },
  })
}
