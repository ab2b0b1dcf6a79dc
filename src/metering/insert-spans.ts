import { ROOT_CONTEXT, SpanKind, TraceFlags, trace } from '@opentelemetry/api'
import type { UsageEvent } from './usage-event.ts'

/**
 * Shows the write of a batch in the trace of each event that it wrote, as a span `usage_records insert` from `startMs`
 * to `endMs` (Unix milliseconds). Of the batch, events without a traceparent may be left out; `batchSize` counts them all.
 * Does nothing without sampled events, and next to nothing without tracing.
 */
export function traceInserts(
  events: readonly Pick<UsageEvent, 'id' | 'traceparent'>[],
  writtenIds: readonly string[],
  startMs: number,
  endMs: number,
  batchSize = events.length,
): void {
  if (writtenIds.length === 0) return
  const ids = new Set(writtenIds)
  const tracer = trace.getTracer('tollgate')
  for (const event of events) {
    // Once for each id, although a batch may hold an event twice.
    if (!ids.delete(event.id)) continue
    const [, version, traceId, spanId, flags] = traceparent.exec(event.traceparent) ?? []
    if (traceId === undefined || spanId === undefined || flags === undefined || version === 'ff') continue
    const traceFlags = Number.parseInt(flags, 16) & TraceFlags.SAMPLED
    const parent = trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote: true })
    const attributes = {
      'db.system.name': 'postgresql',
      'db.operation.name': 'INSERT',
      'db.collection.name': 'usage_records',
      'db.operation.batch.size': batchSize,
    }
    tracer
      .startSpan('usage_records insert', { kind: SpanKind.CLIENT, startTime: startMs, attributes }, parent)
      .end(endMs)
  }
}

/** https://www.w3.org/TR/trace-context/#traceparent-header-field-values */
const traceparent = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/
