import { randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts'
import { migrate } from '../../src/storage/migrate.ts'
import { connectPostgres, type PostgresTarget, type Sql, type StorageLog } from '../../src/storage/postgres.ts'
import { onExit } from './on-exit.ts'
import { noteServer } from './used-servers.ts'

export interface PostgresServerOptions {
  /** Apply the migrations; default true. */
  readonly migrated?: boolean
  /** Always an instance of its own, even with TOLLGATE_TEST_DATABASE_URL: for tests that kill it. Default false. */
  readonly owned?: boolean
  /** Connections of `sql`; default 10. */
  readonly maxConnections?: number
  /** Folder of an owned server that outlives it; default a temporary one that `stop` removes. */
  readonly dataDir?: string
}

/** A fresh database for one test file; call stop() at its end. */
export interface PostgresServer {
  /** Spread it into `connectPostgres`. */
  readonly target: PostgresTarget
  /** The same for processes, as DATABASE_URL. */
  readonly url: string
  /** A pool on it, which survives kill9() and restart(). */
  readonly sql: Sql
  /** The postmaster of an owned server, else 0. */
  readonly pid: number
  /** Ends the pool, the server, and removes the data. */
  stop(): Promise<void>
  /** Shuts the server down in order; only an owned one. */
  shutDown(): Promise<void>
  /** Kills the postmaster at once; only an owned one. */
  kill9(): Promise<void>
  /** Starts the server again on the same data; only an owned one. */
  restart(): Promise<void>
}

/** A log that says nothing. */
export const silentLog: StorageLog = { info: () => {}, warn: () => {}, error: () => {} }

/**
 * A real Postgres: a fresh database on TOLLGATE_TEST_DATABASE_URL when that is set, else an embedded server in a folder
 * of its own.
 */
export async function startPostgresServer(options: PostgresServerOptions = {}): Promise<PostgresServer> {
  const url = process.env.TOLLGATE_TEST_DATABASE_URL
  const server =
    url === undefined || url === '' || options.owned === true
      ? await ownServer(options)
      : await foreignServer(url, options)
  const [version] = await server.sql<[{ text: string }]>`select split_part(version(), ' ', 2) as text`
  noteServer(`Postgres ${version.text}, ${'url' in server.target ? 'by TOLLGATE_TEST_DATABASE_URL' : 'embedded'}`)
  if (options.migrated ?? true) await migrate(server.sql, { log: silentLog })
  return server
}

async function ownServer(options: PostgresServerOptions): Promise<PostgresServer> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'tollgate-pg-')))
  await mkdir(dataDir, { recursive: true })
  await chmod(dataDir, 0o755)
  const start = (): Promise<EmbeddedPostgres> => startEmbeddedPostgres({ dataDir: join(dataDir, 'pg'), log: silentLog })
  let running = await start()
  let isUp = true
  // It has a session of its own: what ends the test process in order must end it too.
  const forget = onExit(() => {
    if (isUp) process.kill(running.pid, 'SIGKILL')
  })
  const end = async (): Promise<void> => {
    await running.stop()
    isUp = false
  }
  const { socketPath, user, database } = running
  const target = { socketPath, user, database }
  const sql = connectPostgres({ ...target, ...poolOptions(options) })
  const [folder = ''] = socketPath.split('/.s.PGSQL.')
  return {
    target,
    url: `postgres://${user}@localhost/${database}?host=${encodeURIComponent(folder)}`,
    sql,
    get pid() {
      return running.pid
    },
    stop: async () => {
      await sql.end(1_000)
      await end()
      forget()
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true })
    },
    shutDown: end,
    kill9: async () => {
      process.kill(running.pid, 'SIGKILL')
      await end()
    },
    restart: async () => {
      running = await start()
      isUp = true
    },
  }
}

async function foreignServer(url: string, options: PostgresServerOptions): Promise<PostgresServer> {
  const name = `tollgate_test_${randomBytes(6).toString('hex')}`
  const admin = connectPostgres({ url, log: silentLog, maxConnections: 1 })
  await admin`create database ${admin(name)}`
  const own = new URL(url)
  own.pathname = `/${name}`
  const target = { url: own.href }
  const sql = connectPostgres({ ...target, ...poolOptions(options) })
  const refuse = async (): Promise<void> => {
    throw new Error('This server is not ours to stop: ask for an owned one.')
  }
  return {
    target,
    url: own.href,
    sql,
    pid: 0,
    stop: async () => {
      await sql.end(1_000)
      await admin`drop database ${admin(name)} with (force)`
      await admin.end(5_000)
    },
    shutDown: refuse,
    kill9: refuse,
    restart: refuse,
  }
}

function poolOptions(options: PostgresServerOptions): { log: StorageLog; maxConnections: number } {
  return { log: silentLog, maxConnections: options.maxConnections ?? 10 }
}
