import { randomUUID } from 'node:crypto'
import type { UsageBatch, UsageLog } from '../../src/limits/limits.ts'
import { batchOf } from '../../src/metering/event-batch.ts'
import type { UsageEvent } from '../../src/metering/usage-event.ts'

/** A sound usage event with an id of its own; now, unless told otherwise. */
export function usageEvent(changes: Partial<UsageEvent> = {}): UsageEvent {
  return {
    id: randomUUID(),
    requestId: randomUUID(),
    organizationId: 'organization-a',
    consumerId: 'consumer-a',
    serviceId: 'service-a',
    endpointId: 'endpoint-a',
    keyId: 'key-a',
    startMs: Date.now(),
    requests: 1,
    corrects: '',
    durationMs: 12,
    firstTokenMs: 0,
    status: 'succeeded',
    errorReason: '',
    tokens: { input: 10, cachedInput: 4, cacheWriteInput: 3, output: 20, reasoningOutput: 5 },
    usageSource: 'provider',
    costNanos: 1_234_567,
    currency: 'USD',
    priceVersion: '1',
    model: 'practice-1',
    attempt: 1,
    metadata: {},
    traceparent: '',
    ...changes,
  }
}

interface Entry {
  readonly position: string
  readonly event: UsageEvent
}

/** A usage log in memory: reads hold entries until they are acknowledged, as the contract says. */
export class MemoryUsageLog implements UsageLog {
  readonly #waiting: Entry[] = []
  readonly #held = new Map<string, Entry>()
  #next = 1
  sweeps = 0

  append(...events: UsageEvent[]): void {
    for (const event of events) this.#waiting.push({ position: String(this.#next++), event })
  }

  /** As after a crash of the reader: what it held can be read again. */
  abandon(): void {
    this.#waiting.unshift(...this.#held.values())
    this.#held.clear()
  }

  async read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageBatch> {
    const deadline = Date.now() + waitMs
    while (this.#waiting.length === 0 && Date.now() < deadline && !signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    const entries = this.#waiting.splice(0, max)
    for (const entry of entries) this.#held.set(entry.position, entry)
    const batch = batchOf(entries.map(({ event }) => event))
    return { ...batch, acknowledge: () => this.acknowledge(entries) }
  }

  async acknowledge(entries: readonly Entry[]): Promise<void> {
    for (const entry of entries) this.#held.delete(entry.position)
  }

  async backlog(): Promise<number> {
    return this.#waiting.length + this.#held.size
  }

  async sweep(): Promise<number> {
    this.sweeps++
    return 0
  }
}
