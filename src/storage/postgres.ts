import { Socket } from 'node:net'
import pg from 'pg'
import { TollgateError } from '../errors.ts'
import { within } from '../within.ts'
import { listenTo, type Subscription } from './notifications.ts'
import { parserOf } from './row-types.ts'
import { type Rows, type Statements, type StatementText, statements } from './statement.ts'

/** A transaction on one connection of a pool. */
export type Transaction = Statements

/** A pool of connections. */
export interface Sql extends Statements {
  /**
   * Runs `work` in a transaction, committed when it resolves, and rolled back when it rejects or when one of its
   * statements failed. `mode` is what `begin` takes, such as "isolation level repeatable read read only". Its statements
   * may run for `statementTimeoutMs` each; default: what the pool has.
   */
  begin<T>(work: (tx: Transaction) => Promise<T>, mode?: string, statementTimeoutMs?: number): Promise<T>
  /** Runs statements on one connection, for what belongs to a session. */
  onConnection<T>(work: (connection: Statements) => Promise<T>): Promise<T>
  /**
   * Calls `onNotify` for each notification of the channel, and whenever it may have missed some: it listens on a connection
   * of its own, and again after an outage.
   */
  listen(channel: string, onNotify: () => void): Subscription
  /**
   * Waits for statements that run, for `timeoutMs` at most, and closes every connection, those that listen too. Without
   * the ceiling (default 5 000) it would wait for ever for a server that does not answer. Safe to call again.
   */
  end(timeoutMs?: number): Promise<void>
}

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
  /** The server ends a statement that runs longer; one without an answer for 5 s more fails here. Default 30 000. */
  readonly statementTimeoutMs?: number
  /** Ceiling for one attempt to connect; default 5 000. */
  readonly connectTimeoutMs?: number
  /** How often a connection that listens is asked whether its server is still there; default 30 000. */
  readonly listenCheckMs?: number
  /** Name of the pool's connections in pg_stat_activity, at most 63 bytes; default "tollgate". */
  readonly applicationName?: string
}

/**
 * Makes a pool; it connects with its first statement and again after an outage. A statement that meets a dead server is
 * rejected, not queued, and so is one that waits longer than `connectTimeoutMs` for a connection, or for an answer longer
 * than the server itself would let it run: callers decide whether to repeat it.
 */
export function connectPostgres(options: PostgresOptions): Sql {
  const { log, statementTimeoutMs = 30_000, listenCheckMs } = options
  const sockets = new Set<Socket>()
  const subscriptions: Subscription[] = []
  const settings: pg.ClientConfig = {
    ...addressOf(options),
    application_name: options.applicationName ?? 'tollgate',
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: 60_000,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 5_000,
    keepAlive: true,
    // The system's own delay is two hours.
    keepAliveInitialDelayMillis: 30_000,
    types: { getTypeParser: parserOf },
    stream: () => {
      const socket = new Socket()
      sockets.add(socket.once('close', () => sockets.delete(socket)))
      return socket
    },
  }
  const pool = new pg.Pool({ ...settings, max: options.maxConnections ?? 10, idleTimeoutMillis: 60_000 })
  // Of a connection that nobody uses: the pool has forgotten it already.
  pool.on('error', (error) => log.info({ reason: describeError(error) }, 'lost a connection to postgres'))
  /** Connections that broke, and why. Heard from the first moment on: an error that nobody hears ends the process. */
  const broken = new WeakMap<pg.ClientBase, Error>()
  pool.on('connect', (client) => {
    client.on('error', (error) => broken.set(client, error))
    client.on('notice', ({ code, message }) => log.info({ code, notice: message }, 'postgres notice'))
  })

  async function onSession<T>(work: (session: Session) => Promise<T>, timeoutMs = statementTimeoutMs): Promise<T> {
    const client = await pool.connect().catch((error: unknown) => {
      throw connectionError(error, pool.ending ? 'CONNECTION_ENDED' : 'CONNECT_TIMEOUT')
    })
    const session = new Session(client, () => broken.get(client), timeoutMs + answerGraceMs)
    try {
      return await work(session)
    } finally {
      session.release()
    }
  }

  function begin<T>(work: (tx: Transaction) => Promise<T>, mode = '', timeoutMs = statementTimeoutMs): Promise<T> {
    return onSession(async (session) => {
      const failures: unknown[] = []
      const limit = timeoutMs === statementTimeoutMs ? '' : `; set local statement_timeout = ${timeoutMs}`
      await session.unsafe(`begin ${mode}${limit}`)
      try {
        const result = await work(session.statements((error) => failures.push(error)))
        if (failures.length > 0) throw failures[0]
        // A statement that nobody awaited may fail only now: what is left to commit then is answered with a rollback.
        const tag = await session.command('commit')
        if (tag === 'ROLLBACK') throw failures[0] ?? new Error('the transaction was rolled back')
        return result
      } catch (error) {
        await session.unsafe('rollback').catch((reason: unknown) => session.discard(reason))
        throw error
      }
    }, timeoutMs)
  }

  let ending: Promise<void> | undefined
  async function end(timeoutMs: number): Promise<void> {
    const ended = Promise.all([pool.end(), ...subscriptions.map((subscription) => subscription.close())])
    // The pool waits for who holds a connection, and that may wait for something else.
    await within(timeoutMs, ended).catch(() => {})
    // It forgets an idle connection at once; a server that is frozen would never close its side.
    for (const socket of sockets) socket.destroy()
  }

  return Object.assign(
    statements((statement) => onSession((session) => session.run(statement))),
    {
      begin,
      onConnection: <T>(work: (connection: Statements) => Promise<T>) =>
        onSession((session) => work(session.statements())),
      listen: (channel: string, onNotify: () => void) => {
        const subscription = listenTo({
          connect: () => new pg.Client(settings),
          channel,
          onNotify,
          onDeaf: (reason) => log.warn({ channel, reason: describeError(reason) }, 'not told of changes: polling only'),
          checkEveryMs: listenCheckMs,
        })
        subscriptions.push(subscription)
        return subscription
      },
      end: (timeoutMs = 5_000) => {
        ending ??= end(timeoutMs)
        return ending
      },
    },
  )
}

/** How much later than the server ends a statement its answer may arrive. */
const answerGraceMs = 5_000

/** A connection that is lent by the pool until it is released. */
class Session {
  readonly #client: pg.PoolClient
  readonly #brokenBy: () => Error | undefined
  readonly #answerTimeoutMs: number
  #discarded: Error | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(client: pg.PoolClient, brokenBy: () => Error | undefined, answerTimeoutMs: number) {
    this.#client = client
    this.#brokenBy = brokenBy
    this.#answerTimeoutMs = answerTimeoutMs
  }

  async run<T extends readonly unknown[]>(statement: StatementText): Promise<Rows<T>> {
    const result = await this.#inTurn(statement)
    const rows = Object.assign(result?.rows ?? [], { count: result?.rowCount ?? 0 })
    // Rows compare as the arrays that they are.
    Object.defineProperty(rows, 'count', { enumerable: false })
    return rows as unknown as Rows<T>
  }

  async unsafe(text: string): Promise<void> {
    await this.#inTurn({ text, values: [] })
  }

  /** Resolves to what Postgres says that it did. */
  async command(text: string): Promise<string | undefined> {
    return (await this.#inTurn({ text, values: [] }))?.command
  }

  statements(onFailure: (error: unknown) => void = () => {}): Statements {
    return statements(<T extends readonly unknown[]>(statement: StatementText) => {
      const mine = this.run<T>(statement)
      mine.catch(onFailure)
      return mine
    })
  }

  /** Keeps the connection from being used again. */
  discard(reason: unknown): void {
    this.#discarded = reason instanceof Error ? reason : new Error(String(reason))
  }

  release(): void {
    this.#client.release(this.#brokenBy() ?? this.#discarded)
  }

  /** One statement after the other: a connection answers them in that order anyway. */
  #inTurn(statement: StatementText): Promise<Result | undefined> {
    const mine = this.#last.then(() => this.#query(statement))
    // Only the order: a failure is told to who asked.
    this.#last = mine.catch(() => {})
    return mine
  }

  async #query({ text, values, name }: StatementText): Promise<Result | undefined> {
    try {
      const named = name === undefined ? {} : { name }
      const answer = this.#client.query<Record<string, unknown>>({ text, values: [...values], ...named })
      const result = await within(this.#answerTimeoutMs, answer, () => this.#giveUp())
      // Several statements in one text have as many results.
      return [result].flat().at(-1)
    } catch (error) {
      throw this.#brokenBy() === undefined ? error : connectionError(error, 'CONNECTION_CLOSED')
    }
  }

  /** Nobody can know what a statement without an answer did, and only the end of its connection ends it. */
  #giveUp(): Error {
    const text = `no answer within ${this.#answerTimeoutMs} ms`
    const error = Object.assign(new Error(text), { code: 'ANSWER_TIMEOUT' })
    this.discard(error)
    this.#client.connection.stream.destroy(error)
    return error
  }
}

type Result = pg.QueryResult<Record<string, unknown>>

function addressOf(target: PostgresTarget): pg.ClientConfig {
  if ('url' in target) {
    const url = new URL(target.url)
    // What sslmode means is what libpq makes of it: "require" encrypts, and does not look at the certificate.
    if (url.searchParams.has('sslmode')) url.searchParams.set('uselibpqcompat', 'true')
    url.searchParams.set('options', `${url.searchParams.get('options') ?? ''} -c TimeZone=UTC`.trim())
    return { connectionString: url.href }
  }
  const { socketPath, user, database } = target
  const [, host, port] = /^(.*)\/\.s\.PGSQL\.(\d+)$/.exec(socketPath) ?? []
  if (host === undefined) throw new Error(`"${socketPath}" is no socket of a Postgres: FOLDER/.s.PGSQL.PORT`)
  return { host, port: Number(port), user, database, options: '-c TimeZone=UTC' }
}

/** The driver's own errors carry no code. */
function connectionError(cause: unknown, code: string): unknown {
  if (errorCode(cause) !== undefined) return cause
  const text = cause instanceof Error ? cause.message : String(cause)
  return Object.assign(new Error(text, { cause }), { code })
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
    // What comes of it after the time is of no interest.
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
 * {@link isTransient}; INVALID_ARGUMENT for a text that Postgres cannot store; INTERNAL for anything else. The original is
 * the cause.
 */
export function asStorageError(error: unknown): TollgateError {
  if (error instanceof TollgateError) return error
  if (isTransient(error)) {
    return new TollgateError('STORAGE_UNAVAILABLE', 'The database is not reachable at the moment.', {
      retryAfterMs: 1_000,
      cause: error,
    })
  }
  if (nulCharacter.has(errorCode(error) ?? '')) {
    return new TollgateError('INVALID_ARGUMENT', 'A text field contains a NUL character.', { cause: error })
  }
  return new TollgateError('INTERNAL', 'The database refused a statement.', { cause: error })
}

/** SQLSTATEs of text, and of text in JSON, with U+0000, the one character that Protobuf allows and Postgres does not. */
const nulCharacter: ReadonlySet<string> = new Set(['22021', '22P05'])

const driverCodes: ReadonlySet<string> = new Set([
  'ANSWER_TIMEOUT',
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
