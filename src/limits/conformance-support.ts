import { randomUUID } from 'node:crypto'
import { TollgateError } from '../errors.ts'
import { noTokens, type UsageEvent } from '../metering/usage-event.ts'
import { limitKey, monthEndMs, monthOf, periodKey, subjectFields, unitsOf } from './limit-keys.ts'
import type {
  Admission,
  AdmissionResult,
  BucketLimit,
  Claim,
  ConcurrencyLimit,
  LimitCost,
  Limits,
  PeriodLimit,
  PeriodSeed,
  Settlement,
  UsageLog,
  UsageScope,
} from './limits.ts'

/** An empty store for one test. */
export interface LimitsFixture {
  readonly limits: Limits
  /** Another reader of the same usage log; the same object where only one process can read. */
  readonly other: Limits
  /** How long a reader may need to look at every part of the usage log. Default 1,200. */
  readonly quietMs?: number
  close(): Promise<void>
}

/** What the ledger was asked for a seed. */
export interface SeedQuestion {
  readonly key: string
  /** Ids of the waiting events, sorted. */
  readonly waiting: readonly string[]
}

/** What became of a call; undefined where nobody knows, because limits could not be asked. */
export async function outcomeOf(limits: Limits, call: Admission): Promise<AdmissionResult['outcome'] | undefined> {
  try {
    return (await limits.admit(call)).outcome
  } catch (error) {
    if (error instanceof TollgateError && error.reason === 'LIMITS_UNAVAILABLE') return undefined
    throw error
  }
}

/** A ledger that knows the events that it was given, each once, and beside them what tests say was used before. */
export class FakeLedger {
  readonly asked: SeedQuestion[] = []
  /** Units by the key of a period. */
  readonly usedBefore = new Map<string, number>()
  /** What becomes of an answer on its way back. */
  answer: (used: number) => Promise<number> = async (used) => used
  readonly #events = new Map<string, UsageEvent>()

  take(events: readonly UsageEvent[]): void {
    for (const event of events) if (!this.#events.has(event.id)) this.#events.set(event.id, event)
  }

  /** Ids of the events that it was given. */
  get ids(): string[] {
    return [...this.#events.keys()]
  }

  readonly seed: PeriodSeed = (limit, waiting) => {
    this.asked.push({ key: limit.key, waiting: waiting.map((event) => event.id).sort() })
    const events = new Map(this.#events)
    for (const event of waiting) if (!events.has(event.id)) events.set(event.id, event)
    let used = this.usedBefore.get(limit.key) ?? 0
    for (const event of events.values()) used += unitsOf(limit, event) ?? 0
    return this.answer(used)
  }
}

/** The month in which tests book is the next one: it does not end while they run. */
const monthStartMs = monthEndMs(Date.now())
const month = monthOf(monthStartMs)

/** A bucket of its own that refills one unit a second unless told otherwise. */
export function bucket(changes: Partial<BucketLimit> & { capacity: number }): BucketLimit {
  return { kind: 'bucket', unit: 'requests', refill: 1, windowMs: 1_000, ...newSubject('rate'), ...changes }
}

/** A period of its own, of tokens unless told otherwise: that of a new consumer, or of the scope that is given. */
export function period(changes: Partial<PeriodLimit> & { capacity: number }): PeriodLimit {
  const { unit = 'tokens', scope = { kind: 'consumer', id: uuid(), serviceId: undefined } } = changes
  const [name, currency] = unit === 'tokens' ? ['tokens_per_month', ''] : ['cost_per_month', 'USD']
  return {
    kind: 'period',
    name,
    unit,
    subject: `${scope.kind}:${scope.id}`,
    serviceId: scope.serviceId ?? '',
    key: periodKey(name, scope, month, currency),
    endsAtMs: monthEndMs(monthStartMs),
    currency,
    scope,
    ...changes,
  }
}

export function concurrency(capacity: number): ConcurrencyLimit {
  return { kind: 'concurrency', unit: 'calls', capacity, ...newSubject('concurrent') }
}

function newSubject(name: string): Pick<BucketLimit, 'name' | 'subject' | 'serviceId' | 'key'> {
  const scope: UsageScope = { kind: 'consumer', id: uuid(), serviceId: undefined }
  return { name, subject: `consumer:${scope.id}`, serviceId: '', key: limitKey(name, scope) }
}

export function uuid(): string {
  return randomUUID()
}

export function usageEvent(changes: Partial<UsageEvent> = {}): UsageEvent {
  return {
    id: uuid(),
    requestId: uuid(),
    organizationId: uuid(),
    consumerId: uuid(),
    serviceId: uuid(),
    endpointId: 'endpoint',
    keyId: '',
    startMs: monthStartMs + 1_000,
    requests: 1,
    corrects: '',
    durationMs: 12,
    firstTokenMs: 0,
    status: 'succeeded',
    errorReason: '',
    tokens: { ...noTokens, input: 3, output: 4 },
    usageSource: 'provider',
    costNanos: 5_000_000_000,
    currency: 'USD',
    priceVersion: 'v1',
    model: 'modèle "1"\n',
    attempt: 1,
    metadata: { team: 'ü\u0000\u2028' },
    traceparent: '',
    ...changes,
  }
}

/**
 * An admission of a new call with a lease of a minute. Its event is of the scopes of its period limits, and used what is
 * reserved of them.
 */
export function admission(costs: readonly LimitCost[], changes: Partial<Admission> = {}): Admission {
  const id = uuid()
  const reserved = costs.map((cost) => cost.amount)
  const ifAbandoned = usageEvent({
    requestId: id,
    status: 'abandoned',
    usageSource: 'estimated',
    ...idsOf(costs),
    ...spent(costs, reserved),
  })
  return { id, costs, leaseMs: 60_000, ifAbandoned, ...changes }
}

/** The settlement of a call, whose event used what is actual. */
export function settlement(call: Admission, actual: readonly number[], answer?: Uint8Array): Settlement {
  const event: UsageEvent = {
    ...call.ifAbandoned,
    status: 'succeeded',
    usageSource: 'provider',
    ...spent(call.costs, actual),
  }
  return { admission: call, actual, event, ...(answer === undefined ? {} : { answer }) }
}

/** The settlement of a call without limits, that was never admitted. */
export function unknownCall(changes: Partial<UsageEvent> = {}): Settlement {
  const event = usageEvent(changes)
  return { admission: admission([], { id: event.requestId, ifAbandoned: event }), actual: [], event }
}

/** A claim of its own. */
export function claim(changes: Partial<Claim> = {}): Claim {
  return { key: `claim|consumer:${uuid()}|k`, fingerprint: 'a', ...changes }
}

/** Reads, gives to the ledger and acknowledges until nothing comes for a while, or `enough` entries came. */
export async function drain(
  log: UsageLog,
  ledger: Pick<FakeLedger, 'take'>,
  { enough = Number.POSITIVE_INFINITY, quietMs = 100 } = {},
): Promise<UsageEvent[]> {
  const all: UsageEvent[] = []
  while (all.length < enough) {
    const batch = await log.read(100, quietMs, AbortSignal.timeout(30_000))
    if (batch.size === 0) break
    const events = batch.events()
    ledger.take(events)
    await batch.acknowledge()
    all.push(...events)
  }
  return all
}

function idsOf(costs: readonly LimitCost[]): Partial<UsageEvent> {
  const scopes = costs.flatMap(({ limit }) => (limit.kind === 'period' ? [limit.scope] : []))
  return Object.fromEntries(
    scopes.flatMap(({ kind, id, serviceId }) => [
      [subjectFields[kind], id],
      ...(serviceId === undefined ? [] : [['serviceId', serviceId]]),
    ]),
  )
}

/** Limits of the same unit count the same usage; the same limit twice adds up. */
function spent(costs: readonly LimitCost[], amounts: readonly number[]): Partial<UsageEvent> {
  const sum = (unit: 'tokens' | 'nanos'): number | undefined => {
    const first = costs.find(({ limit }) => limit.kind === 'period' && limit.unit === unit)?.limit.key
    if (first === undefined) return undefined
    return costs.reduce((total, { limit }, index) => total + (limit.key === first ? (amounts[index] ?? 0) : 0), 0)
  }
  const [tokens, nanos] = [sum('tokens'), sum('nanos')]
  return {
    ...(tokens === undefined ? {} : { tokens: { ...noTokens, input: tokens } }),
    ...(nanos === undefined ? {} : { costNanos: nanos }),
  }
}
