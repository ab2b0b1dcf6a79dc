import { totalTokens, type UsageEvent } from './usage-event.ts'

/** Events as columns, for UNNEST; the arrays have equal lengths. */
export interface UsageColumns {
  readonly ids: string[]
  readonly requestIds: string[]
  readonly organizationIds: string[]
  readonly consumerIds: string[]
  readonly serviceIds: string[]
  readonly endpointIds: string[]
  readonly keyIds: string[]
  readonly startsMs: number[]
  readonly requests: number[]
  /** Empty: null. */
  readonly corrected: string[]
  readonly durationsMs: number[]
  readonly statuses: string[]
  readonly errorReasons: string[]
  readonly inputs: number[]
  readonly cachedInputs: number[]
  readonly cacheWriteInputs: number[]
  readonly outputs: number[]
  readonly reasoningOutputs: number[]
  readonly sources: string[]
  readonly costs: number[]
  readonly currencies: string[]
  readonly priceVersions: string[]
  readonly models: string[]
  readonly attempts: number[]
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
  const columns: UsageColumns = {
    ids: [],
    requestIds: [],
    organizationIds: [],
    consumerIds: [],
    serviceIds: [],
    endpointIds: [],
    keyIds: [],
    startsMs: [],
    requests: [],
    corrected: [],
    durationsMs: [],
    statuses: [],
    errorReasons: [],
    inputs: [],
    cachedInputs: [],
    cacheWriteInputs: [],
    outputs: [],
    reasoningOutputs: [],
    sources: [],
    costs: [],
    currencies: [],
    priceVersions: [],
    models: [],
    attempts: [],
    metadata: [],
  }
  const rejected: RejectedEvent[] = []
  for (const event of events) {
    const reason = defectOf(event)
    if (reason === undefined) append(columns, event)
    else rejected.push({ event, reason })
  }
  return { columns, rejected }
}

function append(columns: UsageColumns, event: UsageEvent): void {
  columns.ids.push(event.id)
  columns.requestIds.push(event.requestId)
  columns.organizationIds.push(event.organizationId)
  columns.consumerIds.push(event.consumerId)
  columns.serviceIds.push(event.serviceId)
  columns.endpointIds.push(event.endpointId)
  columns.keyIds.push(event.keyId)
  columns.startsMs.push(event.startMs)
  columns.requests.push(event.requests)
  columns.corrected.push(event.corrects)
  columns.durationsMs.push(Math.max(0, Math.round(event.durationMs)))
  columns.statuses.push(event.status)
  columns.errorReasons.push(storable(event.errorReason))
  columns.inputs.push(event.tokens.input)
  columns.cachedInputs.push(event.tokens.cachedInput)
  columns.cacheWriteInputs.push(event.tokens.cacheWriteInput)
  columns.outputs.push(event.tokens.output)
  columns.reasoningOutputs.push(event.tokens.reasoningOutput)
  columns.sources.push(event.usageSource)
  columns.costs.push(event.costNanos)
  columns.currencies.push(event.currency)
  columns.priceVersions.push(storable(event.priceVersion))
  columns.models.push(storable(event.model.slice(0, 200)))
  columns.attempts.push(event.attempt)
  columns.metadata.push(metadataText(event.metadata))
}

/** What keeps an event out of the ledger; undefined for a sound one. Events come from a log: trust nothing in them. */
function defectOf(event: UsageEvent): string | undefined {
  try {
    for (const field of ['id', 'requestId'] as const) if (!uuid.test(event[field])) return `${field} is not a UUID`
    for (const field of texts)
      if (!isIdentifier(event[field])) return `${field} is not a text of at most 128 characters`
    for (const field of ['errorReason', 'priceVersion', 'model'] as const) {
      if (typeof event[field] !== 'string') return `${field} is not a text`
    }
    if (!isCount(event.startMs) || event.startMs > latestMs) return 'startMs is out of range'
    if (!Number.isFinite(event.durationMs) || event.durationMs > latestMs) return 'durationMs is out of range'
    if (![1, 0, -1].includes(event.requests)) return 'requests is none of 1, 0 and -1'
    if (event.corrects !== '' && !uuid.test(event.corrects)) return 'corrects is not a UUID'
    if (event.requests === -1 && event.corrects === '') return 'corrects is not stated in a reversal'
    for (const part of parts) {
      if (!isCountOf(event.tokens[part], event)) return `tokens.${part} is not a count`
    }
    if (!isCountOf(event.costNanos, event)) return 'costNanos is not a count'
    if (!isCount(event.attempt) || event.attempt > 1_000_000) return 'attempt is out of range'
    metadataText(event.metadata)
    return undefined
  } catch {
    return 'a field is missing'
  }
}

/** As Postgres prints it: ids that it returns are compared with these. */
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const parts = ['input', 'cachedInput', 'cacheWriteInput', 'output', 'reasoningOutput'] as const
const texts = [
  'organizationId',
  'consumerId',
  'serviceId',
  'endpointId',
  'keyId',
  'status',
  'usageSource',
  'currency',
] as const
/** The year 2200: far enough, and safe for every timestamp function. */
const latestMs = 7_258_118_400_000

/**
 * True when quotas can count an event, wherever it stays: its scopes can be stored, its start is a time, and its figures
 * are counts (negative ones in a reversal, 0 of an attempt that another one followed).
 */
export function isCountable(event: UsageEvent): boolean {
  const { requests, tokens, costNanos } = event
  const figures = [...parts.map((part) => tokens[part]), totalTokens(tokens), costNanos]
  return (
    uuid.test(event.id) &&
    texts.every((field) => isIdentifier(event[field])) &&
    isCount(event.startMs) &&
    event.startMs <= latestMs &&
    [1, 0, -1].includes(requests) &&
    figures.every((figure) => isCountOf(figure, event))
  )
}

function isCountOf(figure: number, { requests }: UsageEvent): boolean {
  return requests === 0 ? figure === 0 : isCount(figure * requests)
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

function isIdentifier(value: string): boolean {
  return typeof value === 'string' && value.length <= 128 && value === storable(value)
}

function storable(text: string): string {
  const whole = text.includes('\0') ? text.replaceAll('\0', '\uFFFD') : text
  return whole.isWellFormed() ? whole : whole.toWellFormed()
}

function metadataText(metadata: Readonly<Record<string, string>>): string {
  const clean: Record<string, string> = {}
  let isEmpty = true
  for (const [key, value] of Object.entries(metadata)) {
    clean[storable(key)] = storable(value)
    isEmpty = false
  }
  return isEmpty ? '{}' : JSON.stringify(clean)
}
