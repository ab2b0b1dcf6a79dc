import { Counter, Gauge, type Registry } from 'prom-client'
import { answerOf } from './answer-of.ts'
import { type DomainEventsSample, registerDomainEvents } from './domain-event-metrics.ts'
import { type OutsideRegistrySample, registerOutsideRegistry } from './outside-registry-metrics.ts'

/** Asked at each scrape, 1 s at most; a source that is absent, fails or is late leaves its metrics out of that scrape. */
export interface MetricSources {
  readonly databaseConnections?: () => Promise<{ readonly active: number; readonly idle: number }>
  readonly redisConnections?: () => number
  readonly breakers?: () => Iterable<BreakerSample>
  /** Endpoints that have a health check. */
  readonly endpointHealth?: () => Iterable<HealthSample>
  /** Entries of the usage log that are not in the ledger yet. */
  readonly usageBacklog?: () => number | Promise<number>
  readonly drain?: () => DrainSample
  /** Services that take calls after the time of their sunset. */
  readonly servicesPastSunset?: () => number
  readonly responseCache?: () => { readonly bytes: number; readonly answers: number }
  readonly limitsAvailable?: () => boolean | Promise<boolean>
  /** Absent where calls are refused while Redis is away. */
  readonly limits?: () => LimitsSample
  /** Absent where limits are embedded. */
  readonly slices?: () => SlicesSample
  /** Undefined while events go to no place that could be away. */
  readonly events?: () => EventsSample | undefined
  /** Absent where no issuer of tokens is trusted. */
  readonly tokenKeys?: () => readonly TokenKeysSample[]
  readonly denials?: () => DenialsSample
  /** Records in the audit log. */
  readonly auditRecords?: () => number | Promise<number>
  /** Absent where the port is in clear. */
  readonly certificate?: () => { readonly expiresAtMs: number; readonly reloads: number }
  /** Of each place that domain events go to. */
  readonly domainEvents?: () => Promise<readonly DomainEventsSample[]>
  /** Absent where the policies of the process decide. */
  readonly policyEngine?: () => { readonly breaker: BreakerSample['state'] }
  /** Absent without a registry elsewhere; undefined while another replica looks at it. */
  readonly outsideRegistry?: () => OutsideRegistrySample | undefined
  /** Of the processes that share a port; absent where there is one. */
  readonly workers?: () => WorkersSample
  /** Undefined while another replica audits the books. */
  readonly books?: () => BooksSample | undefined
}

export interface LimitsSample {
  /** Who admits calls at the moment. */
  readonly mode: AdmissionMode
  /** Calls admitted since start. */
  readonly admitted: Readonly<Record<AdmissionMode, number>>
}

export interface WorkersSample {
  readonly expected: number
  readonly serving: number
  /** Those whose figures are older than this scrape. */
  readonly silent: number
  readonly replaced: number
  readonly restarted: number
}

/** What this process holds of limits in advance. */
export interface SlicesSample {
  /** Limits of which something is held. */
  readonly slices: number
  /** Units of them in all. */
  readonly units: number
  /** Calls that were admitted from them since start. */
  readonly admitted: number
  /** Times that units were taken for one, and units that went back unspent, since start. */
  readonly taken: number
  readonly returned: number
  /** Calls that Redis admitted one by one, or in a batch, since start. */
  readonly asked: number
}

export type AdmissionMode = (typeof admissionModes)[number]

export interface BooksSample {
  /** Unix milliseconds. */
  readonly checkedAtMs: number
  readonly difference: number
  readonly differences: number
}

export interface DenialsSample {
  /** Denials since start. */
  readonly denials: number
  /** Records written of them since start. */
  readonly records: number
  /** Denials that are in no written record yet. */
  readonly waiting: number
  /** Denials that were given up since start. */
  readonly dropped: number
}

export interface BreakerSample {
  readonly serviceId: string
  readonly endpointId: string
  readonly state: 'closed' | 'half_open' | 'open'
}

export interface HealthSample {
  readonly serviceId: string
  readonly endpointId: string
  readonly health: { readonly isSick: boolean }
}

export interface DrainSample {
  /** Unix milliseconds of the last successful write to the ledger; undefined before the first. */
  readonly lastWriteAtMs: number | undefined
  /** Records written since start. */
  readonly written: number
  /** Records that were in the ledger already, since start. */
  readonly duplicates: number
}

export interface TokenKeysSample {
  readonly issuer: string
  /** Keys in use. */
  readonly keys: number
}

export interface EventsSample {
  /** Events that wait. */
  readonly buffered: number
  /** What came of the last attempt to send; undefined when it succeeded. */
  readonly failing: string | undefined
}

const breakerLevels = { closed: 0, half_open: 1, open: 2 } as const
const admissionModes = ['redis', 'open', 'local'] as const

/** Registers the gauges and counters that are read from `sources()` at each scrape. */
export function registerSources(registry: Registry, now: () => number, sources: () => MetricSources): void {
  sampled('db_connections_active', 'Postgres connections that run a statement', async () => {
    return (await sources().databaseConnections?.())?.active
  })
  sampled('db_connections_idle', 'Postgres connections that wait for work', async () => {
    return (await sources().databaseConnections?.())?.idle
  })
  sampled('redis_connections_active', 'Redis connections that are established', () => sources().redisConnections?.())
  sampled('tollgate_usage_backlog', 'Usage events that are not in the ledger yet', () => sources().usageBacklog?.())
  sampled('tollgate_drain_last_write_age_seconds', 'Seconds since usage was last written to the ledger', () => {
    const at = sources().drain?.().lastWriteAtMs
    return at === undefined ? undefined : Math.max(0, now() - at) / 1000
  })
  sampled('tollgate_services_past_sunset', 'Services that take calls after the time of their sunset', () => {
    return sources().servicesPastSunset?.()
  })
  sampled('tollgate_response_cache_bytes', 'Bytes that the response cache holds', () => {
    return sources().responseCache?.().bytes
  })
  sampled('tollgate_response_cache_answers', 'Answers that the response cache holds', () => {
    return sources().responseCache?.().answers
  })
  sampled('tollgate_limits_available', '1 while the store of the limits answers, else 0', async () => {
    const available = await sources().limitsAvailable?.()
    return available === undefined ? undefined : Number(available)
  })
  sampled('tollgate_limit_slices', 'Limits of which this process holds a slice', () => sources().slices?.().slices)
  sampled(
    'tollgate_limit_slice_units',
    'Units that it holds in slices, of all limits',
    () => sources().slices?.().units,
  )
  cumulative('tollgate_limit_slice_admissions_total', 'Calls admitted from slices', () => sources().slices?.().admitted)
  cumulative('tollgate_limit_slice_refills_total', 'Times that a slice got units', () => sources().slices?.().taken)
  cumulative(
    'tollgate_limit_slice_returned_units_total',
    'Units of slices that went back unspent',
    () => sources().slices?.().returned,
  )
  cumulative(
    'tollgate_limit_script_admissions_total',
    'Calls admitted by Redis itself',
    () => sources().slices?.().asked,
  )
  sampled('tollgate_books_difference_units', 'Sum of all differences that the last audit of the books found', () => {
    return sources().books?.()?.difference
  })
  sampled('tollgate_books_differences', 'Differences that the last audit of the books found', () => {
    return sources().books?.()?.differences
  })
  sampled('tollgate_books_age_seconds', 'Seconds since the books were last audited', () => {
    const at = sources().books?.()?.checkedAtMs
    return at === undefined ? undefined : Math.max(0, now() - at) / 1000
  })
  sampled('analytics_buffer_size', 'Analytics events that wait to be sent', () => sources().events?.()?.buffered)
  sampled('tollgate_events_available', '1 while analytics events can be sent, else 0', () => {
    const sample = sources().events?.()
    return sample === undefined ? undefined : Number(sample.failing === undefined)
  })
  sampled('tollgate_audit_records', 'Records in the audit log', () => sources().auditRecords?.())
  sampled('tollgate_audit_denials_waiting', 'Denials that are not in the audit log yet', () => {
    return sources().denials?.().waiting
  })
  cumulative('tollgate_audit_denials_total', 'Denied calls', () => sources().denials?.().denials)
  cumulative('tollgate_audit_denial_records_total', 'Records of the audit log that denied calls left', () => {
    return sources().denials?.().records
  })
  cumulative('tollgate_audit_denials_dropped_total', 'Denied calls that the audit log will not have', () => {
    return sources().denials?.().dropped
  })
  sampled('tollgate_policy_engine_breaker_state', 'Breaker of POLICY_ENGINE_URL: 0 closed, 1 half-open, 2 open', () => {
    const sample = sources().policyEngine?.()
    return sample === undefined ? undefined : breakerLevels[sample.breaker]
  })
  cumulative('tollgate_drain_written_total', 'Usage records written to the ledger', () => sources().drain?.().written)
  cumulative('tollgate_drain_duplicates_total', 'Usage events that were in the ledger already', () => {
    return sources().drain?.().duplicates
  })
  const breakers = new Gauge({
    name: 'tollgate_breaker_state',
    help: "State of an endpoint's breaker: 0 closed, 1 half-open, 2 open",
    labelNames: ['service_id', 'endpoint_id'],
    registers: [registry],
    async collect() {
      const samples = await answerOf(async () => [...(sources().breakers?.() ?? [])])
      breakers.reset()
      for (const { serviceId, endpointId, state } of samples ?? [])
        breakers.set({ service_id: serviceId, endpoint_id: endpointId }, breakerLevels[state])
    },
  })

  registerDomainEvents(registry, () => sources().domainEvents?.())
  registerOutsideRegistry(registry, now, () => sources().outsideRegistry?.())
  const healths = new Gauge({
    name: 'tollgate_endpoint_healthy',
    help: '1 for an endpoint that its health checks find well, else 0',
    labelNames: ['service_id', 'endpoint_id'],
    registers: [registry],
    async collect() {
      const samples = await answerOf(async () => [...(sources().endpointHealth?.() ?? [])])
      healths.reset()
      for (const { serviceId, endpointId, health } of samples ?? [])
        healths.set({ service_id: serviceId, endpoint_id: endpointId }, Number(!health.isSick))
    },
  })

  const mode = new Gauge({
    name: 'tollgate_limits_mode',
    help: '1 for what admits calls: redis, or while it is away open (no limits) or local (a share of each limit)',
    labelNames: ['mode'],
    registers: [registry],
    async collect() {
      const sample = await answerOf(async () => sources().limits?.())
      mode.reset()
      if (sample !== undefined)
        for (const each of admissionModes) mode.set({ mode: each }, Number(each === sample.mode))
    },
  })
  const admissions = new Counter({
    name: 'tollgate_limits_admissions_total',
    help: 'Calls admitted, by what admitted them',
    labelNames: ['mode'],
    registers: [registry],
    async collect() {
      const sample = await answerOf(async () => sources().limits?.())
      admissions.reset()
      if (sample !== undefined) for (const each of admissionModes) admissions.inc({ mode: each }, sample.admitted[each])
    },
  })

  sampled(
    'tollgate_tls_certificate_expires_seconds',
    'Seconds until the certificate in use ends; below 0 after it',
    () => {
      const sample = sources().certificate?.()
      return sample === undefined ? undefined : (sample.expiresAtMs - now()) / 1000
    },
  )
  cumulative('tollgate_tls_certificate_reloads_total', 'Times that other certificate files were taken into use', () => {
    return sources().certificate?.().reloads
  })
  const tokenKeys = new Gauge({
    name: 'tollgate_token_keys',
    help: 'Keys of a trusted issuer of tokens that are in use; 0 while its tokens cannot be verified',
    labelNames: ['issuer'],
    registers: [registry],
    async collect() {
      const samples = await answerOf(async () => sources().tokenKeys?.())
      tokenKeys.reset()
      for (const { issuer, keys } of samples ?? []) tokenKeys.set({ issuer }, keys)
    },
  })

  sampled('tollgate_workers_expected', 'Processes that there should be', () => sources().workers?.().expected)
  sampled('tollgate_workers_serving', 'Processes that take calls', () => sources().workers?.().serving)
  sampled('tollgate_workers_silent', 'Processes that did not tell their metrics in time for this page', () => {
    return sources().workers?.().silent
  })
  cumulative('tollgate_workers_replaced_total', 'Processes that died and were replaced', () => {
    return sources().workers?.().replaced
  })
  cumulative(
    'tollgate_workers_restarted_total',
    'Processes that were replaced because they were asked to leave',
    () => {
      return sources().workers?.().restarted
    },
  )

  /** Absent from a scrape without a sample: an unknown value must not read as 0. */
  function sampled(name: string, help: string, sample: Sample): void {
    const gauge = new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const value = await answerOf(sample)
        gauge.remove()
        if (value !== undefined) gauge.set(value)
      },
    })
  }

  /** A counter that its source counts. */
  function cumulative(name: string, help: string, sample: Sample): void {
    const counter = new Counter({
      name,
      help,
      registers: [registry],
      async collect() {
        const value = await answerOf(sample)
        counter.remove()
        if (value !== undefined) counter.inc(value)
      },
    })
  }
}

type Sample = () => number | undefined | Promise<number | undefined>
