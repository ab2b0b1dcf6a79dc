import { hostname } from 'node:os'
import type { Logger } from 'pino'
import { AuditService } from '../gen/marketplace/v1/audit_pb.ts'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { EventService } from '../gen/marketplace/v1/events_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { LimitService } from '../gen/marketplace/v1/limits_pb.ts'
import { MarketplaceApi } from '../gen/marketplace/v1/marketplace_api_pb.ts'
import { PolicyService } from '../gen/marketplace/v1/policies_pb.ts'
import { PolicyEngine } from '../gen/marketplace/v1/policy_pb.ts'
import { ProjectService } from '../gen/marketplace/v1/projects_pb.ts'
import { RegistryApi } from '../gen/marketplace/v1/registry_api_pb.ts'
import { Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { UserService } from '../gen/marketplace/v1/users_pb.ts'
import type { Closers } from './app/closers.ts'
import { openIdentity } from './app/identity.ts'
import { openOutsideRegistry } from './app/outside-registry.ts'
import { openPolicy } from './app/policy.ts'
import { openStores } from './app/stores.ts'
import { createAuditService } from './audit/audit-service.ts'
import { countAuditRecords } from './audit/audit-store.ts'
import { createDenialLog } from './audit/denial-log.ts'
import { startTellingHeads } from './audit/tell-heads.ts'
import { writeDenials } from './audit/write-denials.ts'
import type { Config } from './config.ts'
import { createConsumptionService } from './consumption/consumption-service.ts'
import { createGate } from './consumption/gate.ts'
import { createOpenCalls } from './consumption/open-calls.ts'
import { describeRequest } from './consumption/policy-check.ts'
import { createResponseCache } from './consumption/response-cache.ts'
import { createChangeFeed } from './control/change-feed.ts'
import { createEventPublisher, type EventPublisher } from './events/event-publisher.ts'
import { createKafkaSink } from './events/kafka-sink.ts'
import { createLogPublisher } from './events/log-publisher.ts'
import { refusalEvent } from './events/refusal-event.ts'
import { thresholdEvent } from './events/threshold-event.ts'
import { createHealthPages } from './health-pages.ts'
import { createConsumerService } from './identity/consumer-service.ts'
import { createKeyLoader } from './identity/key-loader.ts'
import { createKeyService } from './identity/key-service.ts'
import { selectKeyOwner, selectKeyRecords } from './identity/key-store.ts'
import { createKeyVerifier } from './identity/key-verifier.ts'
import { createProjectService } from './identity/project-service.ts'
import { createSecretHasher, type SecretHasher } from './identity/secret-hasher.ts'
import { createUserService } from './identity/user-service.ts'
import { newId } from './ids.ts'
import { periodKeysOf } from './limits/limit-keys.ts'
import { createLimitService } from './limits/limit-service.ts'
import type { Limits } from './limits/limits.ts'
import { createMarketplaceApi, marketplaceStatuses } from './marketplace/marketplace-api.ts'
import type { UsageEvent } from './metering/usage-event.ts'
import { createUsageService } from './metering/usage-service.ts'
import { createEventService } from './outbox/event-service.ts'
import { openOutbox } from './outbox/open-outbox.ts'
import { createPolicyAdminService } from './policy/policy-admin-service.ts'
import { createPolicyService } from './policy/policy-service.ts'
import { createRegistryApi } from './registrations/registry-api.ts'
import { pastSunset } from './registry/past-sunset.ts'
import { createRegistryService } from './registry/registry-service.ts'
import { createSnapshots } from './registry/snapshots.ts'
import { createServiceWatch } from './registry/watch-services.ts'
import { createCredentials } from './routing/credentials.ts'
import { createDispatcher } from './routing/dispatcher.ts'
import { createHealthChecks } from './routing/health-checks.ts'
import { probeEndpoint } from './routing/probe-endpoint.ts'
import { failureOf } from './routing/retry-table.ts'
import { register } from './server/rpc.ts'
import { startServer } from './server/server.ts'
import { storing } from './storage/constraint-error.ts'
import { countConnections, type Sql } from './storage/postgres.ts'
import { createCallMetrics } from './telemetry/call-metrics.ts'
import { createLogger } from './telemetry/log.ts'
import { createMetrics, type Metrics } from './telemetry/metrics.ts'
import { startTracing } from './telemetry/tracing.ts'
import type { WorkerLink } from './workers/worker-link.ts'

/** A running gate. */
export interface App {
  /** With scheme, host and port. */
  readonly address: string
  /** host:port. */
  readonly grpcAddress: string
  /** Takes nothing new, and resolves when the last call is over, however long that takes. {@link close} may come before. */
  retire(): Promise<void>
  /** Ends calls inside the drain window, writes what is left to the ledger, and leaves. Idempotent. */
  close(): Promise<void>
}

export interface AppHooks {
  /** Runs when the schema is up to date and before the first call is taken. */
  beforeServing?(sql: Sql, hasher: SecretHasher): Promise<void>
  /** Of one process among several that share a port. */
  readonly worker?: WorkerLink
}

/** Starts everything that the configuration asks for; throws, with nothing left running, when a part cannot start. */
export async function startApp(config: Config, hooks: AppHooks = {}): Promise<App> {
  const log = createLogger({ level: config.logLevel, worker: hooks.worker?.slot })
  // Of several processes the primary says it.
  if (hooks.worker === undefined) for (const warning of config.warnings) log.warn(warning)
  const closers: Closers = []
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) {
      // A part that fails to end must not keep the others, and the embedded Postgres among them, from ending.
      await closer().catch((err: unknown) => log.error({ err }, 'a part did not end well'))
    }
  }
  try {
    return { ...(await construct(config, hooks, log, closers)), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function construct(config: Config, hooks: AppHooks, log: Logger, closers: Closers): Promise<Omit<App, 'close'>> {
  const { worker } = hooks
  const now = Date.now
  if (config.tracing !== undefined) {
    const tracing = await startTracing({ ...config.tracing, log })
    closers.push(() => tracing.shutdown())
  }
  const metrics = createMetrics()
  const callMetrics = createCallMetrics(metrics)
  const instanceId = `${hostname().slice(0, 40)}-${process.pid}`
  const stores = await openStores(config, { log, instanceId, now, worker }, closers)
  const { sql, limits, failover, drain, books } = stores

  const hasher = createSecretHasher()
  await hooks.beforeServing?.(sql, hasher)
  const outbox = await openOutbox(config, { sql, log, metrics, holder: `${instanceId}-${newId()}` })
  closers.push(() => outbox.stop())
  const loadKey = createKeyLoader({ loadKeys: (ids) => selectKeyRecords(sql, ids) })
  const verifier = createKeyVerifier({ loadKey, hasher, clock: now })
  const openCalls = createOpenCalls({ standingOf: verifier.standingOf, now })
  const feed = createChangeFeed({ sql, log, kind: 'service' })
  closers.push(() => feed.close())
  const healthChecks = createHealthChecks({
    probe: probeEndpoint,
    now,
    random: Math.random,
    onChange: ({ health: { isSick, failure }, ...ids }) => {
      log.warn(
        { ...ids, failure },
        isSick ? 'an endpoint is sick: it gets no calls while another is well' : 'an endpoint is well',
      )
    },
  })
  closers.push(async () => healthChecks.close())
  const snapshots = createSnapshots({
    sql,
    log,
    onChange({ version, servicesById }) {
      verifier.invalidate()
      healthChecks.follow(servicesById.values())
      openCalls.recheck()
      feed.advance(version)
      outbox.wake()
    },
  })
  const keyOwner = (keyId: string) => storing(() => selectKeyOwner(sql, keyId))
  await snapshots.start()
  closers.push(() => snapshots.close())
  const { authenticate, credentialGuard, keyUses, tokens, certificates } = await openIdentity(
    config,
    { sql, log, now, snapshots, verifier },
    closers,
  )

  const dispatcher = createDispatcher({
    ...config.backends,
    isSick: (endpointId) => healthChecks.of(endpointId)?.isSick === true,
    credentials: createCredentials(config.credentials, now),
    now,
    observer: {
      breakerChanged: (endpointId, state) => log.warn({ endpointId, state }, 'breaker changed'),
      attempted({ id }, { endpointId, error }) {
        const outcome = error === undefined ? 'succeeded' : failureOf(error)
        metrics.backendAttempts.of(id, endpointId, outcome).inc()
      },
      credentialRefused({ id: serviceId, name }, { id: endpointId, credentialRef }) {
        metrics.backendCredentialsRefused.of(serviceId, endpointId).inc()
        const facts = { serviceId, service: name, endpointId, credentialRef }
        log.error(facts, 'ALERT: a backend refuses the credential of the gate, or the gate has none')
      },
    },
  })
  closers.push(() => dispatcher.close())

  const events = await openEvents(config, log, metrics, instanceId)
  closers.push(() => events.close())

  const {
    engine: policy,
    localJudge,
    remoteJudge,
    recorder,
  } = openPolicy(config, { sql, log, now, metrics, snapshots, events }, closers)
  const enforcedPolicy = config.access.policyValidation ? policy : undefined
  const { rateLimiting } = config.access
  const cache = createResponseCache(config.backends.responseCacheMaxBytes, now)
  const gate = createGate({
    snapshots,
    openCalls,
    policy: enforcedPolicy,
    limits,
    cache,
    dispatcher,
    rateLimiting,
    observer: {
      ...callMetrics.gate,
      refused(refusal) {
        callMetrics.gate.refused(refusal)
        const event = refusalEvent(refusal)
        if (event !== undefined) events.publish(event)
      },
      thresholdPassed: (event, crossing) => events.publish(thresholdEvent(event, crossing)),
      cacheAsked: (serviceId, isHit) => metrics.responseCacheLookups.of(serviceId, isHit ? 'hit' : 'miss').inc(),
      policyDecided(told) {
        metrics.policyValidationDuration.of().observe(told.seconds)
        recorder.decided(told)
      },
    },
    log,
    now,
    newId,
  })
  const consumption = createConsumptionService({ gate, snapshots, limits, keyOwner, rateLimiting, now, newId })
  const usage = createUsageService({ sql, now, snapshots, onCorrected: followCorrections(limits) })
  const policyService = createPolicyService({
    engine: policy,
    snapshots,
    recorder,
    describe: (request, call, service) => describeRequest(request, call, service, now()),
    judge: localJudge,
    now,
  })
  const outsideRegistry = openOutsideRegistry(config, { sql, log, now, snapshots }, closers)
  const denials = createDenialLog({ write: (entries, again) => writeDenials(sql, entries, again), log, now })
  closers.push(() => denials.close())
  const keys = createKeyService({ sql, hasher, snapshots })
  const registry = createRegistryService({
    sql,
    newId,
    snapshots,
    followsRegistry: config.registry.outside?.isSource ?? false,
    endpoints: {
      replica: instanceId,
      standingOf: (id) => ({ ...dispatcher.standing(id), health: healthChecks.of(id) }),
    },
  })
  const heads = startTellingHeads({ sql, log })
  closers.push(() => heads.stop())
  const { tls } = config.server
  let accepting = true
  const server = await startServer({
    ...config.server,
    tls: tls &&
      certificates && {
        certificates,
        clientAuth: tls.clientAuth,
        handshakeFailed: (why) => metrics.tlsHandshakeFailures.of(why).inc(),
      },
    services: [
      register(ConsumptionService, consumption),
      register(UsageService, usage),
      register(KeyService, keys),
      register(ConsumerService, createConsumerService({ sql, newId, snapshots })),
      register(ProjectService, createProjectService({ sql, newId, snapshots })),
      register(UserService, createUserService({ sql, newId, snapshots })),
      register(
        Registry,
        { ...registry, watch: createServiceWatch({ sql, snapshots, feed, maxAgeMs: config.server.maxDeadlineMs }) },
        { longLived: ['watch'] },
      ),
      register(RegistryApi, createRegistryApi({ registry, snapshots, ...config.registry }), {
        created: ['addRegistration'],
      }),
      register(EventService, createEventService({ sql, outbox })),
      register(LimitService, createLimitService({ sql, snapshots })),
      register(AuditService, createAuditService({ sql })),
      register(PolicyEngine, policyService),
      register(MarketplaceApi, createMarketplaceApi({ consumption, usage, keys, policy: policyService }), {
        httpStatuses: marketplaceStatuses,
      }),
      register(PolicyService, createPolicyAdminService({ sql, snapshots, newId, now, ...config.policy })),
    ],
    openai: { gate, snapshots, policy: enforcedPolicy },
    pages: createHealthPages({
      healthChecks,
      sql,
      limits,
      drain,
      snapshots,
      dispatcher,
      events,
      outbox,
      tokens,
      denials,
      certificates,
      metrics,
      policyEngine: remoteJudge?.state,
      outsideRegistry: outsideRegistry?.state,
      warnings: config.warnings,
      worker,
      accepting: () => accepting,
    }),
    authenticate,
    credentialGuard,
    onKeyUse: keyUses.note,
    rbac: config.access.rbac,
    organizationOf: (consumerId) => snapshots.current().consumersById.get(consumerId)?.organizationId,
    denials,
    log,
    observer: callMetrics.rpcs,
    newId,
  })
  closers.push(async () => {
    accepting = false
    await server.close()
  })
  metrics.setSources({
    breakers: dispatcher.breakers,
    databaseConnections: () => countConnections(sql, instanceId),
    ...(stores.redisConnections && { redisConnections: stores.redisConnections }),
    usageBacklog: stores.usageBacklog,
    drain: stores.drained,
    ...(failover === undefined ? {} : { limits: failover.state }),
    ...(stores.slices === undefined ? {} : { slices: stores.slices }),
    endpointHealth: healthChecks.all,
    servicesPastSunset: () => pastSunset(snapshots.current(), now()).length,
    responseCache: cache.size,
    limitsAvailable: async () => (await limits.health()).ok,
    events: events.state,
    domainEvents: outbox.status,
    ...(tokens === undefined ? {} : { tokenKeys: tokens.states }),
    denials: denials.state,
    auditRecords: () => countAuditRecords(sql),
    ...(certificates === undefined ? {} : { certificate: certificates.state }),
    books: books.state,
    ...(remoteJudge === undefined ? {} : { policyEngine: remoteJudge.state }),
    ...(outsideRegistry === undefined ? {} : { outsideRegistry: outsideRegistry.state }),
  })
  worker?.figuresFrom(metrics.figures)
  server.setServing(true)
  log.info(worker === undefined ? { address: server.address } : {}, 'serving')
  const { address, host, port, retire } = server
  return { address, grpcAddress: `${host}:${port}`, retire }
}

/** Counters that a correction of the ledger moves ask the ledger anew. */
function followCorrections(limits: Limits): (entries: readonly UsageEvent[]) => Promise<void> {
  return (entries) => limits.correct({ events: [], counters: [...new Set(entries.flatMap(periodKeysOf))] })
}

async function openEvents(config: Config, log: Logger, metrics: Metrics, instance: string): Promise<EventPublisher> {
  const { kafka } = config.events
  if (kafka === undefined) return createLogPublisher(log)
  const sink = await createKafkaSink({ ...kafka, source: `/tollgate/${encodeURIComponent(instance)}` })
  return createEventPublisher({ sink, newId, clock: Date.now, metrics, log })
}
