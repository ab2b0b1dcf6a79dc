import { randomUUID } from 'node:crypto'
import { newId } from '../src/ids.ts'
import type { UsageBatch, UsageLog } from '../src/limits/limits.ts'
import { batchOf } from '../src/metering/event-batch.ts'
import type { UsageEvent } from '../src/metering/usage-event.ts'
import { pause } from '../src/pause.ts'

/**
 * Events of as many consumers, in turn, one key each, four services, durations from 20 ms to 10 s. Their calls started 50
 * a millisecond, the last one now.
 */
export function makeEvents(count: number, consumers: number): UsageEvent[] {
  const now = Date.now()
  return Array.from({ length: count }, (_, n): UsageEvent => {
    const startMs = now - Math.floor((count - n) / 50)
    const consumer = ids[n % consumers] ?? ''
    const service = n % 4
    const isFailed = n % 33 === 0
    const tokens = {
      input: 200 + (n % 977),
      cachedInput: n % 3 === 0 ? n % 512 : 0,
      cacheWriteInput: 0,
      output: 50 + (n % 389),
      reasoningOutput: 0,
    }
    return {
      id: newId(startMs),
      requestId: newId(startMs),
      organizationId: ids[900 + ((n % consumers) >> 3)] ?? '',
      consumerId: consumer,
      serviceId: ids[990 + service] ?? '',
      endpointId: ids[980 + service] ?? '',
      keyId: consumer.slice(0, 16),
      startMs,
      requests: 1,
      corrects: '',
      durationMs: Math.round(20 * 500 ** Math.random()),
      firstTokenMs: 0,
      status: isFailed ? 'failed' : 'succeeded',
      errorReason: isFailed ? 'BACKEND_FAILED' : '',
      tokens,
      usageSource: 'provider',
      costNanos: tokens.input * 2_500 + tokens.output * 10_000,
      currency: 'USD',
      priceVersion: '1',
      model: `practice-${service}`,
      attempt: 1,
      metadata: n % 2 === 0 ? {} : { team: 'search', application: 'assistant' },
      traceparent: '',
    }
  })
}

const ids = Array.from({ length: 1_000 }, () => randomUUID())

/** A usage log that hands out events made beforehand; what is acknowledged is forgotten, as a real one does. */
export class MadeUsageLog implements UsageLog {
  readonly #events: readonly UsageEvent[]
  #read = 0
  #acknowledged = 0

  constructor(events: readonly UsageEvent[]) {
    this.#events = events
  }

  async read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageBatch> {
    const events = this.#events.slice(this.#read, this.#read + max)
    this.#read += events.length
    if (events.length === 0) await pause(waitMs, signal)
    const acknowledge = async (): Promise<void> => {
      this.#acknowledged += events.length
    }
    return { ...batchOf(events), acknowledge }
  }

  async backlog(): Promise<number> {
    return this.#events.length - this.#acknowledged
  }

  async sweep(): Promise<number> {
    return 0
  }
}

/** The columns of usage_records, without an index, a constraint or a default. */
export const copyTable = 'create table raw_records as select * from usage_records with no data'

/** COPY's text format, https://www.postgresql.org/docs/current/sql-copy.html, 1000 rows a chunk. */
export function copyChunks(events: readonly UsageEvent[]): string[] {
  const chunks: string[] = []
  for (let from = 0; from < events.length; from += 1_000) {
    chunks.push(
      events
        .slice(from, from + 1_000)
        .map(copyLine)
        .join(''),
    )
  }
  return chunks
}

function copyLine(event: UsageEvent): string {
  const { tokens } = event
  const start = new Date(event.startMs).toISOString()
  const fields = [
    event.id,
    event.requestId,
    event.organizationId,
    event.consumerId,
    event.serviceId,
    event.endpointId,
    event.keyId,
    start,
    event.durationMs,
    event.status,
    event.errorReason,
    tokens.input,
    tokens.cachedInput,
    tokens.cacheWriteInput,
    tokens.output,
    tokens.reasoningOutput,
    event.usageSource,
    event.costNanos,
    event.currency,
    event.priceVersion,
    event.model,
    event.attempt,
    JSON.stringify(event.metadata),
    start,
    event.requests,
    '\\N',
    '\\N',
  ]
  return `${fields.join('\t')}\n`
}
