import { totalTokens, type UsageEvent } from '../metering/usage-event.ts'
import { KnownCalls } from './known-calls.ts'
import type { PeriodLimit, UsageScope } from './limits.ts'

/**
 * Storage keys of limits. They say all that a reader of the store needs to know of a counter:
 *
 *     requests_per_second|consumer:<id>|service:<id>
 *     tokens_per_month|organization:<id>||2026-11
 *     cost_per_month|key:<id>|service:<id>|2026-11|USD
 *
 * They are V8's own one copy of such a text ({@link single}): a call compares and looks up dozens of them, by their addresses.
 */
export function limitKey(name: string, scope: UsageScope): string {
  return single(
    `${name}|${scope.kind}:${scope.id}|${scope.serviceId === undefined ? '' : `service:${scope.serviceId}`}`,
  )
}

/** Of a month ("YYYY-MM") of the scope; with a currency for money. */
export function periodKey(name: string, scope: UsageScope, month: string, currency = ''): string {
  return single(`${limitKey(name, scope)}|${month}${currency === '' ? '' : `|${currency}`}`)
}

/** The copy of a text that all names of properties share. A text that was put together is slow to compare, each time. */
function single(text: string): string {
  return Object.keys({ [text]: true })[0] ?? text
}

/** What a period counter counts. */
export interface PeriodCounter {
  readonly name: string
  readonly scope: UsageScope
  /** UTC, "YYYY-MM". */
  readonly month: string
  /** ISO 4217, or empty for tokens. */
  readonly currency: string
}

/** The inverse of {@link periodKey}; undefined for other keys. */
export function parsePeriodKey(key: string): PeriodCounter | undefined {
  const [, name, kind, id, serviceId, month, currency = ''] = pattern.exec(key) ?? []
  if (name === undefined || !isKind(kind) || id === undefined || month === undefined) return undefined
  return { name, scope: { kind, id, serviceId }, month, currency }
}

const pattern =
  /^([a-z_]+)\|(organization|consumer|key|service):([^|]+)\|(?:service:([^|]+))?\|(\d{4}-\d{2})(?:\|([A-Z]{3}))?$/

function isKind(kind: string | undefined): kind is UsageScope['kind'] {
  return kind === 'organization' || kind === 'consumer' || kind === 'key' || kind === 'service'
}

/** Whose usage of which month and currency; what an event and a row of the ledger have in common. */
export interface UsageDimensions {
  readonly organizationId: string
  readonly consumerId: string
  /** Empty for calls without a key. */
  readonly keyId: string
  readonly serviceId: string
  /** UTC, "YYYY-MM". */
  readonly month: string
  /** ISO 4217; empty when unpriced. */
  readonly currency: string
}

/** Keys of every period counter that such usage moves, existing or not: of tokens, and of money where it has a price. */
export function counterKeysOf(usage: UsageDimensions): { tokens: string[]; cost: string[] } {
  const { organizationId, consumerId, keyId, serviceId, month, currency } = usage
  const scopes: UsageScope[] = [{ kind: 'service', id: serviceId, serviceId: undefined }]
  const subjects = [
    ['organization', organizationId],
    ['consumer', consumerId],
    ['key', keyId],
  ] as const
  for (const [kind, id] of subjects) {
    if (id !== '') scopes.push({ kind, id, serviceId: undefined }, { kind, id, serviceId })
  }
  return {
    tokens: scopes.map((scope) => periodKey('tokens_per_month', scope, month)),
    cost: currency === '' ? [] : scopes.map((scope) => periodKey('cost_per_month', scope, month, currency)),
  }
}

/** What they follow from, beside consumer, service and key. */
interface KnownKeys extends Pick<UsageEvent, 'organizationId' | 'currency'> {
  readonly month: string
  readonly keys: readonly string[]
}

const knownKeys = new KnownCalls<KnownKeys>(10_000)

/** All of {@link counterKeysOf} an event. Every call asks for them, and calls are alike: they are remembered. */
export function periodKeysOf(event: UsageEvent): readonly string[] {
  const { organizationId, consumerId, keyId, serviceId, currency } = event
  const month = monthOf(event.startMs)
  const known = knownKeys.get(consumerId, serviceId, keyId)
  if (known?.month === month && known.currency === currency && known.organizationId === organizationId)
    return known.keys
  const { tokens, cost } = counterKeysOf({ organizationId, consumerId, keyId, serviceId, month, currency })
  const keys = [...tokens, ...cost]
  knownKeys.set(consumerId, serviceId, keyId, { organizationId, month, currency, keys })
  return keys
}

/** The units of an event that a period limit counts; undefined when the event is not of its scope, month or currency. */
export function unitsOf(limit: PeriodLimit, event: UsageEvent): number | undefined {
  const { kind, id, serviceId } = limit.scope
  const subject = event[subjectFields[kind]]
  if (subject !== id || (serviceId !== undefined && event.serviceId !== serviceId)) return undefined
  if (event.startMs >= limit.endsAtMs || monthOf(event.startMs) !== monthOf(limit.endsAtMs - 1)) return undefined
  if (limit.unit === 'tokens') return totalTokens(event.tokens)
  return event.currency === limit.currency ? event.costNanos : undefined
}

/** The field of an event that holds the id of a scope. */
export const subjectFields = {
  organization: 'organizationId',
  consumer: 'consumerId',
  key: 'keyId',
  service: 'serviceId',
} as const satisfies Record<UsageScope['kind'], keyof UsageEvent>

/** The month that was asked for last: nearly all calls ask for the same. */
let latest = { startMs: 0, endMs: 0, text: '' }

/** UTC, "YYYY-MM". */
export function monthOf(atMs: number): string {
  return monthAt(atMs).text
}

/** Unix milliseconds at which the UTC month of a moment ends. */
export function monthEndMs(atMs: number): number {
  return monthAt(atMs).endMs
}

function monthAt(atMs: number): typeof latest {
  if (!(atMs >= latest.startMs && atMs < latest.endMs)) {
    const at = new Date(atMs)
    const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()]
    const text = at.toISOString().slice(0, 7)
    latest = { startMs: Date.UTC(year, month), endMs: Date.UTC(year, month + 1), text }
  }
  return latest
}
