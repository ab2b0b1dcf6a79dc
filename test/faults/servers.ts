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

/** A gateway that a supervisor starts again until it serves; its address changes with each start. */
export interface FaultyGateway extends FaultyServer {
  current(): Tollgate
  /** What each of its processes wrote. */
  outputs(): readonly string[]
}

const startTimeoutMs = 60_000
const restartPauseMs = 250

/** Starts it for the first time; an aborted signal gives up later starts that fail. */
export async function startGateway(options: TollgateOptions, signal: AbortSignal): Promise<FaultyGateway> {
  const ended: Tollgate[] = []
  let tollgate = await startTollgate(options)
  return {
    current: () => tollgate,
    outputs: () => [...ended, tollgate].map((process) => process.output()),
    pid: () => tollgate.pid,
    kill9: () => tollgate.kill9(),
    async terminate() {
      await tollgate.terminate()
    },
    async start() {
      ended.push(tollgate)
      for (const untilMs = Date.now() + startTimeoutMs; ; await delay(restartPauseMs)) {
        try {
          tollgate = await startTollgate(options)
          return
        } catch (error) {
          // What it needs may be away at the moment.
          if (Date.now() > untilMs || signal.aborted) throw error
        }
      }
    },
  }
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
