import { type ChildProcess, spawn } from 'node:child_process'
import { open, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type EmbeddedPlaces, prepareEmbeddedPlaces } from './embedded-files.ts'
import { connectPostgres, type Sql, type StorageLog } from './postgres.ts'

export interface EmbeddedPostgresOptions {
  /** Folder that belongs to this server; made when missing. Data in it is kept. */
  readonly dataDir: string
  readonly log: StorageLog
  /** Connections that it takes; never fewer than 60, the default. One that is adopted keeps what it has. */
  readonly maxConnections?: number
}

/** A running server of its own; spread it into `connectPostgres`. */
export interface EmbeddedPostgres {
  readonly socketPath: string
  readonly user: string
  readonly database: string
  /** The postmaster. */
  readonly pid: number
  /** Stops fast (open transactions roll back) and waits for the end; at most about 20 s. */
  stop(): Promise<void>
}

/**
 * A real PostgreSQL from the package registry, for running without DATABASE_URL and for tests. It listens on a Unix
 * socket in a folder of mode 0700 only, so it needs no password, and it is durable (fsync is on).
 *
 * The server outlives a killed parent: the next start finds it by its pid file and adopts it. Throws with the tail of
 * the server's log when it does not come up, and when the data belongs to another major version.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { log } = options
  const places = await prepareEmbeddedPlaces(options.dataDir, log)
  const adopted = await adoptOrphan(places)
  if (adopted !== undefined) {
    log.info({ pid: adopted, home: places.home }, 'adopted the embedded Postgres of an earlier process')
    return handle(places, adopted, undefined)
  }
  await checkVersion(places)
  if (!(await exists(places.cluster))) await initialize(places)
  const child = await launch(places, Math.max(options.maxConnections ?? 0, fewestConnections))
  const { pid } = child
  if (pid === undefined) throw new Error('The embedded Postgres has no process id.')
  await createDatabase(places)
  log.info({ pid, home: places.home }, 'started the embedded Postgres')
  return handle(places, pid, child)
}

const user = 'tollgate'
const database = 'tollgate'
const port = 5432
const startTimeoutMs = 60_000

const fewestConnections = 60

/** Lean for a laptop, and durable: everything about fsync and commits stays at its safe default. */
const settings: Readonly<Record<string, string | number>> = {
  listen_addresses: '',
  port,
  unix_socket_permissions: '0700',
  shared_buffers: '64MB',
  max_wal_size: '512MB',
  wal_level: 'minimal',
  max_wal_senders: 0,
  max_parallel_workers_per_gather: 0,
  io_method: 'sync',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

function handle(places: EmbeddedPlaces, pid: number, child: ChildProcess | undefined): EmbeddedPostgres {
  const stopServer = async (): Promise<void> => {
    const isGone = async (): Promise<boolean> =>
      child === undefined ? (await runningPid(places)) !== pid : child.exitCode !== null || child.signalCode !== null
    // Fast, then immediate (which recovers from the log at the next start), then what cannot be ignored.
    for (const [signal, timeoutMs] of [
      ['SIGINT', 15_000],
      ['SIGQUIT', 4_000],
      ['SIGKILL', 1_000],
    ] as const) {
      if (await isGone()) return
      trySignal(pid, signal)
      if (await eventually(isGone, timeoutMs)) return
    }
  }
  let stopping: Promise<void> | undefined
  return {
    socketPath: socketPath(places),
    user,
    database,
    pid,
    stop: () => {
      stopping ??= stopServer()
      return stopping
    },
  }
}

/** Pid of the server that an earlier process left behind, once it accepts connections; removes a stale pid file. */
async function adoptOrphan(places: EmbeddedPlaces): Promise<number | undefined> {
  const deadline = Date.now() + startTimeoutMs
  for (;;) {
    const pid = await runningPid(places)
    if (pid === undefined) {
      // Postgres refuses to start when any process has the pid of a stale file, whatever that process is.
      await rm(pidFile(places), { force: true })
      return undefined
    }
    // It may be in recovery, or on its way out: both end.
    if (await servesCluster(places)) return pid
    if (Date.now() > deadline) throw new Error(`The embedded Postgres with pid ${pid} neither answers nor ends.`)
    await delay(50)
  }
}

/** Pid of a live postmaster of this cluster, by its pid file. */
async function runningPid(places: EmbeddedPlaces): Promise<number | undefined> {
  const text = await readFile(pidFile(places), 'utf8').catch(() => '')
  const pid = Number(text.split('\n')[0])
  if (!Number.isInteger(pid) || pid <= 1 || !trySignal(pid, 0)) return undefined
  // Pids are reused, and a zombie has no command line: look at what runs under it.
  const command = await commandLine(pid)
  return command.includes(places.cluster) ? pid : undefined
}

async function commandLine(pid: number): Promise<string> {
  if (process.platform === 'linux') return readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  const { output } = await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)], undefined)
  return output
}

async function servesCluster(places: EmbeddedPlaces): Promise<boolean> {
  return withAdmin(places, async (sql) => {
    const [row] = await sql<{ setting: string }[]>`select current_setting('data_directory') as setting`
    return row?.setting === places.cluster
  }).catch(() => false)
}

async function checkVersion(places: EmbeddedPlaces): Promise<void> {
  const text = await readFile(join(places.cluster, 'PG_VERSION'), 'utf8').catch(() => undefined)
  if (text === undefined) return
  const { output } = await run(places.postgres, ['--version'], places)
  const ours = /(\d+)\./.exec(output)?.[1]
  if (ours === text.trim()) return
  throw new Error(
    `The data in ${places.cluster} was written by PostgreSQL ${text.trim()}, the embedded server is ${ours ?? 'unknown'}. ` +
      'Move the folder away to start empty, or dump it with the old version and restore it.',
  )
}

async function initialize(places: EmbeddedPlaces): Promise<void> {
  const aside = join(places.home, 'data.new')
  await rm(aside, { recursive: true, force: true })
  const flags = [
    '--no-sync',
    '--no-instructions',
    '--auth=trust',
    `--username=${user}`,
    '--encoding=UTF8',
    '--locale=C',
  ]
  // The order of C, with letters beyond ASCII still folded in lower().
  const locale = ['--locale-provider=builtin', '--builtin-locale=C.UTF-8']
  const { code, output } = await run(places.initdb, ['-D', aside, ...flags, ...locale], places)
  if (code !== 0) throw new Error(`initdb failed: ${output.trim().slice(-2_000)}`)
  // Renamed when whole: a start that is killed in the middle leaves nothing that looks like data.
  await rename(aside, places.cluster)
}

async function launch(places: EmbeddedPlaces, maxConnections: number): Promise<ChildProcess> {
  const deadline = Date.now() + startTimeoutMs
  for (;;) {
    const log = await open(places.logFile, 'w', 0o600)
    const args = Object.entries({
      ...settings,
      max_connections: maxConnections,
      unix_socket_directories: places.socketDir,
    })
    const child = spawn(places.postgres, ['-D', places.cluster, ...args.flatMap(([k, v]) => ['-c', `${k}=${v}`])], {
      ...spawnOptions(places),
      // Its own process group: the terminal's Ctrl-C is for the gate, which stops the server when it has drained.
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    let failure: Error | undefined
    child.once('error', (error) => {
      failure = error
    })
    await log.close()
    const isOver = (): boolean => failure !== undefined || child.exitCode !== null || child.signalCode !== null
    while (!isOver() && Date.now() < deadline) {
      if (await servesCluster(places)) return child
      await delay(20)
    }
    if (!isOver()) child.kill('SIGKILL')
    const tail = (await readFile(places.logFile, 'utf8').catch(() => '')).trim().slice(-2_000)
    // Backends of a killed postmaster need a moment to notice.
    if (!tail.includes('is still in use') || Date.now() > deadline) {
      throw new Error(`The embedded Postgres did not start: ${failure?.message ?? tail}`)
    }
    await delay(100)
  }
}

async function createDatabase(places: EmbeddedPlaces): Promise<void> {
  await withAdmin(places, async (sql) => {
    const found = await sql`select 1 from pg_database where datname = ${database}`
    if (found.length === 0) await sql`create database ${sql(database)}`
  })
}

/** Until it serves, and after it ended, connections fail; nobody needs to know. */
const quiet: StorageLog = { info: () => {}, warn: () => {}, error: () => {} }

async function withAdmin<T>(places: EmbeddedPlaces, use: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = connectPostgres({
    socketPath: socketPath(places),
    user,
    database: 'postgres',
    log: quiet,
    maxConnections: 1,
  })
  try {
    return await use(sql)
  } finally {
    await sql.end(1_000)
  }
}

async function run(
  file: string,
  args: string[],
  places: EmbeddedPlaces | undefined,
): Promise<{ code: number; output: string }> {
  const child = spawn(file, args, {
    ...(places && spawnOptions(places)),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? 1, output }))
  })
}

function spawnOptions(places: EmbeddedPlaces): {
  cwd: string
  uid?: number
  gid?: number
  env: Record<string, string>
} {
  return { cwd: places.home, ...places.account, env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' } }
}

function trySignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch (error) {
    // Not ours to signal, but alive.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

async function eventually(condition: () => Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs
  while (Date.now() < deadline) {
    if (await condition()) return true
    await delay(20)
  }
  return condition()
}

function socketPath(places: EmbeddedPlaces): string {
  return join(places.socketDir, `.s.PGSQL.${port}`)
}

function pidFile(places: EmbeddedPlaces): string {
  return join(places.cluster, 'postmaster.pid')
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
