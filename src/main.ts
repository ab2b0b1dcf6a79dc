/** The `tollgate` command. */
import cluster from 'node:cluster'
import { setFlagsFromString } from 'node:v8'
import { Command, InvalidArgumentError, Option } from 'commander'
import { startApp } from './app.ts'
import { runVerify, type VerifyOptions } from './audit/run-verify.ts'
import { type BooksOptions, runBooks } from './books/run-books.ts'
import { addAdministration, type Terminal } from './cli/administration.ts'
import { addCompletion } from './cli/completion.ts'
import { runDoctor } from './cli/doctor.ts'
import { addProfileCommands } from './cli/profile-commands.ts'
import { type Config, ConfigError, loadConfig } from './config.ts'
import { startDemo } from './demo/demo.ts'
import { startPracticeBackend } from './practice/backend.ts'
import { migrate } from './storage/migrate.ts'
import { connectPostgres } from './storage/postgres.ts'
import { createLogger } from './telemetry/log.ts'
import { startPrimary } from './workers/primary.ts'
import { runWorker } from './workers/run-worker.ts'

interface Closable {
  close(): Promise<void>
}

interface WorkersOption {
  readonly workers?: string
}

// Calls that are in flight during a collection make V8 believe that such objects live long: it would make all that follow in the
// old generation of the heap, where they lead to others that are kept, too (docs/performance.md).
setFlagsFromString('--no-allocation-site-pretenuring')
// Bodies are buffers outside of the heap. By themselves they would lead to a collection of all of the heap for each 64 MB that come,
// however little is in it.
setFlagsFromString('--external-memory-accounted-in-global-limit')

const program = new Command('tollgate')
  .description('The gate of an internal LLM marketplace.')
  .version('0.1.0')
  // A command's own --version is a service's.
  .enablePositionalOptions()

program
  .command('dev')
  .description('run with embedded defaults, practice backends and demo data, on loopback')
  .addOption(new Option('--workers <n>').hideHelp())
  .action((options: WorkersOption) => run(() => startDemo(loadConfig(envWith(options), 'dev'), process.stdout)))

program
  .command('serve')
  .description('run with what is configured; embedded parts stand in for DATABASE_URL and REDIS_URL')
  .option('--workers <n>', 'processes that share the port; "auto": one for each core (default: WORKERS, or 1)')
  .action((options: WorkersOption) => (cluster.isWorker ? serveAsWorker(options) : run(() => serve(options))))

program
  .command('migrate')
  .description('bring the schema of DATABASE_URL up to date and leave')
  .action(() => once(() => migrateOnly(loadConfig(process.env, 'serve'))))

program
  .command('backend')
  .description('run a practice backend: an OpenAI-compatible server with deterministic answers and faults on request')
  .option('--host <host>', 'address to listen on', '127.0.0.1')
  .option('--port <port>', 'port to listen on; 0 takes a free one', port, 4000)
  .option('--log <file>', 'append what was served to this file, before each answer')
  .option('--delay <ms>', 'wait this long before each answer', milliseconds, 0)
  .action((options: { host: string; port: number; log?: string; delay: number }) =>
    run(async () => {
      const backend = await startPracticeBackend({
        host: options.host,
        port: options.port,
        defaultDelayMs: options.delay,
        ...(options.log === undefined ? {} : { logPath: options.log }),
      })
      process.stdout.write(`practice backend listens on ${backend.url}\n`)
      return backend
    }),
  )

program
  .command('books')
  .description('compare usage log, ledger, rollup and quota counters; 0: they balance, 1: differences, 2: unreadable')
  .option('--backend-log <file...>', "compare with the practice backends' own logs, too")
  .option('--month <month>', 'only this UTC month, as YYYY-MM', month)
  .option('--json', 'print every figure as JSON')
  // 1 means a difference, so wrong arguments need another code.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(async (options: BooksOptions) => {
    try {
      process.exitCode = await runBooks(loadConfig(process.env, 'serve'), options, (text) => process.stdout.write(text))
    } catch (error) {
      process.stderr.write(`tollgate: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exitCode = 2
    }
  })

program
  .command('audit')
  .description('the audit log: what was changed, and who was denied what')
  .command('verify')
  .description(
    'check that no record of the audit log was touched; 0: it is whole, 1: it was tampered with, 2: unreadable',
  )
  .option('--heads <file>', 'compare with the heads that an earlier run wrote there, and write those of now')
  .option('--json', 'print every finding as JSON')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(async (options: VerifyOptions) => {
    try {
      process.exitCode = await runVerify(loadConfig(process.env, 'serve'), options, {
        report: (text) => process.stdout.write(text),
        progress: (text) => process.stderr.write(text),
      })
    } catch (error) {
      process.stderr.write(`tollgate: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exitCode = 2
    }
  })

program
  .command('doctor')
  .description('look at everything that the settings name, and say what to do; 0: nothing failed, 1: something did')
  .option('--json', 'print JSON')
  .action((options: { json?: boolean }) =>
    once(async () => {
      const write = (text: string): unknown => process.stdout.write(text)
      process.exitCode = await runDoctor(loadConfig(process.env, 'serve'), { json: options.json === true, write })
    }),
  )

const terminal: Terminal = {
  env: process.env,
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  interruption() {
    const interrupted = new AbortController()
    process.once('SIGINT', () => interrupted.abort())
    return interrupted.signal
  },
}
const leaveWith = (exitCode: number): void => {
  process.exitCode = exitCode
}
addAdministration(program, terminal, leaveWith)
addProfileCommands(program, terminal, leaveWith)
addCompletion(program, (text) => process.stdout.write(text))

await program.parseAsync()

/** The environment, in which an option of the command line stands for the setting of its name. */
function envWith({ workers }: WorkersOption): NodeJS.ProcessEnv {
  return workers === undefined ? process.env : { ...process.env, WORKERS: workers }
}

function serve(options: WorkersOption): Promise<Closable> {
  const config = loadConfig(envWith(options), 'serve')
  return config.workers === 1 ? startApp(config) : startPrimary(config)
}

/** Its signals are its own: see `runWorker`. */
function serveAsWorker(options: WorkersOption): Promise<void> {
  return once(async () => {
    await runWorker(loadConfig(envWith(options), 'serve'))
    process.exit(0)
  })
}

/**
 * Starts something and ends it on SIGTERM or SIGINT, as soon as it has started; a second signal ends the process at once.
 * A signal that comes during the start waits for it: leaving in the middle would leave an embedded Postgres behind.
 */
async function run(start: () => Promise<Closable>): Promise<void> {
  const asked = Promise.withResolvers<void>()
  let signals = 0
  const onSignal = (): void => {
    signals += 1
    if (signals > 1) process.exit(1)
    asked.resolve()
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  await once(async () => {
    const running = await start()
    // Not awaited: what was started keeps the process alive, and the command line is done.
    void asked.promise.then(() => running.close()).then(() => process.exit(0), fail)
  })
}

/** Runs to the end; says what went wrong in words and leaves with 1 (2 for wrong settings). */
async function once(action: () => Promise<void>): Promise<void> {
  try {
    await action()
  } catch (error) {
    fail(error)
  }
}

function fail(error: unknown): never {
  process.stderr.write(`tollgate: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(error instanceof ConfigError ? 2 : 1)
}

async function migrateOnly(config: Config): Promise<void> {
  const log = createLogger({ level: config.logLevel })
  const { url } = config.database
  if (url === undefined) throw new Error('DATABASE_URL is not set: the embedded database migrates itself at start.')
  const sql = connectPostgres({ url, log, maxConnections: 1 })
  try {
    const applied = await migrate(sql, { log })
    process.stdout.write(applied.length === 0 ? 'the schema is up to date\n' : `applied ${applied.join(', ')}\n`)
  } finally {
    await sql.end(5_000)
  }
}

function port(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) > 65535) throw new InvalidArgumentError('a port is a number from 0 to 65535')
  return Number(text)
}

function milliseconds(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('a number of milliseconds is expected')
  return Number(text)
}

function month(text: string): string {
  if (!/^\d{4}-(0[1-9]|1[0-2])$/.test(text)) throw new InvalidArgumentError('a month is YYYY-MM, for example 2026-11')
  return text
}
