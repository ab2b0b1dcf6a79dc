import postgres from 'postgres'
import { TollgateError } from '../errors.ts'

/**
 * A pool of connections. `int8` columns arrive as numbers and must be safe integers: counts, milliseconds and nano-units
 * stay far below 2^53, and a value beyond it fails its query instead of losing digits. `sum(int8)` is `numeric` and
 * arrives as text: cast it (`sum(x)::int8`).
 */
export type Sql = postgres.Sql<{ bigint: number }>

/** A transaction on one connection of a pool; takes the same tagged templates. */
export type Transaction = postgres.TransactionSql<{ bigint: number }>

/** Where a Postgres is: a URL, or the private socket of an embedded server. */
export type PostgresTarget =
  | { readonly url: string }
  | { readonly socketPath: string; readonly user: string; readonly database: string }

/** What storage writes to a log; a pino logger fits. */
export interface StorageLog {
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
  error(fields: object, text: string): void
}

export type PostgresOptions = PostgresTarget & {
  readonly log: StorageLog
  /** Ceiling of open connections; default 10. More queries than that wait their turn. */
  readonly maxConnections?: number
  /** The server ends a statement that runs longer; default 30 000. */
  readonly statementTimeoutMs?: number
  /** Ceiling for one attempt to connect; default 5 000. */
  readonly connectTimeoutMs?: number
  /** Name of the pool's connections in pg_stat_activity, at most 63 bytes; default "tollgate". */
  readonly applicationName?: string
  /** Notices of the server; default: written to the log at info level. */
  readonly onNotice?: (notice: { readonly [field: string]: string | undefined }) => void
}

/**
 * Makes a pool; it connects with its first query and again after an outage, at most a second apart. A query that meets
 * a dead server is rejected, not queued: callers decide whether to repeat it. End it with `sql.end({ timeout })`: without
 * the ceiling it waits for ever for a connection that died in mid-query and was not needed again.
 */
export function connectPostgres(options: PostgresOptions): Sql {
  const { log } = options
  const settings: postgres.Options<{ bigint: postgres.PostgresType<number> }> = {
    max: options.maxConnections ?? 10,
    connect_timeout: (options.connectTimeoutMs ?? 5_000) / 1_000,
    backoff: (attempt) => Math.min(0.05 * 2 ** attempt, 1) * (0.5 + Math.random() / 2),
    types: { bigint: safeBigint },
    onnotice:
      options.onNotice ?? ((notice) => log.info({ code: notice.code, notice: notice.message }, 'postgres notice')),
    connection: {
      application_name: options.applicationName ?? 'tollgate',
      TimeZone: 'UTC',
      statement_timeout: options.statementTimeoutMs ?? 30_000,
      idle_in_transaction_session_timeout: 60_000,
    },
  }
  if ('url' in options) return fromUrl(options.url, settings)
  return postgres({ ...settings, path: options.socketPath, user: options.user, database: options.database })
}

/** Also takes libpq's form for sockets, "postgres://user@localhost/database?host=/folder", which the driver does not know. */
function fromUrl(text: string, settings: postgres.Options<{ bigint: postgres.PostgresType<number> }>): Sql {
  const url = new URL(text)
  const folder = url.searchParams.get('host')
  if (folder === null || !folder.startsWith('/')) return postgres(text, settings)
  const port = url.searchParams.get('port') ?? '5432'
  url.searchParams.delete('host')
  url.searchParams.delete('port')
  return postgres(url.href, { ...settings, path: `${folder}/.s.PGSQL.${port}` })
}

/** Ok, or the reason why the server does not answer within `timeoutMs` (default 2 000); never throws. */
export async function pingPostgres(sql: Sql, timeoutMs = 2_000): Promise<{ ok: boolean; detail: string }> {
  const query = sql`select 1`
  const { promise: late, resolve } = Promise.withResolvers<'late'>()
  const timer = setTimeout(() => resolve('late'), timeoutMs)
  try {
    const outcome = await Promise.race([query, late])
    return outcome === 'late' ? { ok: false, detail: `no answer within ${timeoutMs} ms` } : { ok: true, detail: '' }
  } catch (error) {
    return { ok: false, detail: describeError(error) }
  } finally {
    clearTimeout(timer)
    query.catch(() => {})
  }
}

/** Connections under this application name: those that run a statement, and those that wait for one. */
export async function countConnections(sql: Sql, applicationName: string): Promise<{ active: number; idle: number }> {
  const [row] = await sql<[{ active: number; idle: number }]>`
    select count(*) filter (where state <> 'idle')::int as active, count(*) filter (where state = 'idle')::int as idle
    from pg_stat_activity where application_name = ${applicationName}`
  return row
}

/** SQLSTATE, or the code of the driver or of the operating system; undefined for other errors. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** Text for logs and health: code and message, never the values of a statement. */
export function describeError(error: unknown): string {
  const code = errorCode(error)
  const text = error instanceof Error ? error.message : String(error)
  return code === undefined || text.includes(code) ? text : `${code}: ${text}`
}

/**
 * True when the same statement may succeed later: no connection, server starting or stopping, out of resources, a
 * deadlock, a timeout. Classes from https://www.postgresql.org/docs/current/errcodes-appendix.html.
 */
export function isTransient(error: unknown): boolean {
  const code = errorCode(error)
  return code !== undefined && (driverCodes.has(code) || /^(08|53|57|58|40|55)[0-9A-Z]{3}$/.test(code))
}

/**
 * The error that a caller may see: a TollgateError as it is; STORAGE_UNAVAILABLE (retry in a second) when
 * {@link isTransient}; INTERNAL for anything else. The original is the cause.
 */
export function asStorageError(error: unknown): TollgateError {
  if (error instanceof TollgateError) return error
  if (isTransient(error)) {
    return new TollgateError('STORAGE_UNAVAILABLE', 'The database is not reachable at the moment.', {
      retryAfterMs: 1_000,
      cause: error,
    })
  }
  return new TollgateError('INTERNAL', 'The database refused a statement.', { cause: error })
}

const driverCodes: ReadonlySet<string> = new Set([
  'CONNECTION_CLOSED',
  'CONNECTION_DESTROYED',
  'CONNECTION_ENDED',
  'CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOENT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EPIPE',
  'ETIMEDOUT',
])

const safeBigint: postgres.PostgresType<number> = {
  to: 20,
  from: [20],
  serialize: (value: unknown) => String(value),
  parse: (text: string) => {
    const value = Number(text)
    if (!Number.isSafeInteger(value)) throw new RangeError('An int8 value is beyond the safe integers.')
    return value
  },
}
