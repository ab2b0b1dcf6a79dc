import type { DenialLog } from './audit/denial-log.ts'
import type { EventPublisher } from './events/event-publisher.ts'
import type { TokenKeysState } from './identity/token-keys.ts'
import type { Tokens } from './identity/tokens.ts'
import type { Limits } from './limits/limits.ts'
import type { RunningDrain } from './metering/drain.ts'
import type { Outbox } from './outbox/outbox.ts'
import { outboxHealth } from './outbox/outbox-health.ts'
import type { RemoteState } from './policy/remote-judge.ts'
import { outsideHealth } from './registry/outside/outside-health.ts'
import type { RegistryWatch } from './registry/outside/registry-watch.ts'
import { pastSunset } from './registry/past-sunset.ts'
import type { Snapshot } from './registry/snapshot.ts'
import type { Snapshots } from './registry/snapshots.ts'
import type { BreakerSample, Dispatcher } from './routing/dispatcher.ts'
import type { HealthChecks } from './routing/health-checks.ts'
import type { CertificateState, Certificates } from './server/certificates.ts'
import type { Page, Pages } from './server/pages.ts'
import { pingPostgres, type Sql } from './storage/postgres.ts'
import type { Metrics } from './telemetry/metrics.ts'
import { describeWorkers, servingOf } from './workers/shared-view.ts'
import type { WorkerLink } from './workers/worker-link.ts'

export interface HealthParts {
  readonly sql: Sql
  readonly limits: Limits
  readonly drain: Pick<RunningDrain, 'state'>
  readonly snapshots: Snapshots
  readonly dispatcher: Pick<Dispatcher, 'breakers'>
  readonly healthChecks: Pick<HealthChecks, 'all'>
  readonly events: Pick<EventPublisher, 'state'>
  /** Undefined: the policies of this process decide. */
  readonly policyEngine: (() => RemoteState) | undefined
  /** Undefined: there is no registry elsewhere. */
  readonly outsideRegistry: RegistryWatch['state'] | undefined
  /** Undefined: no issuer of tokens is trusted. */
  readonly tokens: Pick<Tokens, 'states'> | undefined
  readonly denials: Pick<DenialLog, 'state'>
  /** Undefined: the port is in clear. */
  readonly certificates: Pick<Certificates, 'state'> | undefined
  readonly outbox: Pick<Outbox, 'names' | 'status'>
  readonly metrics: Metrics
  /** What stands beside normal operation, such as switched-off permissions. */
  readonly warnings: readonly string[]
  /** Undefined: this process has the port for itself. */
  readonly worker: Pick<WorkerLink, 'view' | 'metricsOfAll'> | undefined
  /** False as soon as the process leaves. */
  readonly accepting: () => boolean
}

interface Component {
  /** degraded: calls go on, and something needs a look; down: calls fail. */
  readonly status: 'ok' | 'degraded' | 'down'
  readonly detail: string
}

/**
 * The pages of operations: `/health` (the process is up, and what stands beside normal operation), `/ready` (calls can be served), `/health/detailed` (each
 * component with its state), `/metrics`.
 */
export function createHealthPages(parts: HealthParts): Pages {
  const { worker } = parts
  const workers = (): object => (worker === undefined ? {} : { workers: describeWorkers(worker.view()) })
  const isShort = (): boolean => worker !== undefined && servingOf(worker.view()) < worker.view().expected

  async function components(): Promise<Record<string, Component>> {
    const [postgres, limits, domainEvents] = await Promise.all([
      pingPostgres(parts.sql),
      parts.limits.health(),
      outboxHealth(parts.outbox),
    ])
    const drain = parts.drain.state()
    const stale = parts.snapshots.staleSinceMs()
    const events = parts.events.state()
    const { failing, waiting, dropped } = parts.denials.state()
    return {
      // Calls go on without Postgres: the snapshot is in memory, and usage waits in its log.
      postgres: { status: postgres.ok ? 'ok' : 'degraded', detail: postgres.detail },
      limits: { status: !limits.ok ? 'down' : limits.isDegraded ? 'degraded' : 'ok', detail: limits.detail },
      snapshot: {
        status: stale === undefined ? 'ok' : 'degraded',
        detail: stale === undefined ? `version ${parts.snapshots.current().version}` : `stale since ${iso(stale)}`,
      },
      registry: registryState(parts.snapshots.current(), Date.now()),
      ledger: {
        status: drain.failing === undefined ? 'ok' : 'degraded',
        detail: drain.failing ?? `${drain.backlog} events on their way`,
      },
      // Denied calls are answered without Postgres: what there is to record of them waits in memory.
      audit: {
        status: failing === undefined ? 'ok' : 'degraded',
        detail: failing ?? `${waiting} denials wait, ${dropped} were dropped`,
      },
      // Calls go on without Kafka: events wait in memory, and the newest are dropped when too many do.
      events: {
        status: events?.failing === undefined ? 'ok' : 'degraded',
        detail:
          events === undefined ? 'KAFKA_BROKERS is not set' : (events.failing ?? `${events.buffered} events wait`),
      },
      // Calls and changes go on: changes wait in their log until they are told.
      domain_events: domainEvents,
      ...(parts.outsideRegistry === undefined ? {} : { outside_registry: outsideHealth(parts.outsideRegistry()) }),
      ...(parts.policyEngine === undefined ? {} : { policy: policyEngine(parts.policyEngine()) }),
      ...(parts.tokens === undefined ? {} : { tokens: tokenKeys(parts.tokens.states()) }),
      ...(parts.certificates === undefined ? {} : { certificate: certificate(parts.certificates.state()) }),
    }
  }

  async function detailed(): Promise<Page> {
    const states = await components()
    const breakers = [...parts.dispatcher.breakers()]
    const isBroken = breakers.some(({ state }: BreakerSample) => state !== 'closed')
    const sick = [...parts.healthChecks.all()]
      .filter(({ health }) => health.isSick)
      .map(({ serviceId, endpointId, health }) => {
        return { serviceId, endpointId, since: iso(health.sinceMs), failure: health.failure }
      })
    const worst = Object.values(states).map(({ status }) => status)
    const status = worst.includes('down')
      ? 'down'
      : worst.includes('degraded') || isBroken || sick.length > 0 || isShort()
        ? 'degraded'
        : 'ok'
    return json(status === 'down' ? 503 : 200, {
      status,
      components: states,
      breakers,
      sickEndpoints: sick,
      ...workers(),
      warnings: parts.warnings,
    })
  }

  /** Who is asked on a connection of a worker that is replaced speaks for those that are not. */
  function accepting(): boolean {
    if (parts.accepting()) return true
    const view = worker?.view()
    return view !== undefined && !view.isLeaving && servingOf(view) > 0
  }

  async function ready(): Promise<Page> {
    if (!accepting()) return json(503, { status: 'down', detail: 'the process is shutting down' })
    const limits = await parts.limits.health()
    return json(limits.ok ? 200 : 503, { status: limits.ok ? 'ok' : 'down', detail: limits.detail })
  }

  return {
    '/health': async () =>
      json(200, {
        status: isShort() ? 'degraded' : 'ok',
        ...(parts.warnings.length > 0 && { warnings: parts.warnings }),
        ...workers(),
      }),
    '/ready': ready,
    '/health/detailed': detailed,
    '/metrics': async () => ({
      status: 200,
      contentType: parts.metrics.contentType,
      body: await (worker?.metricsOfAll() ?? parts.metrics.render()),
    }),
  }
}

/** Calls with other credentials go on without the keys of an issuer. */
function tokenKeys(states: readonly TokenKeysState[]): Component {
  const failing = states.filter((state) => state.failing !== undefined)
  const keys = states.map(({ issuer, keys, readAtMs }) =>
    readAtMs === undefined ? `${issuer}: not asked yet` : `${issuer}: ${keys} keys, read ${iso(readAtMs)}`,
  )
  const detail = [...failing.map(({ issuer, failing: why }) => `${issuer}: ${why}`), ...keys].join('; ')
  return { status: failing.length === 0 ? 'ok' : 'degraded', detail }
}

/** Nothing retires a service by itself. */
function registryState(snapshot: Snapshot, nowMs: number): Component {
  const late = pastSunset(snapshot, nowMs)
  const { size } = snapshot.servicesById
  if (late.length === 0) return { status: 'ok', detail: `${size} services` }
  const names = late.slice(0, 10).map(({ name, version }) => `${name}@${version}`)
  return { status: 'degraded', detail: `${late.length} to retire, whose sunset is past: ${names.join(', ')}` }
}

/** Warns when a tenth of the certificate's time is left: whatever renews it should have done so. */
function certificate({ validFromMs, expiresAtMs, failing }: CertificateState): Component {
  const leftMs = expiresAtMs - Date.now()
  const detail = `${leftMs <= 0 ? 'expired at' : 'valid until'} ${iso(expiresAtMs)}`
  if (failing !== undefined) return { status: 'degraded', detail: `${detail}; the new one is not used: ${failing}` }
  return { status: leftMs < (expiresAtMs - validFromMs) / 10 ? 'degraded' : 'ok', detail }
}

/** Calls go on without an answer where they may pass unasked; else they fail. */
function policyEngine({ breaker, failing, failMode }: RemoteState): Component {
  if (breaker === 'closed' && failing === undefined) return { status: 'ok', detail: 'POLICY_ENGINE_URL answers' }
  const what = failMode === 'open' ? 'calls pass unasked' : 'calls are refused'
  const status = breaker === 'closed' || failMode === 'open' ? 'degraded' : 'down'
  return { status, detail: `${failing ?? 'no answer'}; breaker ${breaker}, while it is open ${what}` }
}

function json(status: number, value: object): Page {
  return { status, contentType: 'application/json', body: `${JSON.stringify(value)}\n` }
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
