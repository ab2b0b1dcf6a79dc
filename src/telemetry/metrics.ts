import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Figures } from './merge-figures.ts'
import {
  type CounterChild,
  counterFamily,
  type Family,
  type HistogramChild,
  histogramFamily,
} from './metric-families.ts'
import { type MetricSources, registerSources } from './metric-sources.ts'

/** All metrics of the process. Counters are counted where things happen; gauges ask their source at each scrape. */
export interface Metrics {
  readonly httpRequests: Family<CounterChild, readonly ['method', 'path', 'status']>
  readonly httpRequestDuration: Family<HistogramChild, readonly ['method', 'path', 'status']>
  readonly httpRequestsFailed: Family<CounterChild, readonly ['method', 'path', 'status']>
  readonly httpRequestsInFlight: { inc(): void; dec(): void }
  readonly consumptionRequests: Family<CounterChild, readonly ['service_id', 'status']>
  /** Calls to services by "success", "error" and "refused": the names and labels of reference 004. */
  readonly marketplaceRequests: Family<CounterChild, readonly ['service', 'status']>
  readonly marketplaceRequestDuration: Family<HistogramChild, readonly ['service']>
  readonly firstTokenDuration: Family<HistogramChild, readonly ['service']>
  /** Outcome: "hit" or "miss". */
  readonly responseCacheLookups: Family<CounterChild, readonly ['service_id', 'outcome']>
  readonly tokensConsumed: Family<CounterChild, readonly ['service_id', 'tier']>
  readonly rateLimitsExceeded: Family<CounterChild, readonly ['service_id', 'tier']>
  readonly quotaExceeded: Family<CounterChild, readonly ['service_id', 'tier']>
  readonly policyViolations: Family<CounterChild, readonly ['service_id', 'policy_id', 'severity']>
  readonly policyValidationDuration: Family<HistogramChild, readonly []>
  /** Kind: "cost" for what was stopped, "error" for what was wrong. */
  readonly policyFailures: Family<CounterChild, readonly ['policy_id', 'kind']>
  /** Outcome: "answered", "late", "failed", or "stopped" by the breaker. */
  readonly policyEngineRequests: Family<CounterChild, readonly ['outcome']>
  /** Kind: "violation" or "decision". */
  readonly policyRecordsDropped: Family<CounterChild, readonly ['kind']>
  /** Outcome: "succeeded", or what went wrong by its name in docs/routing.md. */
  readonly backendAttempts: Family<CounterChild, readonly ['service_id', 'endpoint_id', 'outcome']>
  readonly backendCredentialsRefused: Family<CounterChild, readonly ['service_id', 'endpoint_id']>
  /** Why: by the list in server/handshake-failure.ts. */
  readonly tlsHandshakeFailures: Family<CounterChild, readonly ['why']>
  readonly eventsPublished: Family<CounterChild, readonly ['type']>
  readonly eventsDropped: Family<CounterChild, readonly ['type']>
  readonly domainEventsDelivered: Family<CounterChild, readonly ['sink']>
  readonly domainEventsFailed: Family<CounterChild, readonly ['sink']>
  readonly domainEventsDied: Family<CounterChild, readonly ['sink']>
  /** Says where the gauges come from; sources given later replace those given before, one by one. */
  setSources(sources: MetricSources): void
  /** The text format of Prometheus; `contentType` goes with it. */
  render(): Promise<string>
  /** The same for `mergeFigures`. */
  figures(): Promise<Figures>
  readonly contentType: string
}

export interface MetricsOptions {
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** Metrics of the process and of Node itself; default true. They keep a sampling timer running, which holds nothing. */
  readonly processMetrics?: boolean
}

const callBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
const policyBuckets = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1]

/** Metrics on a registry of their own, so that two gateways in one process do not share counts. */
export function createMetrics(options: MetricsOptions = {}): Metrics {
  const registry = new Registry()
  let sources: MetricSources = {}
  if (options.processMetrics ?? true) collectDefaultMetrics({ register: registry })
  registerSources(registry, options.now ?? Date.now, () => sources)

  const http = ['method', 'path', 'status'] as const
  const perTier = ['service_id', 'tier'] as const
  const counter = <const L extends readonly string[]>(name: string, help: string, labels: L) =>
    counterFamily({ registry, name, help, labels })
  return {
    httpRequests: counter('http_requests_total', 'Calls by method, path and HTTP status of their outcome', http),
    httpRequestDuration: histogramFamily({
      registry,
      name: 'http_request_duration_seconds',
      help: 'Seconds from the arrival of the headers to the end of the answer',
      labels: http,
      buckets: callBuckets,
    }),
    httpRequestsFailed: counter('http_requests_failed_total', 'Calls that were refused or failed', http),
    httpRequestsInFlight: inFlightGauge(registry),
    consumptionRequests: counter('consumption_requests_total', 'Calls to services by outcome', [
      'service_id',
      'status',
    ]),
    marketplaceRequests: counter('marketplace_requests_total', 'Calls to services: success, error or refused', [
      'service',
      'status',
    ]),
    marketplaceRequestDuration: histogramFamily({
      registry,
      name: 'marketplace_request_duration_seconds',
      help: 'Seconds from admission to the end of the backend, of recorded calls',
      labels: ['service'],
      buckets: callBuckets,
    }),
    firstTokenDuration: histogramFamily({
      registry,
      name: 'marketplace_first_token_duration_seconds',
      help: 'Seconds from admission to the first output of a stream, of recorded calls',
      labels: ['service'],
      buckets: callBuckets,
    }),
    responseCacheLookups: counter('tollgate_response_cache_lookups_total', 'Looks into the response cache', [
      'service_id',
      'outcome',
    ]),
    tokensConsumed: counter('tokens_consumed_total', 'Tokens of recorded calls', perTier),
    rateLimitsExceeded: counter('rate_limits_exceeded_total', 'Calls that a rate limit refused', perTier),
    quotaExceeded: counter('quota_exceeded_total', 'Calls that a quota refused', perTier),
    policyViolations: counter('policy_violations_total', 'Violations of policies, whatever was done about them', [
      'service_id',
      'policy_id',
      'severity',
    ]),
    policyValidationDuration: histogramFamily({
      registry,
      name: 'policy_validation_duration_seconds',
      help: 'Seconds that the policy engine took for one call',
      labels: [],
      buckets: policyBuckets,
    }),
    policyFailures: counter('tollgate_policy_failures_total', 'Policies that could not be evaluated for a call', [
      'policy_id',
      'kind',
    ]),
    policyEngineRequests: counter(
      'tollgate_policy_engine_requests_total',
      'Questions to POLICY_ENGINE_URL by outcome',
      ['outcome'],
    ),
    policyRecordsDropped: counter(
      'tollgate_policy_records_dropped_total',
      'Violations and decisions that could not be stored and were given up',
      ['kind'],
    ),
    backendAttempts: counter('tollgate_backend_attempts_total', 'Attempts at backends by outcome', [
      'service_id',
      'endpoint_id',
      'outcome',
    ]),
    backendCredentialsRefused: counter(
      'tollgate_backend_credentials_refused_total',
      'Attempts that failed because the credential of the gate was refused or missing',
      ['service_id', 'endpoint_id'],
    ),
    tlsHandshakeFailures: counter('tollgate_tls_handshake_failures_total', 'TLS connections that did not come about', [
      'why',
    ]),
    eventsPublished: counter('tollgate_events_published_total', 'Analytics events that Kafka took', ['type']),
    eventsDropped: counter('tollgate_events_dropped_total', 'Analytics events that were given up', ['type']),
    domainEventsDelivered: counter('tollgate_domain_events_delivered_total', 'Domain events that a sink took', [
      'sink',
    ]),
    domainEventsFailed: counter('tollgate_domain_events_failures_total', 'Attempts to deliver that failed', ['sink']),
    domainEventsDied: counter('tollgate_domain_events_died_total', 'Domain events that became dead letters', ['sink']),
    setSources(added) {
      sources = { ...sources, ...added }
    },
    render: () => registry.metrics(),
    figures: () => registry.getMetricsAsJSON(),
    contentType: registry.contentType,
  }
}

/** A gauge that is counted here and set once a scrape. */
function inFlightGauge(registry: Registry): Metrics['httpRequestsInFlight'] {
  let count = 0
  new Gauge({
    name: 'http_requests_in_flight',
    help: 'Calls that have begun and not ended',
    registers: [registry],
    collect() {
      this.set(count)
    },
  })
  return {
    inc: () => void count++,
    dec: () => void count--,
  }
}
