import { ROOT_CONTEXT, SpanKind, TraceFlags, trace } from '@opentelemetry/api'

/**
 * Shows the write of a batch in the traces of the events that it wrote and that carry a traceparent, as a span
 * `usage_records insert` from `startMs` to `endMs` (Unix milliseconds). `batchSize` counts all events of the batch. Does
 * nothing without sampled events, and next to nothing without tracing.
 */
export function traceInserts(traceparents: readonly string[], startMs: number, endMs: number, batchSize: number): void {
  if (traceparents.length === 0) return
  const tracer = trace.getTracer('tollgate')
  for (const text of traceparents) {
    const [, version, traceId, spanId, flags] = traceparent.exec(text) ?? []
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
