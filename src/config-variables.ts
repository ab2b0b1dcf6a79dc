import type { Mode, Parser } from './config-parsers.ts'
import * as is from './config-parsers.ts'
import { adminKeyMinLength } from './identity/admin-key.ts'
import { tokenAlgorithms } from './identity/token-algorithms.ts'

/**
 * One environment variable. `T` is what the rest of the code gets: an optional variable has `undefined` in it.
 * An empty variable counts as absent, so that a compose file may pass on what its shell did not set.
 */
export interface Variable<T> {
  readonly name: string
  readonly group: Group
  readonly parser: Parser<T>
  /** Value when absent. */
  readonly defaults: Readonly<Record<Mode, T>>
  readonly description: string
  /** Other names, read when `name` is absent. */
  readonly aliases: readonly string[]
  readonly unit: 'milliseconds' | 'bytes' | undefined
  /** True for values that no message may show. */
  readonly secret: boolean
}

export type Group = 'Server' | 'Storage' | 'Backends' | 'Access' | 'Tokens' | 'Events' | 'Registry' | 'Observability'

/** Every environment variable that Tollgate reads, as data. docs/configuration.md is printed from it. */
export const variables = {
  host: setting(is.host, {
    name: 'HOST',
    group: 'Server',
    default: '0.0.0.0',
    devDefault: '127.0.0.1',
    description:
      'Address to listen on. `tollgate dev` prints working keys and refuses an address that other machines can reach.',
  }),
  port: setting(is.integer(0, 65535), {
    name: 'PORT',
    group: 'Server',
    default: 3000,
    description: 'Port of the one listener; 0 takes any free port.',
  }),
  tlsCertFile: optional(is.path, {
    name: 'TLS_CERT_FILE',
    group: 'Server',
    description:
      'File with the PEM certificate chain. With it and TLS_KEY_FILE the listener speaks TLS only. The files are followed as they change.',
  }),
  tlsKeyFile: optional(is.path, {
    name: 'TLS_KEY_FILE',
    group: 'Server',
    description: 'File with the PEM private key of TLS_CERT_FILE.',
  }),
  tlsClientAuth: setting(is.oneOf('off', 'optional', 'required'), {
    name: 'TLS_CLIENT_AUTH',
    group: 'Server',
    default: 'off',
    description:
      'Whether clients are asked for a certificate, and must have one. See [authentication](authentication.md#client-certificates).',
  }),
  tlsClientCaFile: optional(is.path, {
    name: 'TLS_CLIENT_CA_FILE',
    group: 'Server',
    description: 'File with the PEM certificates of the CAs that vouch for clients. Needed with TLS_CLIENT_AUTH.',
  }),
  spiffeTrustDomains: setting(is.texts, {
    name: 'TLS_SPIFFE_TRUST_DOMAINS',
    group: 'Server',
    default: [],
    description: 'Trust domains whose SPIFFE ids in certificates of clients are accepted, such as `prod.example`.',
  }),
  corsOrigins: setting(is.origins, {
    name: 'CORS_ORIGINS',
    group: 'Server',
    default: [],
    description: 'Browser origins that may call with gRPC-Web and Connect. Without it, none.',
  }),
  trustedProxies: setting(is.networks, {
    name: 'TRUSTED_PROXIES',
    group: 'Server',
    default: [],
    description:
      'Addresses and networks, such as `10.0.0.0/8`, of proxies in front of the gate, separated by commas: their `X-Forwarded-For` says who calls. Without it nobody is believed, and behind a proxy all callers have its address.',
  }),
  maxMessageBytes: setting(is.integer(1024, 67_108_864), {
    name: 'MAX_MESSAGE_BYTES',
    group: 'Server',
    default: 4_194_304,
    unit: 'bytes',
    description: 'Largest request message, after decompression. Larger ones are refused with RESOURCE_EXHAUSTED.',
  }),
  defaultDeadlineMs: setting(is.integer(1, 86_400_000), {
    name: 'DEFAULT_DEADLINE_MS',
    group: 'Server',
    default: 60_000,
    unit: 'milliseconds',
    description: 'Deadline of a call whose caller named none.',
  }),
  maxDeadlineMs: setting(is.integer(1, 86_400_000), {
    name: 'MAX_DEADLINE_MS',
    group: 'Server',
    default: 600_000,
    unit: 'milliseconds',
    description: 'Longest deadline that a caller gets; a longer one is shortened to it.',
  }),
  maxStreamsPerConnection: setting(is.integer(1, 100_000), {
    name: 'MAX_STREAMS_PER_CONNECTION',
    group: 'Server',
    default: 1000,
    description: 'Concurrent calls on one HTTP/2 connection.',
  }),
  maxConnectionAgeMs: setting(is.integer(1000, 86_400_000), {
    name: 'MAX_CONNECTION_AGE_MS',
    group: 'Server',
    default: 1_800_000,
    unit: 'milliseconds',
    description:
      'Age, with jitter, at which a connection is asked to go away, so that load balancers spread callers anew.',
  }),
  keepAliveMs: setting(is.integer(100, 3_600_000), {
    name: 'KEEPALIVE_MS',
    group: 'Server',
    default: 60_000,
    unit: 'milliseconds',
    description: 'An idle HTTP/2 connection is pinged this often; an idle HTTP/1.1 connection is closed after it.',
  }),
  headersTimeoutMs: setting(is.integer(100, 3_600_000), {
    name: 'HEADERS_TIMEOUT_MS',
    group: 'Server',
    default: 10_000,
    unit: 'milliseconds',
    description: 'Longest wait for the headers of a request.',
  }),
  bodyTimeoutMs: setting(is.integer(100, 3_600_000), {
    name: 'BODY_TIMEOUT_MS',
    group: 'Server',
    default: 60_000,
    unit: 'milliseconds',
    description: 'Longest wait for the complete body of a request.',
  }),
  drainMs: setting(is.integer(0, 3_600_000), {
    name: 'DRAIN_TIMEOUT_MS',
    group: 'Server',
    default: 25_000,
    unit: 'milliseconds',
    devDefault: 10_000,
    description:
      'After SIGTERM, calls in flight have this long to end. Keep it below the grace period of the platform.',
  }),
  workers: setting(is.workers, {
    name: 'WORKERS',
    group: 'Server',
    default: 1,
    description:
      'Processes of `tollgate serve` that share the port; `--workers` says the same. `auto`, or 0, is one for each core. More than one need REDIS_URL. See [operations](operations.md#workers).',
  }),
  dataDir: setting(is.path, {
    name: 'TOLLGATE_DATA_DIR',
    group: 'Storage',
    default: '.tollgate',
    description:
      'Folder of everything that is kept on this machine: embedded Postgres, embedded usage log, usage while Redis is away, demo facts.',
  }),
  databaseUrl: optional(is.url('postgres', 'postgresql'), {
    name: 'DATABASE_URL',
    group: 'Storage',
    secret: true,
    description: 'Postgres. Without it an embedded Postgres runs in TOLLGATE_DATA_DIR.',
  }),
  databaseMaxConnections: setting(is.integer(3, 1000), {
    name: 'DATABASE_MAX_CONNECTIONS',
    group: 'Storage',
    default: 20,
    aliases: ['DATABASE_POOL_SIZE'],
    description: 'Connections of this process to Postgres; one or two of them write the ledger.',
  }),
  redisUrl: optional(is.url('redis', 'rediss'), {
    name: 'REDIS_URL',
    group: 'Storage',
    secret: true,
    description:
      'Redis 7 or newer with `appendonly yes`. Without it limits and usage log are embedded, which is right for one process only.',
  }),
  redisCommandTimeoutMs: setting(is.integer(10, 60_000), {
    name: 'REDIS_COMMAND_TIMEOUT_MS',
    group: 'Storage',
    default: 1000,
    unit: 'milliseconds',
    description: 'Longest wait for an answer of Redis; after it Redis counts as away.',
  }),
  limitsWhenRedisIsAway: setting(is.oneOf('closed', 'open', 'local'), {
    name: 'LIMITS_WHEN_REDIS_IS_AWAY',
    group: 'Storage',
    default: 'closed',
    description:
      'Calls while Redis cannot be reached: `closed` refuses them with LIMITS_UNAVAILABLE, `open` admits them without limits, `local` within a share of each limit for each replica. `open` and `local` keep usage in TOLLGATE_DATA_DIR meanwhile. See [operations](operations.md#when-redis-is-away).',
  }),
  usageRetentionMonths: setting(is.zeroOr(2, 1200), {
    name: 'USAGE_RETENTION_MONTHS',
    group: 'Storage',
    default: 0,
    description:
      'Usage records of this many whole months before the current one are kept; older ones are dropped for good. 0 keeps all. Hourly sums are always kept.',
  }),
  changesRetentionDays: setting(is.integer(0, 36_500), {
    name: 'CHANGES_RETENTION_DAYS',
    group: 'Storage',
    default: 30,
    description:
      'Changes of the control plane stay in the log that watches go on from for this many days. 0 keeps all. The audit log is another one.',
  }),
  backendConnectionsPerHost: setting(is.integer(1, 10_000), {
    name: 'BACKEND_CONNECTIONS_PER_HOST',
    group: 'Backends',
    default: 100,
    description: 'Kept-alive connections to each backend host.',
  }),
  backendConnectTimeoutMs: setting(is.integer(10, 60_000), {
    name: 'BACKEND_CONNECT_TIMEOUT_MS',
    group: 'Backends',
    default: 2000,
    unit: 'milliseconds',
    description: 'Longest wait for a connection to a backend, TLS included.',
  }),
  responseCacheMaxBytes: setting(is.integer(0, 4_294_967_296), {
    name: 'RESPONSE_CACHE_MAX_BYTES',
    group: 'Backends',
    default: 67_108_864,
    unit: 'bytes',
    description:
      'Answers that this process keeps for services with a response cache, all together; one answer takes a sixteenth at most. 0 keeps none.',
  }),
  maxResponseBytes: setting(is.integer(1024, 268_435_456), {
    name: 'MAX_RESPONSE_BYTES',
    group: 'Backends',
    default: 16_777_216,
    unit: 'bytes',
    description: "Largest answer that is taken from a service's backend.",
  }),
  breakerFailures: setting(is.integer(1, 10_000), {
    name: 'BREAKER_FAILURES',
    group: 'Backends',
    default: 5,
    description: "Failures within BREAKER_WINDOW_MS that open an endpoint's breaker.",
  }),
  breakerWindowMs: setting(is.integer(100, 600_000), {
    name: 'BREAKER_WINDOW_MS',
    group: 'Backends',
    default: 10_000,
    unit: 'milliseconds',
    description: 'Window in which failures are counted.',
  }),
  breakerResetMs: setting(is.integer(10, 600_000), {
    name: 'BREAKER_RESET_MS',
    group: 'Backends',
    default: 10_000,
    unit: 'milliseconds',
    description: 'Pause of an open breaker before it lets one probe through.',
  }),
  adminKey: optional(is.secret(adminKeyMinLength), {
    name: 'TOLLGATE_ADMIN_KEY',
    group: 'Access',
    secret: true,
    description:
      'Credential of the bootstrap administrator. There is no default: without it no credential is an administrator.',
  }),
  credentialFailures: setting(is.zeroOr(1, 1_000_000), {
    name: 'CREDENTIAL_FAILURES_PER_MINUTE',
    group: 'Access',
    default: 100,
    description:
      'Wrong credentials that an address (of IPv6 a network of 64 bits) may send a minute and at once. Beyond it only credentials that this process found good before are served from there; others are refused with CREDENTIAL_FAILURES before they are looked at. 0: no limit.',
  }),
  rbac: setting(is.boolean, {
    name: 'ENABLE_RBAC',
    group: 'Access',
    default: true,
    description:
      'Whether permissions are enforced. `false` is for development, and refused where other machines can reach the listener.',
  }),
  rateLimiting: setting(is.boolean, {
    name: 'ENABLE_RATE_LIMITING',
    group: 'Access',
    default: true,
    description: 'Whether request rates and quotas refuse calls. Usage is recorded either way.',
  }),
  policyValidation: setting(is.boolean, {
    name: 'ENABLE_POLICY_VALIDATION',
    group: 'Access',
    default: true,
    description:
      'Whether grants and policies decide about calls. `false` lets every consumer call every service, whatever it sends.',
  }),
  policyFailMode: setting(is.oneOf('closed', 'open'), {
    name: 'POLICY_FAIL_MODE',
    group: 'Access',
    default: 'closed',
    description:
      'What a policy that cannot be evaluated does to a call: `closed` denies it, `open` lets it pass. So it is with an engine elsewhere that does not answer. A policy that cannot be compiled is never stored, in either mode.',
  }),
  policyEngineUrl: optional(is.url('http', 'https', 'grpc', 'grpcs'), {
    name: 'POLICY_ENGINE_URL',
    group: 'Access',
    description:
      'Another Tollgate, or whoever serves marketplace.v1.PolicyEngine over gRPC, that is asked about calls in place of the policies of this one. Grants are still looked at here. See [policy](policy.md#an-engine-elsewhere).',
  }),
  policyEngineCredential: optional(is.secret(16), {
    name: 'POLICY_ENGINE_CREDENTIAL',
    group: 'Access',
    secret: true,
    description: 'Bearer credential for POLICY_ENGINE_URL; of a Tollgate, one that holds policy.check for everything.',
  }),
  policyEngineTimeoutMs: setting(is.integer(1, 10_000), {
    name: 'POLICY_ENGINE_TIMEOUT_MS',
    group: 'Access',
    default: 100,
    unit: 'milliseconds',
    description: 'Longest wait for an answer of POLICY_ENGINE_URL, for one call.',
  }),
  policyEngineConnections: setting(is.integer(1, 50), {
    name: 'POLICY_ENGINE_CONNECTIONS',
    group: 'Access',
    default: 4,
    description: 'Connections to POLICY_ENGINE_URL, which calls take in turn.',
  }),
  policyCostLimit: setting(is.integer(1_000, 10_000_000), {
    name: 'POLICY_COST_LIMIT',
    group: 'Access',
    default: 100_000,
    description:
      'Cost units that the expressions of one policy may use for one call, of about 100 ns each; with more the policy counts as one that cannot be evaluated.',
  }),
  policyScanLimit: setting(is.integer(1_024, 67_108_864), {
    name: 'POLICY_SCAN_LIMIT',
    group: 'Access',
    default: 262_144,
    description:
      'Characters of text that policies look into, for one call; with more, a policy of content counts as one that cannot be evaluated.',
  }),
  policyDecisionsPerSecond: setting(is.integer(0, 1_000), {
    name: 'POLICY_DECISIONS_PER_SECOND',
    group: 'Access',
    default: 10,
    description:
      'Calls a second, of each replica, of which the facts are kept for dry runs of policies; 0 keeps none. What was sent is never kept.',
  }),
  policyDecisionDays: setting(is.integer(1, 365), {
    name: 'POLICY_DECISION_DAYS',
    group: 'Access',
    default: 7,
    description: 'Days that those facts are kept.',
  }),
  policyViolationDays: setting(is.integer(0, 3_650), {
    name: 'POLICY_VIOLATION_DAYS',
    group: 'Access',
    default: 90,
    description: 'Days that violations of policies are kept; 0 keeps them for ever.',
  }),
  jwtIssuers: setting(is.urls('https', 'http'), {
    name: 'JWT_ISSUER',
    aliases: ['JWT_ISSUERS'],
    group: 'Tokens',
    default: [],
    description:
      'Issuers whose tokens are accepted, exactly as the `iss` of their tokens. Without it tokens are wrong credentials.',
  }),
  jwtAudiences: setting(is.texts, {
    name: 'JWT_AUDIENCE',
    group: 'Tokens',
    default: [],
    description: 'Names of this gate, one of which must be in the `aud` of a token. Needed with JWT_ISSUER.',
  }),
  jwtKeysUrl: optional(is.url('https', 'http'), {
    name: 'JWT_JWKS_URL',
    group: 'Tokens',
    description:
      'Where the keys of the one issuer are. Without it the discovery document says, at `/.well-known/openid-configuration` below each issuer.',
  }),
  jwtKeysStaleSeconds: setting(is.integer(300, 604_800), {
    name: 'JWT_JWKS_STALE_SECONDS',
    group: 'Tokens',
    default: 3600,
    description:
      'How many seconds after they were last read the keys of an issuer are used while it is away. They are read again every 5 minutes.',
  }),
  jwtAllowHttp: setting(is.boolean, {
    name: 'JWT_ALLOW_HTTP',
    group: 'Tokens',
    default: false,
    description:
      'Whether keys may be read over `http://` from other machines. Whoever is on the way there can then be anybody.',
  }),
  jwtAlgorithms: setting(is.someOf(...tokenAlgorithms), {
    name: 'JWT_ALGORITHMS',
    group: 'Tokens',
    default: tokenAlgorithms,
    description: 'Algorithms that a token may be signed with. Those with a shared secret, and `none`, are never taken.',
  }),
  jwtClockSkewSeconds: setting(is.integer(0, 300), {
    name: 'JWT_CLOCK_SKEW_SECONDS',
    group: 'Tokens',
    default: 30,
    description: "How many seconds an issuer's clock may be from this one.",
  }),
  jwtTrustClaims: setting(is.boolean, {
    name: 'JWT_TRUST_CLAIMS',
    group: 'Tokens',
    default: false,
    description:
      'Whether a token of somebody who is no user gets the roles, consumer and organization that its claims name.',
  }),
  jwtRolesClaim: setting(is.text, {
    name: 'JWT_ROLES_CLAIM',
    group: 'Tokens',
    default: 'roles',
    description: 'Claim with the names of roles. A dot leads into an object, as in `resource_access.tollgate.roles`.',
  }),
  jwtConsumerClaim: setting(is.text, {
    name: 'JWT_CONSUMER_CLAIM',
    group: 'Tokens',
    default: 'tollgate_consumer',
    description: 'Claim with the id of the consumer that the bearer calls for.',
  }),
  jwtOrganizationClaim: setting(is.text, {
    name: 'JWT_ORGANIZATION_CLAIM',
    group: 'Tokens',
    default: 'tollgate_organization',
    description: 'Claim with the id of the organization that the bearer belongs to.',
  }),
  kafkaBrokers: optional(is.brokers, {
    name: 'KAFKA_BROKERS',
    group: 'Events',
    description: 'Kafka that events go to. Without it a quota that passes 80 or 100 % is a line in the log.',
  }),
  kafkaTopic: setting(is.kafkaName, {
    name: 'KAFKA_TOPIC',
    group: 'Events',
    default: 'marketplace.consumption.events',
    description: 'Topic of the events. It is created with the defaults of the brokers, if these allow it.',
  }),
  kafkaClientId: setting(is.kafkaName, {
    name: 'KAFKA_CLIENT_ID',
    group: 'Events',
    default: 'tollgate',
    description: 'Name of this process in logs and quotas of the brokers.',
  }),
  eventsWebhookUrl: optional(is.url('http', 'https'), {
    name: 'EVENTS_WEBHOOK_URL',
    group: 'Events',
    description: 'Where every change of the control plane is posted to, as a signed CloudEvent.',
  }),
  eventsWebhookSecret: optional(is.webhookSecret, {
    name: 'EVENTS_WEBHOOK_SECRET',
    group: 'Events',
    secret: true,
    description: 'Signs what is posted to EVENTS_WEBHOOK_URL, as Standard Webhooks do.',
  }),
  eventsFile: optional(is.path, {
    name: 'EVENTS_FILE',
    group: 'Events',
    description: 'File that every change of the control plane is appended to, a line each.',
  }),
  eventsKafkaTopic: optional(is.kafkaName, {
    name: 'EVENTS_KAFKA_TOPIC',
    group: 'Events',
    description: 'Topic of KAFKA_BROKERS that every change of the control plane is sent to.',
  }),
  eventsGiveUpHours: setting(is.integer(1, 720), {
    name: 'EVENTS_GIVE_UP_HOURS',
    group: 'Events',
    default: 72,
    description: 'A change that a sink does not take is a dead letter after this long.',
  }),
  eventsSource: setting(is.text, {
    name: 'EVENTS_SOURCE',
    group: 'Events',
    default: '/tollgate',
    description: '`source` of the events of the control plane, a URI reference: names this installation among others.',
  }),
  registryUrl: optional(is.url('http', 'https'), {
    name: 'REGISTRY_URL',
    group: 'Registry',
    description:
      'Outside LLM-Registry, another Tollgate for example; `/api/v1/services` is added to it. See [registry](registry.md#an-outside-registry).',
  }),
  registryApiKey: optional(is.secret(1), {
    name: 'REGISTRY_API_KEY',
    group: 'Registry',
    secret: true,
    description: 'What REGISTRY_URL is shown as `x-api-key`.',
  }),
  registryMode: setting(is.oneOf('publish', 'source', 'both'), {
    name: 'REGISTRY_MODE',
    group: 'Registry',
    default: 'publish',
    description:
      'What REGISTRY_URL is for: `publish` registers the services of this gate there, `source` takes over the services that it lists, `both` does both.',
  }),
  registryIntervalSeconds: setting(is.integer(1, 86_400), {
    name: 'REGISTRY_INTERVAL_SECONDS',
    group: 'Registry',
    default: 30,
    description: 'Pause between two looks at REGISTRY_URL, in seconds, a tenth shorter or longer.',
  }),
  registryGoneShare: setting(is.decimal(0, 1), {
    name: 'REGISTRY_GONE_SHARE',
    group: 'Registry',
    default: 0.2,
    description:
      'Share of the services taken over from REGISTRY_URL that may be missing from its list. When more are missing, none of them is touched: the list counts as broken. One may always be missing, unless the list is empty; `1` believes every list.',
  }),
  registryCredentials: setting(is.credentialsByOrigin, {
    name: 'REGISTRY_ENDPOINT_CREDENTIALS',
    group: 'Registry',
    secret: true,
    default: [],
    description:
      'Credentials for the endpoints of services taken over from REGISTRY_URL: `origin=reference` pairs separated by commas, such as `https://api.example.com=env:EXAMPLE_KEY`. To other origins no credential is sent.',
  }),
  advertisedUrl: optional(is.origin, {
    name: 'ADVERTISED_URL',
    group: 'Registry',
    description:
      'Address at which others reach this gate, such as `https://gate.example`. Registries, and callers who do not see endpoints, are told it as the endpoint of the services of this gate.',
  }),
  logLevel: setting(is.oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'), {
    name: 'LOG_LEVEL',
    group: 'Observability',
    default: 'info',
    devDefault: 'warn',
    description: 'Lowest level that is logged, as JSON lines on standard error.',
  }),
  otlpEndpoint: optional(is.url('http', 'https'), {
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    group: 'Observability',
    description: 'OTLP/HTTP collector; `/v1/traces` is added to it. Without it tracing is off and costs nothing.',
  }),
  serviceName: setting(is.text, {
    name: 'OTEL_SERVICE_NAME',
    group: 'Observability',
    default: 'tollgate',
    description: 'Name of this process in traces.',
  }),
  tracesSampler: setting(
    is.oneOf(
      'parentbased_traceidratio',
      'traceidratio',
      'parentbased_always_on',
      'always_on',
      'parentbased_always_off',
      'always_off',
    ),
    {
      name: 'OTEL_TRACES_SAMPLER',
      group: 'Observability',
      default: 'parentbased_traceidratio',
      description: 'Which traces are recorded.',
    },
  ),
  tracesSamplerArg: setting(is.decimal(0, 1), {
    name: 'OTEL_TRACES_SAMPLER_ARG',
    group: 'Observability',
    default: 1,
    description: 'Share of traces that the ratio samplers record.',
  }),
} as const

interface Named {
  readonly name: string
  readonly group: Group
  readonly description: string
  readonly aliases?: readonly string[]
  readonly unit?: 'milliseconds' | 'bytes'
  readonly secret?: boolean
}

/** A variable that always has a value. */
function setting<T>(parser: Parser<T>, options: Named & { default: NoInfer<T>; devDefault?: NoInfer<T> }): Variable<T> {
  return {
    name: options.name,
    group: options.group,
    parser,
    defaults: { dev: options.devDefault ?? options.default, serve: options.default },
    description: options.description,
    aliases: options.aliases ?? [],
    unit: options.unit,
    secret: options.secret ?? false,
  }
}

/** A variable that may be absent. */
function optional<T>(parser: Parser<T>, options: Named): Variable<T | undefined> {
  return setting<T | undefined>(parser, { ...options, default: undefined })
}
