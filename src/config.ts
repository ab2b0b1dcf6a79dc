import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { isLoopback, type Mode, type OriginCredential } from './config-parsers.ts'
import { type Variable, variables } from './config-variables.ts'
import { isSafeUrl } from './identity/fetch-token-keys.ts'
import { looksLikeKey } from './identity/key-format.ts'
import type { TokenAlgorithm } from './identity/token-algorithms.ts'
import type { ClaimNames } from './identity/token-claims.ts'

/** Everything that may be configured, validated. docs/configuration.md says what each setting does. */
export interface Config {
  readonly mode: Mode
  readonly server: {
    readonly host: string
    readonly port: number
    /** Undefined: cleartext. */
    readonly tls: TlsSettings | undefined
    readonly trustedProxies: readonly string[]
    readonly corsOrigins: readonly string[]
    readonly maxMessageBytes: number
    readonly defaultDeadlineMs: number
    readonly maxDeadlineMs: number
    readonly maxStreamsPerConnection: number
    readonly maxConnectionAgeMs: number
    readonly keepAliveMs: number
    readonly headersTimeoutMs: number
    readonly bodyTimeoutMs: number
    readonly drainMs: number
  }
  /** Processes that share the port; 1: this one, and no other beside it. */
  readonly workers: number
  readonly dataDir: string
  /** `url` undefined: embedded Postgres. */
  readonly database: { readonly url: string | undefined; readonly maxConnections: number }
  /** 0: every usage record is kept. */
  readonly usageRetentionMonths: number
  /** 0: the log of changes is kept as a whole. */
  readonly changesRetentionDays: number
  /** `url` undefined: embedded limits and usage log. */
  readonly redis: {
    readonly url: string | undefined
    readonly commandTimeoutMs: number
    readonly whenAway: WhenRedisIsAway
  }
  readonly backends: {
    readonly connectionsPerHost: number
    readonly connectTimeoutMs: number
    readonly maxResponseBytes: number
    readonly responseCacheMaxBytes: number
    readonly breaker: { readonly failures: number; readonly windowMs: number; readonly resetMs: number }
  }
  /** What "env:NAME" of an endpoint may name: the environment without the settings of the gate itself. */
  readonly credentials: Readonly<Record<string, string | undefined>>
  readonly access: {
    readonly adminKey: string | undefined
    /** 0: no limit. */
    readonly credentialFailuresPerMinute: number
    readonly rbac: boolean
    readonly rateLimiting: boolean
    readonly policyValidation: boolean
  }
  /** Undefined: no issuer of tokens is trusted. */
  readonly tokens: TokenSettings | undefined
  readonly policy: {
    /** What a policy that cannot be evaluated does to a call. */
    readonly failMode: 'closed' | 'open'
    /** Ceilings of one evaluation: cost units, characters of text. */
    readonly limits: { readonly cost: number; readonly scanned: number }
    /** Undefined: the policies of this process decide. */
    readonly engine:
      | {
          /** http or https. */
          readonly url: string
          readonly credential: string | undefined
          readonly timeoutMs: number
          readonly connections: number
        }
      | undefined
    readonly decisionsPerSecond: number
    readonly decisionDays: number
    /** 0: for ever. */
    readonly violationDays: number
  }
  /** `kafka` undefined: only thresholds of quotas, as lines of the log. */
  readonly events: {
    readonly kafka:
      | { readonly brokers: readonly string[]; readonly topic: string; readonly clientId: string }
      | undefined
    /** What changes of the control plane are told to. */
    readonly outbox: {
      readonly webhook: { readonly url: string; readonly secret: string } | undefined
      readonly file: string | undefined
      readonly kafkaTopic: string | undefined
      readonly giveUpMs: number
      readonly source: string
    }
  }
  readonly registry: {
    /** Undefined: there is none. */
    readonly outside: OutsideRegistrySettings | undefined
    /** Address of this gate for others; undefined: nobody is told one. */
    readonly gateUrl: string | undefined
    /** Names this installation. */
    readonly source: string
  }
  readonly logLevel: LogLevel
  /** Undefined: tracing is off. */
  readonly tracing:
    | {
        readonly endpoint: string
        readonly serviceName: string
        readonly sampler: Sampler
        /** Share of traces that the ratio samplers record, 0 to 1. */
        readonly ratio: number
      }
    | undefined
  /** What is legal and still worth a loud line at start. */
  readonly warnings: readonly string[]
}

export interface TlsSettings {
  readonly certPath: string
  readonly keyPath: string
  readonly clientAuth: 'off' | 'optional' | 'required'
  /** Undefined: no client has a certificate. */
  readonly clientCaPath: string | undefined
  readonly trustDomains: readonly string[]
}

export interface TokenSettings {
  readonly issuers: readonly string[]
  readonly audiences: readonly string[]
  /** Undefined: the discovery documents of the issuers say where their keys are. */
  readonly keysUrl: string | undefined
  readonly keysStaleSeconds: number
  readonly allowHttp: boolean
  readonly algorithms: readonly TokenAlgorithm[]
  readonly clockSkewSeconds: number
  readonly trustClaims: boolean
  readonly claims: ClaimNames
}

/** An LLM-Registry elsewhere. */
export interface OutsideRegistrySettings {
  /** Base of its routes. */
  readonly url: string
  readonly apiKey: string
  /** Whether services are registered there, and whether those that it lists are taken over. */
  readonly isTold: boolean
  readonly isSource: boolean
  readonly everyMs: number
  /** Share of what was taken over that a list may lack. */
  readonly goneShare: number
  readonly credentials: readonly OriginCredential[]
}

export type WhenRedisIsAway = (typeof variables.limitsWhenRedisIsAway.defaults)[Mode]
export type LogLevel = (typeof variables.logLevel.defaults)[Mode]
export type Sampler = (typeof variables.tracesSampler.defaults)[Mode]

/** One wrong setting; `value` is safe to show. */
export interface ConfigProblem {
  readonly name: string
  readonly value: string
  readonly reason: string
  readonly remedy: string
}

/** Every wrong setting at once; the message lists them, one a line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly ConfigProblem[]

  constructor(problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ name, value, reason, remedy }) => `  ${name} = ${value}: ${reason}. ${remedy}.`)
    const count = problems.length === 1 ? 'One setting is wrong' : `${problems.length} settings are wrong`
    super(`${count}:\n${lines.join('\n')}`)
    this.problems = problems
  }
}

/**
 * Reads and validates every setting of `env`; the only place that reads the environment.
 *
 * @throws ConfigError that names every problem at once.
 */
export function loadConfig(env: Readonly<Record<string, string | undefined>>, mode: Mode): Config {
  const problems: ConfigProblem[] = []

  function read<T>(variable: Variable<T>): T {
    const name = [variable.name, ...variable.aliases].find((candidate) => env[candidate])
    const text = name === undefined ? undefined : env[name]
    if (name === undefined || text === undefined) return variable.defaults[mode]
    const parsed = variable.parser.parse(text)
    if ('value' in parsed) return parsed.value
    refuse(variable, parsed.reason, `Set it to ${variable.parser.expects}`, name)
    return variable.defaults[mode]
  }

  function refuse<T>(variable: Variable<T>, reason: string, remedy: string, name = variable.name): void {
    problems.push({ name, value: show(env[name], variable.secret), reason, remedy })
  }

  function readPem(variable: Variable<string | undefined>, file: string | undefined): Buffer | undefined {
    const content = file === undefined ? undefined : contentOf(file)
    if (file !== undefined && content === undefined)
      refuse(variable, 'is not a file that this process can read', 'Set it to the path of a readable PEM file')
    return content
  }

  const certPath = read(variables.tlsCertFile)
  const keyPath = read(variables.tlsKeyFile)
  const clientAuth = read(variables.tlsClientAuth)
  const clientCaPath = read(variables.tlsClientCaFile)
  const trustDomains = read(variables.spiffeTrustDomains)
  const tokens: TokenSettings = {
    issuers: read(variables.jwtIssuers),
    audiences: read(variables.jwtAudiences),
    keysUrl: read(variables.jwtKeysUrl),
    keysStaleSeconds: read(variables.jwtKeysStaleSeconds),
    allowHttp: read(variables.jwtAllowHttp),
    algorithms: read(variables.jwtAlgorithms),
    clockSkewSeconds: read(variables.jwtClockSkewSeconds),
    trustClaims: read(variables.jwtTrustClaims),
    claims: {
      roles: read(variables.jwtRolesClaim),
      consumer: read(variables.jwtConsumerClaim),
      organization: read(variables.jwtOrganizationClaim),
    },
  }
  const brokers = read(variables.kafkaBrokers)
  const topic = read(variables.kafkaTopic)
  const clientId = read(variables.kafkaClientId)
  const webhookUrl = read(variables.eventsWebhookUrl)
  const webhookSecret = read(variables.eventsWebhookSecret)
  const eventsTopic = read(variables.eventsKafkaTopic)
  const registryUrl = read(variables.registryUrl)
  const registryApiKey = read(variables.registryApiKey)
  const registryMode = read(variables.registryMode)
  const everyMs = read(variables.registryIntervalSeconds) * 1_000
  const goneShare = read(variables.registryGoneShare)
  const credentials = read(variables.registryCredentials)
  const outside: OutsideRegistrySettings | undefined =
    registryUrl === undefined || registryApiKey === undefined
      ? undefined
      : {
          url: registryUrl.replace(/\/+$/, ''),
          apiKey: registryApiKey,
          isTold: registryMode !== 'source',
          isSource: registryMode !== 'publish',
          everyMs,
          goneShare,
          credentials,
        }
  const source = read(variables.eventsSource)
  const endpoint = read(variables.otlpEndpoint)
  const serviceName = read(variables.serviceName)
  const sampler = read(variables.tracesSampler)
  const policyEngineUrl = read(variables.policyEngineUrl)
  const ratio = read(variables.tracesSamplerArg)
  const config: Config = {
    mode,
    server: {
      host: read(variables.host),
      port: read(variables.port),
      tls:
        certPath !== undefined && keyPath !== undefined
          ? { certPath, keyPath, clientAuth, clientCaPath, trustDomains }
          : undefined,
      trustedProxies: read(variables.trustedProxies),
      corsOrigins: read(variables.corsOrigins),
      maxMessageBytes: read(variables.maxMessageBytes),
      defaultDeadlineMs: read(variables.defaultDeadlineMs),
      maxDeadlineMs: read(variables.maxDeadlineMs),
      maxStreamsPerConnection: read(variables.maxStreamsPerConnection),
      maxConnectionAgeMs: read(variables.maxConnectionAgeMs),
      keepAliveMs: read(variables.keepAliveMs),
      headersTimeoutMs: read(variables.headersTimeoutMs),
      bodyTimeoutMs: read(variables.bodyTimeoutMs),
      drainMs: read(variables.drainMs),
    },
    workers: read(variables.workers),
    dataDir: read(variables.dataDir),
    database: { url: read(variables.databaseUrl), maxConnections: read(variables.databaseMaxConnections) },
    usageRetentionMonths: read(variables.usageRetentionMonths),
    changesRetentionDays: read(variables.changesRetentionDays),
    redis: {
      url: read(variables.redisUrl),
      commandTimeoutMs: read(variables.redisCommandTimeoutMs),
      whenAway: read(variables.limitsWhenRedisIsAway),
    },
    backends: {
      connectionsPerHost: read(variables.backendConnectionsPerHost),
      connectTimeoutMs: read(variables.backendConnectTimeoutMs),
      maxResponseBytes: read(variables.maxResponseBytes),
      responseCacheMaxBytes: read(variables.responseCacheMaxBytes),
      breaker: {
        failures: read(variables.breakerFailures),
        windowMs: read(variables.breakerWindowMs),
        resetMs: read(variables.breakerResetMs),
      },
    },
    credentials: Object.fromEntries(Object.entries(env).filter(([name]) => !isOwn(name))),
    access: {
      adminKey: read(variables.adminKey),
      credentialFailuresPerMinute: read(variables.credentialFailures),
      rbac: read(variables.rbac),
      rateLimiting: read(variables.rateLimiting),
      policyValidation: read(variables.policyValidation),
    },
    tokens: tokens.issuers.length === 0 ? undefined : tokens,
    policy: {
      failMode: read(variables.policyFailMode),
      limits: { cost: read(variables.policyCostLimit), scanned: read(variables.policyScanLimit) },
      engine:
        policyEngineUrl === undefined
          ? undefined
          : {
              url: policyEngineUrl.replace(/^grpc/, 'http'),
              credential: read(variables.policyEngineCredential),
              timeoutMs: read(variables.policyEngineTimeoutMs),
              connections: read(variables.policyEngineConnections),
            },
      decisionsPerSecond: read(variables.policyDecisionsPerSecond),
      decisionDays: read(variables.policyDecisionDays),
      violationDays: read(variables.policyViolationDays),
    },
    events: {
      kafka: brokers === undefined ? undefined : { brokers, topic, clientId },
      outbox: {
        webhook:
          webhookUrl === undefined || webhookSecret === undefined
            ? undefined
            : { url: webhookUrl, secret: webhookSecret },
        file: read(variables.eventsFile),
        kafkaTopic: eventsTopic,
        giveUpMs: read(variables.eventsGiveUpHours) * 3_600_000,
        source,
      },
    },
    registry: { outside, gateUrl: read(variables.advertisedUrl), source },
    logLevel: read(variables.logLevel),
    tracing: endpoint === undefined ? undefined : { endpoint, serviceName, sampler, ratio },
    warnings: [],
  }

  const reachable = !isLoopback(config.server.host)
  if (mode === 'dev' && reachable)
    refuse(
      variables.host,
      'lets other machines reach the demo keys',
      'Set it to 127.0.0.1 or ::1, or run "tollgate serve", which has no demo keys',
    )
  if (mode === 'serve' && reachable && !config.access.rbac)
    refuse(
      variables.rbac,
      `lets everyone who reaches ${config.server.host} do everything`,
      'Leave it out, or set HOST to 127.0.0.1',
    )
  if (mode === 'dev' && config.workers > 1)
    refuse(
      variables.workers,
      'asks for several processes, and the demo is one',
      'Leave it out, or run "tollgate serve"',
    )
  if (mode === 'serve' && config.workers > 1 && config.redis.url === undefined)
    refuse(
      variables.workers,
      `asks for ${config.workers} processes, and embedded limits belong to one`,
      'Set REDIS_URL, which they share, or set it to 1',
    )
  if (config.server.defaultDeadlineMs > config.server.maxDeadlineMs)
    refuse(
      variables.defaultDeadlineMs,
      `is above MAX_DEADLINE_MS (${config.server.maxDeadlineMs})`,
      'Lower it, or raise MAX_DEADLINE_MS',
    )
  if (certPath !== undefined && keyPath === undefined)
    refuse(variables.tlsKeyFile, 'is missing while TLS_CERT_FILE is set', 'Set both or none')
  if (keyPath !== undefined && certPath === undefined)
    refuse(variables.tlsCertFile, 'is missing while TLS_KEY_FILE is set', 'Set both or none')
  if (clientAuth !== 'off' && (clientCaPath === undefined || certPath === undefined))
    refuse(
      variables.tlsClientAuth,
      `needs ${clientCaPath === undefined ? 'TLS_CLIENT_CA_FILE' : 'TLS_CERT_FILE and TLS_KEY_FILE'}`,
      'Set all of them, or leave it out',
    )
  if (clientAuth === 'off' && clientCaPath !== undefined)
    refuse(
      variables.tlsClientCaFile,
      'has no effect while TLS_CLIENT_AUTH is off',
      'Set TLS_CLIENT_AUTH to optional or required, or leave it out',
    )
  readPem(variables.tlsClientCaFile, clientCaPath)
  if (webhookUrl !== undefined && webhookSecret === undefined)
    refuse(variables.eventsWebhookSecret, 'is missing while EVENTS_WEBHOOK_URL is set', 'Set both or none')
  if (webhookSecret !== undefined && webhookUrl === undefined)
    refuse(variables.eventsWebhookUrl, 'is missing while EVENTS_WEBHOOK_SECRET is set', 'Set both or none')
  if ((registryUrl === undefined) !== (registryApiKey === undefined))
    refuse(
      registryUrl === undefined ? variables.registryUrl : variables.registryApiKey,
      'is missing while the other one of REGISTRY_URL and REGISTRY_API_KEY is set',
      'Set both or none',
    )
  if (eventsTopic !== undefined && brokers === undefined)
    refuse(variables.kafkaBrokers, 'is missing while EVENTS_KAFKA_TOPIC is set', 'Set both or none')
  const cert = readPem(variables.tlsCertFile, certPath)
  const key = readPem(variables.tlsKeyFile, keyPath)
  const unfit = cert === undefined || key === undefined ? undefined : whyUnfit(cert, key)
  if (unfit !== undefined)
    refuse(
      variables.tlsCertFile,
      `and TLS_KEY_FILE cannot be used together (${unfit})`,
      'Set them to a PEM certificate chain and its private key',
    )
  const keepsHttps = 'Use https://, or set JWT_ALLOW_HTTP=true where nobody else is on the way'
  if (!tokens.issuers.every((issuer) => tokens.keysUrl !== undefined || isSafeUrl(issuer, tokens.allowHttp)))
    refuse(
      variables.jwtIssuers,
      'is reached in clear, so that others could put their keys in place of its own',
      keepsHttps,
    )
  if (tokens.keysUrl !== undefined && !isSafeUrl(tokens.keysUrl, tokens.allowHttp))
    refuse(variables.jwtKeysUrl, 'is in clear, so that others could put their keys in place of these', keepsHttps)
  if (tokens.keysUrl !== undefined && tokens.issuers.length !== 1)
    refuse(
      variables.jwtKeysUrl,
      `stands beside ${tokens.issuers.length} issuers`,
      'Name one in JWT_ISSUER, or leave it out',
    )
  if (config.tokens !== undefined && tokens.audiences.length === 0)
    refuse(
      variables.jwtAudiences,
      'is missing while JWT_ISSUER is set, and a token for any other service would be good here',
      'Set it to what the issuer writes into the "aud" of tokens for this gate',
    )
  if (config.access.adminKey !== undefined && looksLikeKey(config.access.adminKey))
    refuse(variables.adminKey, 'begins like an API key', `Set it to ${variables.adminKey.parser.expects}`)

  if (problems.length > 0) throw new ConfigError(problems)
  return { ...config, warnings: warningsOf(config) }
}

const ownNames: ReadonlySet<string> = new Set(
  Object.values(variables).flatMap(({ name, aliases }) => [name, ...aliases]),
)

/** Whoever may register a service could have such a variable sent to a backend of theirs. */
function isOwn(name: string): boolean {
  return ownNames.has(name) || /^(OTEL_|PG)/.test(name)
}

function warningsOf(config: Config): string[] {
  const warnings: string[] = []
  if (!config.access.rbac)
    warnings.push('ENABLE_RBAC is false: permissions are NOT enforced, every caller may do everything')
  if (!config.access.rateLimiting)
    warnings.push('ENABLE_RATE_LIMITING is false: no call is refused for its rate or quota')
  if (!config.access.policyValidation)
    warnings.push('ENABLE_POLICY_VALIDATION is false: every consumer may call every service')
  if (config.mode === 'dev') return warnings
  if (config.access.adminKey === undefined)
    warnings.push('TOLLGATE_ADMIN_KEY is not set: no credential is an administrator, so nothing can be registered')
  if (config.database.url === undefined)
    warnings.push('DATABASE_URL is not set: the embedded Postgres runs, and no other replica can share it')
  if (config.redis.url === undefined)
    warnings.push('REDIS_URL is not set: limits and usage log are embedded, and no other replica can share them')
  return warnings
}

function show(text: string | undefined, secret: boolean): string {
  if (!text) return '(not set)'
  if (secret) return `(set, ${text.length} characters)`
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)
}

/** Undefined when it cannot be read. */
function contentOf(file: string): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch {
    return undefined
  }
}

/** Why a listener could not use the two; undefined when it can. */
function whyUnfit(cert: Buffer, key: Buffer): string | undefined {
  try {
    createSecureContext({ cert, key })
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
