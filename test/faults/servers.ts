/** The processes of a run, each as something that can be broken and started again. */
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { connectRedis } from '../../src/storage/redis.ts'
import { eventually } from '../support/eventually.ts'
import type { PostgresServer } from '../support/postgres-server.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { spawnTollgate, startTollgate, type Tollgate, type TollgateOptions } from '../support/tollgate.ts'
import type { FaultyServer } from './fault-target.ts'
import { childrenOf, send } from './processes.ts'

const silent = pino({ level: 'silent' })

export function faultyRedis(redis: RedisServer): FaultyServer {
  return {
    pid: () => redis.pid,
    kill9: () => redis.kill9(),
    terminate: () => redis.terminate(),
    start: () => redis.restart(),
    async flush() {
      const client = await connectRedis({ url: redis.url, log: silent })
      await client.call('flushall')
      client.disconnect()
    },
  }
}

export function faultyPostgres(postgres: PostgresServer): FaultyServer {
  return {
    pid: () => postgres.pid,
    kill9: () => postgres.kill9(),
    terminate: () => postgres.shutDown(),
    start: () => postgres.restart(),
  }
}

/**
 * A gateway that a supervisor starts again until it serves, also when it ended by itself; its address changes with each
 * start.
 */
export interface FaultyGateway extends FaultyServer {
  current(): Tollgate
  /** Resolves with the exit code. */
  terminate(): Promise<number | null>
  /** With its workers, where it has some. */
  kill9(): Promise<void>
  /** What it wrote last, each time that it or a worker ended and nobody had asked for it. */
  crashes(): readonly string[]
  /** What each of its processes wrote. */
  outputs(): readonly string[]
}

/** Two runs at once on a busy machine start nothing for a minute. */
const startTimeoutMs = 120_000
const restartPauseMs = 250

const lastWords = 1_500

/** Starts it for the first time; an aborted signal gives up later starts that fail. */
export async function startGateway(options: TollgateOptions, signal: AbortSignal): Promise<FaultyGateway> {
  const ended: Tollgate[] = []
  const crashes: string[] = []
  let tollgate = await startTollgate(options)
  let isWanted = true
  let recovery: Promise<void> = Promise.resolve()
  supervise(tollgate)

  function supervise(process: Tollgate): void {
    process.ended.then(() => {
      if (!isWanted || process !== tollgate) return
      crashes.push(process.output().slice(-lastWords))
      recovery = start().catch((error) => {
        crashes.push(`it did not come back: ${error}`)
      })
    })
  }

  async function start(): Promise<void> {
    ended.push(tollgate)
    for (const untilMs = Date.now() + startTimeoutMs; ; await delay(restartPauseMs)) {
      try {
        tollgate = await startTollgate(options)
        isWanted = true
        return supervise(tollgate)
      } catch (error) {
        // What it needs may be away at the moment.
        if (Date.now() > untilMs || signal.aborted) throw error
      }
    }
  }

  async function givenUp(): Promise<Tollgate> {
    await recovery
    isWanted = false
    return tollgate
  }

  const outputs = (): string[] => [...new Set([...ended, tollgate])].map((process) => process.output())

  return {
    current: () => tollgate,
    crashes: () => [...crashes, ...outputs().flatMap(crashedWorkers)],
    outputs,
    pid: () => tollgate.pid,
    async kill9() {
      const { pid, kill9 } = await givenUp()
      const workers = await childrenOf(pid)
      await kill9()
      for (const worker of workers) send(worker, 'SIGKILL')
    },
    terminate: async () => (await givenUp()).terminate(),
    start,
  }
}

/** What a primary says of workers that ended without being killed. */
function crashedWorkers(output: string): string[] {
  return output.split('\n').filter((line) => line.includes('a worker died') && !line.includes('"how":"SIGKILL"'))
}

/** `tollgate backend` on a port that it keeps. */
export interface FaultyBackend extends FaultyServer {
  readonly port: number
}

export async function startBackend(logPath: string): Promise<FaultyBackend> {
  const launch = async (port: number) => {
    const spawned = spawnTollgate(['backend', '--port', String(port), '--log', logPath], {})
    const ended = once(spawned.child, 'exit')
    const found = await eventually(() => {
      if (spawned.child.exitCode !== null) throw new Error(`the backend ended:\n${spawned.output()}`)
      return /listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(spawned.output())?.[1]
    })
    return { child: spawned.child, ended, port: Number(found) }
  }
  let running = await launch(0)
  const { port } = running
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    running.child.kill(signal)
    await running.ended
  }
  return {
    port,
    pid: () => running.child.pid ?? 0,
    kill9: () => end('SIGKILL'),
    terminate: () => end('SIGTERM'),
    async start() {
      running = await launch(port)
    },
  }
}
