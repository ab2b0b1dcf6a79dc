import { setTimeout } from 'node:timers/promises'
import {
  INVALID_SPAN_CONTEXT,
  type Span,
  type SpanOptions,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api'
import type { Logger } from 'pino'
import { createSampler, type SamplerName } from './sampler.ts'
import { tellingExporter } from './telling-exporter.ts'

export interface TracingOptions {
  /** Base URL of an OTLP/HTTP collector. */
  readonly endpoint: string
  readonly sampler: SamplerName
  /** Share of traces that the ratio samplers record, 0 to 1. */
  readonly ratio: number
  /** Told when spans cannot be exported. */
  readonly log: Logger
  /** Default "tollgate". */
  readonly serviceName?: string
}

export interface Tracing {
  /** Exports what is left, 5 s at most, and stops. Never rejects. */
  shutdown(): Promise<void>
}

const shutdownTimeoutMs = 5000

/**
 * Starts the OpenTelemetry SDK: batched OTLP/HTTP protobuf export, W3C trace context, spans made by hand only. The SDK is
 * loaded here and not on import, so that a process without tracing pays nothing for it. Once a process.
 *
 * Headers, timeouts, resource attributes and batch sizes are the SDK's own OTEL_* variables.
 */
export async function startTracing(options: TracingOptions): Promise<Tracing> {
  const [{ NodeSDK }, { OTLPTraceExporter }] = await Promise.all([
    import('@opentelemetry/sdk-node'),
    import('@opentelemetry/exporter-trace-otlp-proto'),
  ])
  const sdk = new NodeSDK({
    serviceName: options.serviceName ?? 'tollgate',
    traceExporter: tellingExporter(
      new OTLPTraceExporter({ url: `${options.endpoint.replace(/\/+$/, '')}/v1/traces` }),
      options.log,
    ),
    sampler: createSampler(options.sampler, options.ratio),
    metricReaders: [],
    logRecordProcessors: [],
    instrumentations: [],
  })
  sdk.start()
  return {
    async shutdown() {
      // An unreachable collector must not hold up the way out; what fails is told by the exporter.
      const timer = new AbortController()
      const late = setTimeout(shutdownTimeoutMs, undefined, { signal: timer.signal }).catch(() => {})
      await Promise.race([sdk.shutdown().catch(() => {}), late])
      timer.abort()
    },
  }
}

/**
 * Runs `run` in a child span of the active one, which ends with it; a rejection marks it as failed. Without an active
 * recording span (tracing off, trace not sampled) it is a plain call.
 */
export function withSpan<T>(name: string, run: (span: Span) => Promise<T>, options: SpanOptions = {}): Promise<T> {
  if (trace.getActiveSpan()?.isRecording() !== true) return run(noSpan)
  return trace.getTracer('tollgate').startActiveSpan(name, options, async (span) => {
    try {
      return await run(span)
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR })
      span.setAttribute('error.type', errorType(error))
      throw error
    } finally {
      span.end()
    }
  })
}

/** W3C traceparent of a sampled span, else empty. */
export function traceparentOf(span: Span): string {
  const { traceId, spanId, traceFlags } = span.spanContext()
  return (traceFlags & TraceFlags.SAMPLED) === 0 ? '' : `00-${traceId}-${spanId}-01`
}

const noSpan = trace.wrapSpanContext(INVALID_SPAN_CONTEXT)

function errorType(error: unknown): string {
  if (!(error instanceof Error)) return typeof error
  return 'reason' in error && typeof error.reason === 'string' ? error.reason : error.name
}
