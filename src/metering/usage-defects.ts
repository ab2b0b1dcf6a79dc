/** What of an event the ledger can hold, and what quotas can count. Events come from a log: trust nothing in them. */
import { totalTokens, type UsageEvent } from './usage-event.ts'

/** What keeps an event out of the ledger; undefined for a sound one. */
export function defectOf(event: UsageEvent): string | undefined {
  try {
    for (const field of ['id', 'requestId'] as const) if (!uuid.test(event[field])) return `${field} is not a UUID`
    for (const field of texts)
      if (!isIdentifier(event[field])) return `${field} is not a text of at most 128 characters`
    for (const field of ['errorReason', 'priceVersion', 'model'] as const) {
      if (typeof event[field] !== 'string') return `${field} is not a text`
    }
    if (!isCount(event.startMs) || event.startMs > latestMs) return 'startMs is out of range'
    if (!Number.isFinite(event.durationMs) || event.durationMs > latestMs) return 'durationMs is out of range'
    if (!Number.isFinite(event.firstTokenMs) || event.firstTokenMs > latestMs) return 'firstTokenMs is out of range'
    if (![1, 0, -1].includes(event.requests)) return 'requests is none of 1, 0 and -1'
    if (event.corrects !== '' && !uuid.test(event.corrects)) return 'corrects is not a UUID'
    if (event.requests === -1 && event.corrects === '') return 'corrects is not stated in a reversal'
    for (const part of parts) {
      if (!isCountOf(event.tokens[part], event)) return `tokens.${part} is not a count`
    }
    if (!isCountOf(event.costNanos, event)) return 'costNanos is not a count'
    if (!isCount(event.attempt) || event.attempt > 1_000_000) return 'attempt is out of range'
    for (const label of Object.values(event.metadata)) if (typeof label !== 'string') return 'a label is not a text'
    return undefined
  } catch {
    return 'a field is missing'
  }
}

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

/** A text with NUL and lone surrogates, which Postgres cannot store, replaced by U+FFFD. */
export function storable(text: string): string {
  const whole = text.includes('\0') ? text.replaceAll('\0', '\uFFFD') : text
  return whole.isWellFormed() ? whole : whole.toWellFormed()
}

/** Labels as JSON; what cannot be stored is replaced as in {@link storable}. */
export function metadataText(metadata: Readonly<Record<string, string>>): string {
  const clean: Record<string, string> = {}
  let isEmpty = true
  for (const [key, value] of Object.entries(metadata)) {
    clean[storable(key)] = storable(value)
    isEmpty = false
  }
  return isEmpty ? '{}' : JSON.stringify(clean)
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

function isCountOf(figure: number, { requests }: UsageEvent): boolean {
  return requests === 0 ? figure === 0 : isCount(figure * requests)
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

function isIdentifier(value: string): boolean {
  return typeof value === 'string' && value.length <= 128 && value === storable(value)
}
