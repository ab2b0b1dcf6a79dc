import { randomUUID } from 'node:crypto'
import { noTokens, type UsageEvent } from '../metering/usage-event.ts'
import type { Admission, BucketLimit, LimitCost, Limits, PeriodLimit, UsageLog, UsageLogEntry } from './limits.ts'

/** An empty store for one test. */
export interface LimitsFixture {
  readonly limits: Limits
  /** Another reader of the same usage log; the same object where only one process can read. */
  readonly other: Limits
  /** What the ledger answers for a period's key; 0 for a key that is missing, a failure for NaN. */
  readonly used: Map<string, number>
  /** Keys that the ledger was asked for. */
  readonly asked: string[]
  close(): Promise<void>
}

let numbers = 0

/** A bucket of its own that refills one unit a second unless told otherwise. */
export function bucket(changes: Partial<BucketLimit> & { capacity: number }): BucketLimit {
  const key = `bucket:${++numbers}`
  return { kind: 'bucket', name: 'rate', unit: 'requests', subject: 'consumer:c', key, refillPerSecond: 1, ...changes }
}

/** A period of its own that ends in an hour. */
export function period(changes: Partial<PeriodLimit> & { capacity: number }): PeriodLimit {
  const endsAtMs = Date.now() + 3_600_000
  const key = `period:${++numbers}:2026-11`
  return { kind: 'period', name: 'month', unit: 'tokens', subject: 'consumer:c', key, endsAtMs, ...changes }
}

export function uuid(): string {
  return randomUUID()
}

export function usageEvent(changes: Partial<UsageEvent> = {}): UsageEvent {
  return {
    id: uuid(),
    requestId: uuid(),
    organizationId: 'org',
    consumerId: 'consumer',
    serviceId: 'service',
    endpointId: 'endpoint',
    keyId: '',
    startMs: 1_795_000_000_000,
    requests: 1,
    corrects: '',
    durationMs: 12,
    status: 'succeeded',
    errorReason: '',
    tokens: { ...noTokens, input: 3, output: 4 },
    usageSource: 'provider',
    costNanos: 9_007_199_254_740_991,
    currency: 'USD',
    priceVersion: 'v1',
    model: 'modèle "1"\n',
    attempt: 1,
    metadata: { team: 'ü\u0000\u2028' },
    traceparent: '',
    ...changes,
  }
}

/** An admission of a new call with a lease of a minute. */
export function admission(costs: readonly LimitCost[], changes: Partial<Admission> = {}): Admission {
  const id = uuid()
  const organizationId = changes.organizationId ?? 'org'
  const ifAbandoned = usageEvent({ requestId: id, organizationId, status: 'abandoned', usageSource: 'estimated' })
  return { id, organizationId, costs, leaseMs: 60_000, ifAbandoned, ...changes }
}

/** The parts of a settlement that follow from its admission. */
export function open(call: Admission): { id: string; organizationId: string; event: UsageEvent } {
  const event: UsageEvent = { ...call.ifAbandoned, status: 'succeeded', usageSource: 'provider' }
  return { id: call.id, organizationId: call.organizationId, event }
}

/** Reads and acknowledges until nothing comes for a while, or `enough` entries came. */
export async function drain(log: UsageLog, enough = Number.POSITIVE_INFINITY): Promise<UsageLogEntry[]> {
  const all: UsageLogEntry[] = []
  while (all.length < enough) {
    // Longer than a reader may take to look at every part of a shared log.
    const entries = await log.read(100, 1_200, AbortSignal.timeout(30_000))
    if (entries.length === 0) break
    await log.acknowledge(entries)
    all.push(...entries)
  }
  return all
}
