/**
 * The books: do the stores tell the same story? Pure; what they hold was read elsewhere.
 *
 * - **scope**: a consumer, a service and a UTC month; tokens are added up for each.
 * - **counter**: a month's tokens or money of a key, a consumer, an organization or a service, in the store of limits.
 * - **on its way**: an event in the usage log that the ledger does not have yet.
 * - **identities**: used = ledger + on its way + quarantine; held = what open reservations and slices hold. For every counter.
 * - **finding**: one place where the books do not balance.
 */
import { counterKeysOf, monthOf, parsePeriodKey, type UsageDimensions } from '../limits/limit-keys.ts'
import type { LimitsReading } from '../limits/limits-reading.ts'
import type { LedgerReading } from '../metering/ledger-audit.ts'
import { totalTokens, type UsageEvent } from '../metering/usage-event.ts'
import { type BackendCalls, compareBackends, type KnownAttempt } from './backend-calls.ts'

/** Everything that was read in one pass. */
export interface Books {
  /** UTC month "YYYY-MM" that is compared; undefined for all. */
  readonly month: string | undefined
  readonly limits: LimitsReading
  readonly ledger: LedgerReading
  /** Undefined when no log of a backend was given. */
  readonly backends: BackendCalls | undefined
}

/** Figures of one scope; all but counts of records are tokens. */
export interface ScopeFigures {
  readonly consumerId: string
  readonly serviceId: string
  readonly month: string
  readonly records: number
  readonly ledger: number
  readonly rollup: number
  readonly onTheWay: number
  readonly quarantine: number
  /** In nano-units by currency, of the ledger. */
  readonly costNanos: Readonly<Record<string, number>>
}

/** A counter beside what it should say, in its unit. */
export interface CounterFigures {
  /** As `periodKey` of limit-keys.ts writes it. */
  readonly key: string
  readonly month: string
  readonly ledger: number
  readonly onTheWay: number
  readonly quarantine: number
  /** Undefined while the counter is unknown: it will start from the ledger. */
  readonly used: number | undefined
  /** What open reservations and slices hold. */
  readonly reserved: number
  readonly held: number
}

export type FindingKind =
  /** The rollup is not the sum of the ledger. */
  | 'rollup'
  /** A counter is not what was used. */
  | 'counter'
  /** A counter holds something else than the open reservations. */
  | 'held'
  /** An event has more than one record. */
  | 'repeated'
  /** The usage log was told that the ledger has an event; it has not. */
  | 'dropped'
  /** Entries of the usage log that are no usage event. */
  | 'unreadable'
  /** A backend was called, and neither record, event nor reservation knows of it. */
  | 'lost'
  /** A record claims usage that its backend did not report. */
  | 'phantom'
  /** Record and backend name different tokens. */
  | 'tokens'
  /** One attempt reached a backend more than once. */
  | 'called_again'

export interface Finding {
  readonly kind: FindingKind
  /** Empty when it belongs to no scope. */
  readonly consumerId: string
  readonly serviceId: string
  readonly month: string
  /** Id of the event or attempt; empty when it is about a whole scope. */
  readonly id: string
  /** What should stand there and what does, in tokens unless the detail says otherwise. */
  readonly expected: number
  readonly found: number
  readonly detail: string
}

export interface Comparison {
  /** By month, consumer and service. */
  readonly scopes: readonly ScopeFigures[]
  /** By key. */
  readonly counters: readonly CounterFigures[]
  /** Empty when the books balance. */
  readonly findings: readonly Finding[]
  /** Entries in quarantine that name no scope: no sum can take them in. */
  readonly unscoped: number
}

export function compareBooks({ month, limits, ledger, backends }: Books): Comparison {
  const scopes = new Map<string, Draft>()
  const isAsked = (candidate: string): boolean => month === undefined || candidate === month
  const of = (scope: { consumerId: string; serviceId: string; month: string }): Draft => {
    const name = `${scope.month} ${scope.consumerId} ${scope.serviceId}`
    const draft = scopes.get(name) ?? newDraft(scope.consumerId, scope.serviceId, scope.month)
    scopes.set(name, draft)
    return draft
  }
  const findings: Finding[] = []
  const known = new Map<string, KnownAttempt>(ledger.attempts)
  const expected = new Expectations()

  for (const sums of ledger.sums) {
    const draft = of(sums)
    draft.records += sums.ledgerRecords
    draft.ledger += sums.ledgerTokens
    draft.rollup += sums.rollupTokens
    if (sums.ledgerCostNanos > 0) {
      draft.costNanos[sums.currency] = (draft.costNanos[sums.currency] ?? 0) + sums.ledgerCostNanos
    }
    if (sums.wrongRows > 0) findings.push(rollupFinding(sums))
    expected.add('ledger', sums, sums.ledgerTokens, sums.ledgerCostNanos)
  }

  const waiting = new Map<string, UsageEvent>()
  for (const event of ledger.quarantined) {
    if (waiting.has(event.id)) continue
    waiting.set(event.id, event)
    if (!isAsked(monthOfEvent(event))) continue
    of(scopeOf(event)).quarantine += totalTokens(event.tokens)
    expected.addEvent('quarantine', event)
  }
  // An event may stand in the log twice: one that will still be delivered outweighs one that will not.
  const logged = limits.events.toSorted((a, b) => Number(a.acknowledged) - Number(b.acknowledged))
  for (const { event, acknowledged } of logged) {
    if (ledger.recorded.has(event.id) || waiting.has(event.id)) continue
    waiting.set(event.id, event)
    if (!isAsked(monthOfEvent(event))) continue
    const tokens = totalTokens(event.tokens)
    if (acknowledged) {
      findings.push(droppedFinding(event, tokens))
      continue
    }
    of(scopeOf(event)).onTheWay += tokens
    expected.addEvent('onTheWay', event)
  }
  for (const event of waiting.values()) known.set(event.id, event.corrects === '' ? attemptOf(event) : 'elsewhere')
  for (const id of ledger.recorded) if (!known.has(id)) known.set(id, 'elsewhere')

  const reserved = new Map<string, number>()
  for (const { key, units } of limits.slices ?? []) reserved.set(key, (reserved.get(key) ?? 0) + units)
  for (const { event, holds } of limits.reservations) {
    for (const { key, units } of holds) reserved.set(key, (reserved.get(key) ?? 0) + units)
    if (!known.has(event.id)) known.set(event.id, 'open')
  }
  const counters = (limits.counters ?? [])
    .flatMap(({ key, used, held }): CounterFigures[] => {
      const counted = parsePeriodKey(key)
      if (counted === undefined || !isAsked(counted.month)) return []
      return [{ key, month: counted.month, ...expected.of(key), used, reserved: reserved.get(key) ?? 0, held }]
    })
    .sort((a, b) => (a.key < b.key ? -1 : 1))
  for (const counter of counters) findings.push(...counterFindings(counter))

  const sorted = [...scopes].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, draft]) => draft)
  for (const id of ledger.repeatedIds) {
    findings.push({ ...noScope, kind: 'repeated', id, expected: 1, found: 2, detail: 'records: two or more' })
  }
  if (limits.unreadable > 0) {
    const detail = 'entries of the usage log are no usage events'
    findings.push({ ...noScope, kind: 'unreadable', expected: 0, found: limits.unreadable, detail })
  }
  if (backends !== undefined) findings.push(...compareBackends(backends, known, month))
  return { scopes: sorted, counters, findings, unscoped: ledger.quarantinedUnreadable }
}

type Side = 'ledger' | 'onTheWay' | 'quarantine'

/** What every counter should say, whether it exists or not. */
class Expectations {
  readonly #figures = new Map<string, Record<Side, number>>()

  add(side: Side, usage: UsageDimensions, tokens: number, costNanos: number): void {
    const keys = counterKeysOf(usage)
    for (const key of keys.tokens) this.#of(key)[side] += tokens
    for (const key of keys.cost) this.#of(key)[side] += costNanos
  }

  addEvent(side: Side, event: UsageEvent): void {
    this.add(side, { ...event, month: monthOfEvent(event) }, totalTokens(event.tokens), event.costNanos)
  }

  of(key: string): Readonly<Record<Side, number>> {
    return this.#figures.get(key) ?? { ledger: 0, onTheWay: 0, quarantine: 0 }
  }

  #of(key: string): Record<Side, number> {
    const figures = this.#figures.get(key) ?? { ledger: 0, onTheWay: 0, quarantine: 0 }
    this.#figures.set(key, figures)
    return figures
  }
}

/** A finding about no scope in particular; the other fields are added. */
const noScope = { consumerId: '', serviceId: '', month: '', id: '' } as const

type Draft = { -readonly [K in keyof ScopeFigures]: ScopeFigures[K] } & { costNanos: Record<string, number> }

function newDraft(consumerId: string, serviceId: string, month: string): Draft {
  const zero = { records: 0, ledger: 0, rollup: 0, onTheWay: 0, quarantine: 0 }
  return { consumerId, serviceId, month, ...zero, costNanos: {} }
}

function rollupFinding(sums: LedgerReading['sums'][number]): Finding {
  const { consumerId, serviceId, month, ledgerTokens, rollupTokens, wrongRows } = sums
  const facts = [
    `rows of the rollup that are wrong: ${wrongRows}`,
    `records ${sums.ledgerRecords} in the ledger, ${sums.rollupRecords} in the rollup`,
    `nano-${sums.currency === '' ? 'units' : sums.currency} ${sums.ledgerCostNanos} and ${sums.rollupCostNanos}`,
  ]
  const scope = { consumerId, serviceId, month, id: '' }
  return { kind: 'rollup', ...scope, expected: ledgerTokens, found: rollupTokens, detail: facts.join('; ') }
}

function counterFindings({
  key,
  month,
  ledger,
  onTheWay,
  quarantine,
  used,
  reserved,
  held,
}: CounterFigures): Finding[] {
  const findings: Finding[] = []
  const scope = { ...noScope, month, id: key }
  const expected = ledger + onTheWay + quarantine
  if (used !== undefined && used !== expected) {
    const detail = `ledger ${ledger} + on its way ${onTheWay} + quarantine ${quarantine}`
    findings.push({ kind: 'counter', ...scope, expected, found: used, detail })
  }
  if (held !== reserved) {
    // Calls that come and go in step hold the same again and again: only what was settled tells them apart.
    const detail = `held by open reservations and slices; ${used ?? 'unknown'} used`
    findings.push({ kind: 'held', ...scope, expected: reserved, found: held, detail })
  }
  return findings
}

function droppedFinding(event: UsageEvent, tokens: number): Finding {
  const detail = 'acknowledged in the usage log, and not in the ledger'
  return { kind: 'dropped', ...scopeOf(event), id: event.id, expected: tokens, found: 0, detail }
}

function attemptOf(event: UsageEvent): KnownAttempt {
  const { id, attempt, tokens, usageSource } = event
  return { id, ...scopeOf(event), attempt, tokens, usageSource, succeeded: event.status === 'succeeded' }
}

function scopeOf(event: UsageEvent): { consumerId: string; serviceId: string; month: string } {
  return { consumerId: event.consumerId, serviceId: event.serviceId, month: monthOfEvent(event) }
}

/** The month in which an event is booked: that of its start. */
function monthOfEvent({ startMs }: UsageEvent): string {
  return Number.isNaN(new Date(startMs).getTime()) ? 'never' : monthOf(startMs)
}
