import { partitionName } from './month-partitions.ts'
import { defectOf, metadataText, storable } from './usage-defects.ts'
import type { UsageEvent } from './usage-event.ts'

/**
 * A batch as columns, for UNNEST. Most of an event (whose call, which service, how it ended) is what many of a batch
 * have in common: it is sent once, as a row of the **dimensions**, and the **records** name that row by its number.
 */
export interface UsageColumns {
  readonly dimensions: DimensionColumns
  readonly records: RecordColumns
}

/** Columns of equal length, one row for each different one; numbers count from 1. */
export interface DimensionColumns {
  /** Unix milliseconds at which the UTC hour began. */
  readonly hoursMs: number[]
  /** Name of the partition that such records belong to. */
  readonly partitions: string[]
  readonly organizationIds: string[]
  readonly consumerIds: string[]
  readonly serviceIds: string[]
  readonly endpointIds: string[]
  readonly keyIds: string[]
  readonly statuses: string[]
  readonly errorReasons: string[]
  readonly sources: string[]
  readonly currencies: string[]
  readonly priceVersions: string[]
  readonly models: string[]
  readonly attempts: number[]
  readonly requests: number[]
  /** Empty: null. */
  readonly corrected: string[]
}

/** Columns of equal length, each id once, in ascending order. */
export interface RecordColumns {
  readonly ids: string[]
  readonly requestIds: string[]
  /** Number of the record's row of the dimensions. */
  readonly dimensions: number[]
  readonly startsMs: number[]
  readonly durationsMs: number[]
  /** 0: null. */
  readonly firstTokensMs: number[]
  readonly inputs: number[]
  readonly cachedInputs: number[]
  readonly cacheWriteInputs: number[]
  readonly outputs: number[]
  readonly reasoningOutputs: number[]
  readonly costs: number[]
  /** JSON texts. */
  readonly metadata: string[]
}

/** An event that the ledger cannot take, and why. */
export interface RejectedEvent {
  readonly event: UsageEvent
  readonly reason: string
}

/**
 * Splits a batch into columns and the events that no row could hold. Texts that come from callers and backends are made
 * storable instead (NUL and lone surrogates become U+FFFD, a model name is clipped at 200 characters): nobody may slip
 * past the ledger by sending strange labels.
 */
export function usageColumns(events: readonly UsageEvent[]): { columns: UsageColumns; rejected: RejectedEvent[] } {
  const sound: UsageEvent[] = []
  const rejected: RejectedEvent[] = []
  for (const event of events) {
    const reason = defectOf(event)
    if (reason === undefined) sound.push(event)
    else rejected.push({ event, reason })
  }
  const columns: UsageColumns = { dimensions: noDimensions(), records: noRecords() }
  const numbers = new Map<string, number>()
  let before = ''
  for (const event of sound.sort(byId)) {
    if (event.id === before) continue
    before = event.id
    appendRecord(columns.records, event, numberOf(event, numbers, columns.dimensions))
  }
  return { columns, rejected }
}

/** UUIDs of one form: their texts have the order that Postgres gives them. */
function byId(a: UsageEvent, b: UsageEvent): number {
  return a.id < b.id ? -1 : Number(a.id > b.id)
}

/** Number of the dimensions of an event, which are appended when they are new. */
function numberOf(event: UsageEvent, numbers: Map<string, number>, columns: DimensionColumns): number {
  const hourMs = event.startMs - (event.startMs % 3_600_000)
  const { organizationId, consumerId, serviceId, endpointId, keyId, status, usageSource, currency, attempt } = event
  const errorReason = storable(event.errorReason)
  const priceVersion = storable(event.priceVersion)
  const model = storable(event.model.slice(0, 200))
  // No storable text has a NUL: texts that differ have keys that differ.
  const key =
    `${hourMs}\0${organizationId}\0${consumerId}\0${serviceId}\0${endpointId}\0${keyId}\0${status}\0${errorReason}\0` +
    `${usageSource}\0${currency}\0${priceVersion}\0${model}\0${attempt}\0${event.requests}\0${event.corrects}`
  const known = numbers.get(key)
  if (known !== undefined) return known
  columns.hoursMs.push(hourMs)
  columns.partitions.push(partitionName(hourMs))
  columns.organizationIds.push(organizationId)
  columns.consumerIds.push(consumerId)
  columns.serviceIds.push(serviceId)
  columns.endpointIds.push(endpointId)
  columns.keyIds.push(keyId)
  columns.statuses.push(status)
  columns.errorReasons.push(errorReason)
  columns.sources.push(usageSource)
  columns.currencies.push(currency)
  columns.priceVersions.push(priceVersion)
  columns.models.push(model)
  columns.attempts.push(attempt)
  columns.requests.push(event.requests)
  columns.corrected.push(event.corrects)
  numbers.set(key, numbers.size + 1)
  return numbers.size
}

function appendRecord(columns: RecordColumns, event: UsageEvent, dimension: number): void {
  columns.ids.push(event.id)
  columns.requestIds.push(event.requestId)
  columns.dimensions.push(dimension)
  columns.startsMs.push(event.startMs)
  columns.durationsMs.push(Math.max(0, Math.round(event.durationMs)))
  columns.firstTokensMs.push(Math.max(0, Math.round(event.firstTokenMs)))
  columns.inputs.push(event.tokens.input)
  columns.cachedInputs.push(event.tokens.cachedInput)
  columns.cacheWriteInputs.push(event.tokens.cacheWriteInput)
  columns.outputs.push(event.tokens.output)
  columns.reasoningOutputs.push(event.tokens.reasoningOutput)
  columns.costs.push(event.costNanos)
  columns.metadata.push(metadataText(event.metadata))
}

function noDimensions(): DimensionColumns {
  return {
    hoursMs: [],
    partitions: [],
    organizationIds: [],
    consumerIds: [],
    serviceIds: [],
    endpointIds: [],
    keyIds: [],
    statuses: [],
    errorReasons: [],
    sources: [],
    currencies: [],
    priceVersions: [],
    models: [],
    attempts: [],
    requests: [],
    corrected: [],
  }
}

function noRecords(): RecordColumns {
  return {
    ids: [],
    requestIds: [],
    dimensions: [],
    startsMs: [],
    durationsMs: [],
    firstTokensMs: [],
    inputs: [],
    cachedInputs: [],
    cacheWriteInputs: [],
    outputs: [],
    reasoningOutputs: [],
    costs: [],
    metadata: [],
  }
}
