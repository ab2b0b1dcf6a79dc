import { type Aggregator, AggregatorRegistry, type Registry } from 'prom-client'

/** What one process says of its metrics, in a form that can be sent to another one. */
export type Figures = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/**
 * How gauges of several processes become one. Counters and histograms are added up, and so is what a process holds for
 * itself. What all of them look at is told once: as the largest, since nobody reads a store at the same moment. Of a
 * state, the worst is told.
 */
const ways: Readonly<Record<string, Aggregator>> = {
  http_requests_in_flight: 'sum',
  db_connections_active: 'sum',
  db_connections_idle: 'sum',
  redis_connections_active: 'sum',
  analytics_buffer_size: 'sum',
  tollgate_audit_denials_waiting: 'sum',
  tollgate_response_cache_bytes: 'sum',
  tollgate_response_cache_answers: 'sum',
  tollgate_limit_slices: 'sum',
  tollgate_limit_slice_units: 'sum',
  tollgate_usage_backlog: 'max',
  tollgate_audit_records: 'max',
  tollgate_services_past_sunset: 'max',
  tollgate_domain_events_behind: 'max',
  tollgate_domain_events_waiting: 'max',
  tollgate_domain_events_dead_letters: 'max',
  tollgate_domain_events_lag_seconds: 'max',
  tollgate_registry_services: 'max',
  tollgate_registry_held_back: 'max',
  tollgate_registry_passed_over: 'max',
  tollgate_books_difference_units: 'max',
  tollgate_books_differences: 'max',
  tollgate_workers_expected: 'max',
  tollgate_workers_serving: 'max',
  tollgate_workers_silent: 'max',
  tollgate_breaker_state: 'max',
  tollgate_policy_engine_breaker_state: 'max',
  tollgate_limits_mode: 'max',
  tollgate_books_age_seconds: 'min',
  tollgate_registry_available: 'min',
  tollgate_registry_age_seconds: 'min',
  tollgate_drain_last_write_age_seconds: 'min',
  tollgate_endpoint_healthy: 'min',
  tollgate_limits_available: 'min',
  tollgate_events_available: 'min',
  tollgate_token_keys: 'min',
  tollgate_tls_certificate_expires_seconds: 'min',
  process_start_time_seconds: 'min',
  process_resident_memory_bytes: 'sum',
  process_virtual_memory_bytes: 'sum',
  process_heap_bytes: 'sum',
  process_open_fds: 'sum',
  process_max_fds: 'sum',
  nodejs_version_info: 'first',
  nodejs_eventloop_lag_seconds: 'max',
  nodejs_eventloop_lag_min_seconds: 'min',
  nodejs_eventloop_lag_max_seconds: 'max',
  nodejs_eventloop_lag_mean_seconds: 'max',
  nodejs_eventloop_lag_stddev_seconds: 'max',
  nodejs_eventloop_lag_p50_seconds: 'max',
  nodejs_eventloop_lag_p90_seconds: 'max',
  nodejs_eventloop_lag_p99_seconds: 'max',
  nodejs_active_resources: 'sum',
  nodejs_active_resources_total: 'sum',
  nodejs_active_handles: 'sum',
  nodejs_active_handles_total: 'sum',
  nodejs_active_requests: 'sum',
  nodejs_active_requests_total: 'sum',
  nodejs_heap_size_total_bytes: 'sum',
  nodejs_heap_size_used_bytes: 'sum',
  nodejs_external_memory_bytes: 'sum',
  nodejs_heap_space_size_total_bytes: 'sum',
  nodejs_heap_space_size_used_bytes: 'sum',
  nodejs_heap_space_size_available_bytes: 'sum',
}

/** Names of the gauges that can be merged: all that there are, by a test. */
export const mergedGauges: readonly string[] = Object.keys(ways)

/** The metrics of several processes as those of one. What one of them does not say is what the others say. */
export function mergeFigures(all: readonly Figures[]): Pick<Registry, 'metrics' | 'getMetricsAsJSON'> {
  return AggregatorRegistry.aggregate(
    all.map((figures) =>
      figures.map((metric) => ({
        ...metric,
        aggregator: ways[metric.name] ?? 'sum',
        // A lag that nobody measured yet.
        values: metric.values.filter(({ value }) => !Number.isNaN(value)),
      })),
    ),
  )
}

/** Of these figures, those that only grow while a process lives: what a process that is gone still counts for. */
export function countsOf(figures: Figures): Figures {
  return figures.filter((metric) => ways[metric.name] === undefined)
}
