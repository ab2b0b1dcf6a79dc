import type { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import type { Logger } from 'pino'

type Exporter = Pick<OTLPTraceExporter, 'export' | 'forceFlush' | 'shutdown'>

/**
 * An exporter that exports as `inner` does, and says in the log when spans cannot be exported any more, and when they can
 * again. The SDK itself drops them without a word.
 */
export function tellingExporter(inner: Exporter, log: Pick<Logger, 'info' | 'warn'>): Exporter {
  let isFailing = false
  return {
    export(spans, done) {
      inner.export(spans, (result) => {
        const isFailed = result.error !== undefined || result.code !== 0
        if (isFailed && !isFailing)
          log.warn({ reason: result.error?.message }, 'traces cannot be exported: spans are dropped')
        if (!isFailed && isFailing) log.info('traces are exported again')
        isFailing = isFailed
        done(result)
      })
    },
    forceFlush: () => inner.forceFlush(),
    shutdown: () => inner.shutdown(),
  }
}
