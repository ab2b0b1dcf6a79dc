import { type AccessSettings, readAccess } from './config/access.ts'
import { type BackendSettings, readBackends } from './config/backends.ts'
import { type EventSettings, readEvents } from './config/events.ts'
import { type LogLevel, readTracing, type TracingSettings } from './config/observability.ts'
import { type PolicySettings, readPolicy } from './config/policy.ts'
import { type RegistrySettings, readRegistry } from './config/registry.ts'
import { readServer, type ServerSettings } from './config/server.ts'
import { type ConfigProblem, createSettingsReader, type SettingsReader } from './config/settings-reader.ts'
import { readStorage, type StorageSettings } from './config/storage.ts'
import { readTokens, type TokenSettings } from './config/tokens.ts'
import { isLoopback, type Mode } from './config-parsers.ts'
import { variables } from './config-variables.ts'

/**
 * Everything that may be configured, validated. docs/configuration.md says what each setting does; the files of
 * `config/` hold a topic each: its variables, what the rest of the code gets of them, and what does not go together.
 */
export interface Config extends StorageSettings {
  readonly mode: Mode
  readonly server: ServerSettings
  /** Processes that share the port; 1: this one, and no other beside it. */
  readonly workers: number
  readonly backends: BackendSettings
  /** What "env:NAME" of an endpoint may name: the environment without the settings of the gate itself. */
  readonly credentials: Readonly<Record<string, string | undefined>>
  readonly access: AccessSettings
  /** Undefined: no issuer of tokens is trusted. */
  readonly tokens: TokenSettings | undefined
  readonly policy: PolicySettings
  readonly events: EventSettings
  readonly registry: RegistrySettings
  readonly logLevel: LogLevel
  /** Undefined: tracing is off. */
  readonly tracing: TracingSettings | undefined
  /** What is legal and still worth a loud line at start. */
  readonly warnings: readonly string[]
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
  const from = createSettingsReader(env, mode, problems)
  const events = readEvents(from)
  const config: Config = {
    mode,
    server: readServer(from),
    workers: from.read(variables.workers),
    ...readStorage(from),
    backends: readBackends(from),
    credentials: Object.fromEntries(Object.entries(env).filter(([name]) => !isOwn(name))),
    access: readAccess(from),
    policy: readPolicy(from),
    tokens: readTokens(from),
    events,
    registry: readRegistry(from, events.outbox.source),
    logLevel: from.read(variables.logLevel),
    tracing: readTracing(from),
    warnings: [],
  }
  refuseExposure(config, from)
  refuseWorkers(config, from)
  if (problems.length > 0) throw new ConfigError(problems)
  return { ...config, warnings: warningsOf(config) }
}

/** Other machines may neither reach the demo keys nor a gate that asks for no permission. */
function refuseExposure({ mode, server, access }: Config, from: SettingsReader): void {
  if (isLoopback(server.host)) return
  if (mode === 'dev')
    from.refuse(
      variables.host,
      'lets other machines reach the demo keys',
      'Set it to 127.0.0.1 or ::1, or run "tollgate serve", which has no demo keys',
    )
  if (mode === 'serve' && !access.rbac)
    from.refuse(
      variables.rbac,
      `lets everyone who reaches ${server.host} do everything`,
      'Leave it out, or set HOST to 127.0.0.1',
    )
}

/** Several processes share their limits in Redis, and nothing else. */
function refuseWorkers({ mode, workers, redis }: Config, from: SettingsReader): void {
  if (workers <= 1) return
  if (mode === 'dev')
    from.refuse(
      variables.workers,
      'asks for several processes, and the demo is one',
      'Leave it out, or run "tollgate serve"',
    )
  if (mode === 'serve' && redis.url === undefined)
    from.refuse(
      variables.workers,
      `asks for ${workers} processes, and embedded limits belong to one`,
      'Set REDIS_URL, which they share, or set it to 1',
    )
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
