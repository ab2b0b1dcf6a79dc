import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { DescService } from '@bufbuild/protobuf'
import { type Client, createClient, type Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { eventually } from './eventually.ts'
import { onExit } from './on-exit.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** The sources, or the bundle that production runs (made by `npm run build`). */
export type Entry = 'source' | 'bundle'

export interface TollgateOptions {
  readonly command: 'dev' | 'serve'
  readonly entry?: Entry
  /** Added to PATH and HOME; nothing else of the test's environment reaches the process. */
  readonly env?: Readonly<Record<string, string>>
  /** Kept by `stop` when given; else a scratch folder that `stop` removes. */
  readonly dataDir?: string
}

/** A `tollgate` process of the tests' own. */
export interface Tollgate {
  readonly address: string
  readonly grpcAddress: string
  readonly dataDir: string
  readonly pid: number
  /** Resolves when the process is gone, whoever ended it. */
  readonly ended: Promise<unknown>
  /** Everything that it wrote to stdout and stderr. */
  output(): string
  client<S extends DescService>(service: S, credential: string): Client<S>
  /** SIGTERM; resolves with the exit code. */
  terminate(): Promise<number | null>
  /** SIGKILL; resolves when the process is gone. */
  kill9(): Promise<void>
  /** Ends it if it runs, and with `dev`'s embedded Postgres nothing stays behind; removes a scratch folder. */
  stop(): Promise<void>
}

/** Starts the process and waits until it serves. Throws with its output when it ends instead. */
export async function startTollgate(options: TollgateOptions): Promise<Tollgate> {
  const scratch = options.dataDir === undefined ? await scratchDir() : undefined
  const dataDir = options.dataDir ?? scratch ?? ''
  const env = { TOLLGATE_DATA_DIR: dataDir, HOST: '127.0.0.1', PORT: '0', ...options.env }
  const { child, output } = spawnTollgate([options.command], env, options.entry)
  const ended = once(child, 'exit')
  const address = await eventually(
    () => {
      if (child.exitCode !== null) throw new Error(`tollgate ended with ${child.exitCode}:\n${output()}`)
      return /(?:Tollgate listens on |"address":")(https?:\/\/[^"\s]+)/.exec(output())?.[1]
    },
    { giveUpOnError: true, timeoutMs: 90_000, what: () => `an address in the output:\n${output()}` },
  ).catch((error: unknown) => {
    child.kill('SIGKILL')
    throw error
  })
  const transports = new Map<string, Transport>()

  async function end(signal: NodeJS.Signals): Promise<number | null> {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
    await ended
    return child.exitCode
  }

  return {
    address,
    grpcAddress: address.replace(/^https?:\/\//, ''),
    dataDir,
    pid: child.pid ?? 0,
    ended,
    output,
    client(service, credential) {
      const transport =
        transports.get(credential) ??
        createGrpcTransport({
          baseUrl: address,
          interceptors: [
            (next) => (request) => {
              request.header.set('authorization', `Bearer ${credential}`)
              return next(request)
            },
          ],
        })
      transports.set(credential, transport)
      return createClient(service, transport)
    },
    terminate: () => end('SIGTERM'),
    async kill9() {
      await end('SIGKILL')
    },
    async stop() {
      await end('SIGTERM')
      if (scratch !== undefined) await rm(scratch, { recursive: true, force: true })
    },
  }
}

/** A scratch folder that the embedded Postgres can use when the tests run as root and it as somebody else. */
export async function scratchDir(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-test-'))
  await chmod(folder, 0o755)
  return folder
}

/** Spawns the command with a clean environment; for what does not serve, or must fail. */
export function spawnTollgate(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  entry: Entry = 'source',
): { child: ChildProcess; output: () => string } {
  const file = join(root, entry === 'bundle' ? 'dist/tollgate.js' : 'src/main.ts')
  if (!existsSync(file)) throw new Error(`${file} is missing: run "npm run build"`)
  const child = spawn(process.execPath, [file, ...args], {
    cwd: root,
    env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const forget = onExit(() => child.kill('SIGKILL'))
  child.once('exit', forget)
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text = (text + chunk).slice(-200_000)
    })
  }
  return { child, output: () => text }
}

/** The facts of a running demo. */
export async function demoFacts(tollgate: Tollgate): Promise<Record<string, string>> {
  const file = join(tollgate.dataDir, 'demo.json')
  return eventually(async () => {
    const facts: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof facts !== 'object' || facts === null) return undefined
    const record = Object.fromEntries(Object.entries(facts).map(([name, value]) => [name, String(value)]))
    return record.address === tollgate.address ? record : undefined
  })
}
