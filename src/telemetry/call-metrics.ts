import type { CounterChild, HistogramChild } from './metric-families.ts'
import type { Metrics } from './metrics.ts'

/**
 * What was called: an RPC, by HTTP POST to "/<service>/<method>" or by the template of an HTTP binding; or a path of the
 * OpenAI API.
 */
interface Operation {
  readonly verb: string
  readonly path: string
}

/** How a call ended; `error` absent means well. */
interface CallOutcome {
  readonly ms: number
  readonly httpStatus: number
  readonly error?: unknown
}

/** What counts calls of one operation that ended with one status. */
interface Ends {
  readonly all: CounterChild
  readonly duration: HistogramChild
}

/** How the gate refused a call. */
interface Refusal {
  readonly serviceId: string
  readonly tier: string
  readonly error: { readonly reason: string }
}

/** What was recorded of a call. */
interface Recorded {
  readonly serviceId: string
  readonly status: string
  readonly tokens: Readonly<Record<string, number>>
  readonly durationMs: number
  readonly firstTokenMs: number
}

export interface CallMetrics {
  /** Told of every call once at its start and once at its end, refused ones included. */
  readonly rpcs: {
    start(call: unknown, operation: Operation): void
    end(call: unknown, operation: Operation, outcome: CallOutcome): void
  }
  /** Told of every call to a service, refused or recorded. */
  readonly gate: {
    refused(refusal: Refusal): void
    recorded(event: Recorded, tier: string): void
  }
}

/** Counts calls. It knows calls by their shape only, so that telemetry depends on no domain folder. */
export function createCallMetrics(metrics: Metrics): CallMetrics {
  /** What counts the ends of an operation, by status. */
  const ends = new WeakMap<Operation, Map<number, Ends>>()

  function endsOf(operation: Operation, httpStatus: number): Ends {
    const known = ends.get(operation)?.get(httpStatus)
    if (known !== undefined) return known
    const labels = [operation.verb, operation.path, String(httpStatus)] as const
    const made = { all: metrics.httpRequests.of(...labels), duration: metrics.httpRequestDuration.of(...labels) }
    ends.set(operation, (ends.get(operation) ?? new Map<number, Ends>()).set(httpStatus, made))
    return made
  }

  return {
    rpcs: {
      start() {
        metrics.httpRequestsInFlight.inc()
      },
      end(_call, operation, { ms, httpStatus, error }) {
        metrics.httpRequestsInFlight.dec()
        const { all, duration } = endsOf(operation, httpStatus)
        all.inc()
        duration.observe(ms / 1000)
        if (error === undefined) return
        metrics.httpRequestsFailed.of(operation.verb, operation.path, String(httpStatus)).inc()
      },
    },
    gate: {
      refused({ serviceId, tier, error }) {
        metrics.consumptionRequests.of(serviceId, error.reason.toLowerCase()).inc()
        metrics.marketplaceRequests.of(serviceId, 'refused').inc()
        if (error.reason === 'RATE_LIMITED') metrics.rateLimitsExceeded.of(serviceId, tier).inc()
        if (error.reason === 'QUOTA_EXCEEDED') metrics.quotaExceeded.of(serviceId, tier).inc()
      },
      recorded({ serviceId, status, tokens, durationMs, firstTokenMs }, tier) {
        let total = 0
        for (const part in tokens) total += tokens[part] ?? 0
        metrics.consumptionRequests.of(serviceId, status).inc()
        metrics.marketplaceRequests.of(serviceId, status === 'succeeded' ? 'success' : 'error').inc()
        metrics.marketplaceRequestDuration.of(serviceId).observe(durationMs / 1000)
        if (firstTokenMs > 0) metrics.firstTokenDuration.of(serviceId).observe(firstTokenMs / 1000)
        if (total > 0) metrics.tokensConsumed.of(serviceId, tier).inc(total)
      },
    },
  }
}
