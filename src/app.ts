/**
 * The one place where parts are constructed and handed to each other, bottom up. {@link App.close} takes them down in
 * the opposite order, so that nothing is used after it ended.
 */
import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
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
import { Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { UserService } from '../gen/marketplace/v1/users_pb.ts'
import { createAuditService } from './audit/audit-service.ts'
import { countAuditRecords } from './audit/audit-store.ts'
import { createDenialLog } from './audit/denial-log.ts'
import { startTellingHeads } from './audit/tell-heads.ts'
import { writeDenials } from './audit/write-denials.ts'
import { watchBooks } from './books/books-watch.ts'
import { readBooks } from './books/read-books.ts'
import type { Config } from './config.ts'
import { createConsumptionService } from './consumption/consumption-service.ts'
import { createGate } from './consumption/gate.ts'
import { createOpenCalls } from './consumption/open-calls.ts'
import { describeRequest } from './consumption/policy-check.ts'
import { createResponseCache } from './consumption/response-cache.ts'
import { createChangeFeed } from './control/change-feed.ts'
import { startChangeRetention } from './control/change-retention.ts'
import { createEventPublisher, type EventPublisher } from './events/event-publisher.ts'
import { createKafkaSink } from './events/kafka-sink.ts'
import { createLogPublisher } from './events/log-publisher.ts'
import { refusalEvent } from './events/refusal-event.ts'
import { thresholdEvent } from './events/threshold-event.ts'
import { violationEvent } from './events/violation-event.ts'
import { createHealthPages } from './health-pages.ts'
import { createAdminKey } from './identity/admin-key.ts'
import { createAuthenticator } from './identity/authenticator.ts'
import { identityOfCertificate } from './identity/client-certificate.ts'
import { createConsumerService } from './identity/consumer-service.ts'
import { createCredentialGuard } from './identity/credential-guard.ts'
import { createKeyLoader } from './identity/key-loader.ts'
import { createKeyService } from './identity/key-service.ts'
import { selectKeyOwner, selectKeyRecords } from './identity/key-store.ts'
import { createKeyUses, upsertKeyUses } from './identity/key-uses.ts'
import { createKeyVerifier } from './identity/key-verifier.ts'
import { createOutsideCallers } from './identity/outside-callers.ts'
import { createProjectService } from './identity/project-service.ts'
import { createSecretHasher, type SecretHasher } from './identity/secret-hasher.ts'
import { requireStanding } from './identity/standing.ts'
import { createTokens } from './identity/tokens.ts'
import { userKey } from './identity/user-record.ts'
import { createUserService } from './identity/user-service.ts'
import { newId } from './ids.ts'
import { createFailoverLimits, type FailoverLimits } from './limits/failover-limits.ts'
import { monthOf, periodKeysOf } from './limits/limit-keys.ts'
import { createLimitService } from './limits/limit-service.ts'
import type { Limits, PeriodSeed } from './limits/limits.ts'
import { readLocalLimits } from './limits/local-audit.ts'
import { createLocalLimits } from './limits/local-limits.ts'
import { readRedisLimits } from './limits/redis-audit.ts'
import { createRedisLimits } from './limits/redis-limits.ts'
import { startReplicas } from './limits/replicas.ts'
import { createMarketplaceApi, marketplaceStatuses } from './marketplace/marketplace-api.ts'
import { createDrain } from './metering/drain.ts'
import { readLedger } from './metering/ledger-audit.ts'
import { startPartitions } from './metering/partitions.ts'
import type { UsageEvent } from './metering/usage-event.ts'
import { createUsageService } from './metering/usage-service.ts'
import { usedUnits } from './metering/used-units.ts'
import { createEventService } from './outbox/event-service.ts'
import { openOutbox } from './outbox/open-outbox.ts'
import { createLocalJudge } from './policy/judge.ts'
import { createPolicyAdminService } from './policy/policy-admin-service.ts'
import { createPolicyEngine } from './policy/policy-engine.ts'
import { createPolicyRecorder } from './policy/policy-recorder.ts'
import { startPolicyRetention } from './policy/policy-retention.ts'
import { createPolicyService } from './policy/policy-service.ts'
import { createRemoteJudge, type RemoteJudge } from './policy/remote-judge.ts'
import { pastSunset } from './registry/past-sunset.ts'
import { createRegistryService } from './registry/registry-service.ts'
import { createSnapshots } from './registry/snapshots.ts'
import { createServiceWatch } from './registry/watch-services.ts'
import { createCredentials } from './routing/credentials.ts'
import { createDispatcher } from './routing/dispatcher.ts'
import { createHealthChecks } from './routing/health-checks.ts'
import { probeEndpoint } from './routing/probe-endpoint.ts'
import { failureOf } from './routing/retry-table.ts'
import { followCertificates } from './server/certificates.ts'
import { register } from './server/rpc.ts'
import { startServer } from './server/server.ts'
import { storing } from './storage/constraint-error.ts'
import { startEmbeddedPostgres } from './storage/embedded-postgres.ts'
import { lockFolder } from './storage/folder-lock.ts'
import { migrate } from './storage/migrate.ts'
import { connectPostgres, countConnections, describeError, type Sql } from './storage/postgres.ts'
import { connectRedis, type RedisClient } from './storage/redis.ts'
import { createCallMetrics } from './telemetry/call-metrics.ts'
import { createLogger } from './telemetry/log.ts'
import { createMetrics, type Metrics } from './telemetry/metrics.ts'
import { startTracing } from './telemetry/tracing.ts'

/** A running gate. */
export interface App {
  /** With scheme, host and port. */
  readonly address: string
  /** host:port. */
  readonly grpcAddress: string
  /** Ends calls inside the drain window, writes what is left to the ledger, and leaves. Idempotent. */
  close(): Promise<void>
}

export interface AppHooks {
  /** Runs when the schema is up to date and before the first call is taken. */
  beforeServing?(sql: Sql, hasher: SecretHasher): Promise<void>
}

/** What takes parts down; run last to first. */
type Closers = (() => Promise<unknown>)[]

/** Starts everything that the configuration asks for; throws, with nothing left running, when a part cannot start. */
export async function startApp(config: Config, hooks: AppHooks = {}): Promise<App> {
  const log = createLogger({ level: config.logLevel })
  for (const warning of config.warnings) log.warn(warning)
  const closers: Closers = []
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) {
      // A part that fails to end must not keep the others, and the embedded Postgres among them, from ending.
      await closer().catch((err: unknown) => log.error({ err }, 'a part did not end well'))
    }
  }
  try {
    const { address, grpcAddress } = await construct(config, hooks, log, closers)
    return { address, grpcAddress, close }
  } catch (error) {
    await close()
    throw error
  }
}

async function construct(
  config: Config,
  hooks: AppHooks,
  log: Logger,
  closers: Closers,
): Promise<{ address: string; grpcAddress: string }> {
  const now = Date.now
  if (config.tracing !== undefined) {
    const tracing = await startTracing(config.tracing)
    closers.push(() => tracing.shutdown())
  }
  const metrics = createMetrics()
  const callMetrics = createCallMetrics(metrics)

  if (config.database.url === undefined || config.redis.url === undefined || config.redis.whenAway !== 'closed') {
    closers.push(await takeDataDir(config))
  }
  const instanceId = `${hostname().slice(0, 40)}-${process.pid}`
  const sql = await openPostgres(config, log, instanceId, closers)
  await migrate(sql, { log })
  const partitions = await startPartitions({ sql, log, retentionMonths: config.usageRetentionMonths })
  closers.push(() => partitions.stop())
  const changeRetention = startChangeRetention({ sql, log, days: config.changesRetentionDays })
  closers.push(() => changeRetention.stop())

  const { limits, redis, failover } = await openLimits(config, log, instanceId, ledgerSeed(sql), closers)
  const drain = createDrain({ usageLog: limits.usageLog, sql, log })
  drain.start()
  closers.push(() => drain.stop())
  const localDrain = failover && createDrain({ usageLog: failover.localUsageLog, sql, log })
  localDrain?.start()
  closers.push(async () => localDrain?.stop())
  // What an earlier process used while Redis was away must be in the counters before they admit anything.
  if (localDrain !== undefined && !(await localDrain.drained(replayTimeoutMs))) {
    throw new Error(
      `The usage in ${awayFolder(config)} could not be written to the ledger: ${localDrain.state().failing}`,
    )
  }
  const books = watchBooks({
    sql,
    read: (month) =>
      readBooks(
        {
          limits: () => (redis === undefined ? readLocalLimits(usageFolder(config)) : readRedisLimits(redis)),
          ledger: (question) => readLedger(sql, question),
        },
        { month, backends: undefined },
      ),
    repair: (counters) => limits.correct({ events: [], counters }),
    log,
    now,
  })
  closers.push(() => books.stop())

  const hasher = createSecretHasher()
  await hooks.beforeServing?.(sql, hasher)
  const outbox = await openOutbox(config, { sql, log, metrics, holder: `${instanceId}-${newId()}` })
  closers.push(() => outbox.stop())
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
  const loadKey = createKeyLoader({ loadKeys: (ids) => selectKeyRecords(sql, ids) })
  const verifier = createKeyVerifier({ loadKey, hasher, clock: now })
  const openCalls = createOpenCalls({ standingOf: verifier.standingOf, now })
  await snapshots.start()
  closers.push(() => snapshots.close())
  const keyUses = createKeyUses({ write: (uses) => upsertKeyUses(sql, uses), log, clock: now })
  closers.push(() => keyUses.stop())
  const adminKey = config.access.adminKey === undefined ? undefined : createAdminKey(config.access.adminKey)
  const callerOf = createOutsideCallers({
    findUser: (issuer, subject) => snapshots.current().usersBySubject.get(userKey(issuer, subject)),
    findConsumer: (id) => snapshots.current().consumersById.get(id),
    trustClaims: config.tokens?.trustClaims ?? false,
    log,
  })
  const tokens = config.tokens && createTokens({ ...config.tokens, callerOf, clock: now, log })
  const credentialGuard = createCredentialGuard({
    perMinute: config.access.credentialFailuresPerMinute,
    isKnown: (credential) =>
      verifier.isKnown(credential) || adminKey?.match(credential) !== undefined || tokens?.isKnown(credential) === true,
    clock: now,
  })

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

  const retention = startPolicyRetention({ sql, log, ...config.policy })
  closers.push(() => retention.stop())
  const recorder = createPolicyRecorder({
    sql,
    log,
    newId,
    now,
    decisionsPerSecond: config.policy.decisionsPerSecond,
    onViolation(violation) {
      metrics.policyViolations.of(violation.serviceId, violation.policyId, violation.severity).inc()
      events.publish(violationEvent(violation))
    },
    onDropped: (kind) => metrics.policyRecordsDropped.of(kind).inc(),
  })
  closers.push(() => recorder.close())
  const localJudge = createLocalJudge({
    policies: () => snapshots.current().policies,
    ...config.policy,
    onFailure: ({ policy: { id }, isCost }) => metrics.policyFailures.of(id, isCost ? 'cost' : 'error').inc(),
  })
  const remoteJudge = openRemoteJudge(config, log, metrics)
  closers.push(async () => remoteJudge?.close())
  const policy = createPolicyEngine(remoteJudge ?? localJudge, now)
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
  const denials = createDenialLog({ write: (entries, again) => writeDenials(sql, entries, again), log, now })
  closers.push(() => denials.close())
  const { tls } = config.server
  const certificates = tls && (await followCertificates({ ...tls, log, now }))
  closers.push(async () => certificates?.close())
  const authenticate = createAuthenticator({
    verifier,
    adminKey,
    verifyToken: tokens?.verify,
    verifyCertificate: (certificate) => callerOf(identityOfCertificate(certificate, tls?.trustDomains ?? [], now())),
  })
  const keys = createKeyService({ sql, hasher, snapshots })
  const heads = startTellingHeads({ sql, log })
  closers.push(() => heads.stop())
  let accepting = true
  const server = await startServer({
    ...config.server,
    tls: certificates && {
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
        {
          ...createRegistryService({
            sql,
            newId,
            snapshots,
            endpoints: {
              replica: instanceId,
              standingOf: (id) => ({ ...dispatcher.standing(id), health: healthChecks.of(id) }),
            },
          }),
          watch: createServiceWatch({ sql, snapshots, feed, maxAgeMs: config.server.maxDeadlineMs }),
        },
        { longLived: ['watch'] },
      ),
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
      warnings: config.warnings,
      accepting: () => accepting,
    }),
    authenticate: requireStanding(authenticate, snapshots),
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
    ...(redis === undefined ? {} : { redisConnections: () => Number(redis.status === 'ready') }),
    usageBacklog: async () => (await limits.usageLog.backlog()) + ((await failover?.localUsageLog.backlog()) ?? 0),
    drain: () => {
      const { lastWriteMs, written, duplicates } = drain.state()
      const local = localDrain?.state()
      return {
        lastWriteAtMs: latest(lastWriteMs, local?.lastWriteMs),
        written: written + (local?.written ?? 0),
        duplicates: duplicates + (local?.duplicates ?? 0),
      }
    },
    ...(failover === undefined ? {} : { limits: failover.state }),
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
  })
  server.setServing(true)
  log.info({ address: server.address }, 'serving')
  return { address: server.address, grpcAddress: `${server.host}:${server.port}` }
}

/** What the ledger knows of a period: the truth that every counter starts from. */
function ledgerSeed(sql: Sql): PeriodSeed {
  return ({ scope, unit, currency, endsAtMs }, waiting) =>
    usedUnits(sql, {
      scope,
      unit: unit === 'nanos' ? { currency } : 'tokens',
      monthStartMs: Date.parse(`${monthOf(endsAtMs - 1)}-01T00:00:00Z`),
      monthEndMs: endsAtMs,
      waiting,
    })
}

/** Counters that a correction of the ledger moves ask the ledger anew. */
function followCorrections(limits: Limits): (entries: readonly UsageEvent[]) => Promise<void> {
  return (entries) => limits.correct({ events: [], counters: [...new Set(entries.flatMap(periodKeysOf))] })
}

/** A log that takes longer than this to replay is a fault that somebody must look at. */
const replayTimeoutMs = 600_000

/** Makes this process the only user of the data folder; returns what gives it back. */
async function takeDataDir({ dataDir, redis }: Config): Promise<() => Promise<void>> {
  try {
    await mkdir(dataDir, { recursive: true })
    return await lockFolder(dataDir)
  } catch (error) {
    const user = redis.whenAway === 'closed' ? 'embedded stores' : `LIMITS_WHEN_REDIS_IS_AWAY=${redis.whenAway}`
    throw new Error(`TOLLGATE_DATA_DIR is needed for ${user} and cannot be used: ${describeError(error)}`)
  }
}

function usageFolder(config: Config): string {
  return join(config.dataDir, 'usage')
}

function awayFolder(config: Config): string {
  return join(config.dataDir, 'away')
}

function latest(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? (one ?? other) : Math.max(one, other)
}

async function openPostgres(config: Config, log: Logger, applicationName: string, closers: Closers): Promise<Sql> {
  const { url, maxConnections } = config.database
  const embedded =
    url === undefined ? await startEmbeddedPostgres({ dataDir: join(config.dataDir, 'postgres'), log }) : undefined
  if (embedded !== undefined) closers.push(() => embedded.stop())
  const target = embedded ?? { url: url ?? '' }
  const sql = connectPostgres({ ...target, log, maxConnections, applicationName })
  closers.push(() => sql.end(2_000))
  return sql
}

async function openLimits(
  config: Config,
  log: Logger,
  instance: string,
  seed: PeriodSeed,
  closers: Closers,
): Promise<{ limits: Limits; redis: RedisClient | undefined; failover: FailoverLimits | undefined }> {
  const { url, commandTimeoutMs, whenAway } = config.redis
  if (url === undefined) {
    const limits = await createLocalLimits({ folder: usageFolder(config), seed, log })
    closers.push(() => limits.close())
    return { limits, redis: undefined, failover: undefined }
  }
  const redis = await connectRedis({ url, log, commandTimeoutMs })
  closers.push(async () => redis.disconnect())
  // Processes in containers often share host name and number: the id makes each start a reader of its own.
  const instanceId = `${instance}-${newId()}`
  const limits = await createRedisLimits({ redis, instanceId, seed, log })
  closers.push(() => limits.close())
  if (whenAway === 'closed') return { limits, redis, failover: undefined }
  // A silent replica must have had the time for two announcements, whatever the timeout.
  const replicas = await startReplicas({ redis, instanceId, leaseMs: Math.max(5_000, 3 * commandTimeoutMs) })
  closers.push(() => replicas.stop())
  const folder = awayFolder(config)
  const failover = await createFailoverLimits({
    primary: limits,
    openLocal: (ownSeed) => createLocalLimits({ folder: join(folder, 'usage'), seed: ownSeed, log }),
    folder,
    mode: whenAway,
    replicas: replicas.count,
    seed,
    log,
  })
  closers.push(() => failover.close())
  return { limits: failover, redis, failover }
}

function openRemoteJudge({ policy }: Config, log: Logger, metrics: Metrics): RemoteJudge | undefined {
  if (policy.engine === undefined) return undefined
  const { failMode } = policy
  return createRemoteJudge({
    ...policy.engine,
    failMode,
    now: Date.now,
    onAsked: (outcome) => metrics.policyEngineRequests.of(outcome).inc(),
    onChange: (state, reason) => log.warn({ state, reason, failMode }, 'the breaker of the policy engine changed'),
  })
}

async function openEvents(config: Config, log: Logger, metrics: Metrics, instance: string): Promise<EventPublisher> {
  const { kafka } = config.events
  if (kafka === undefined) return createLogPublisher(log)
  const sink = await createKafkaSink({ ...kafka, source: `/tollgate/${encodeURIComponent(instance)}` })
  return createEventPublisher({ sink, newId, clock: Date.now, metrics, log })
}
