import { setTimeout as delay } from 'node:timers/promises'
import type { CutProxy } from '../support/cut-proxy.ts'
import { childrenOf, send } from './processes.ts'
import type { Fault, TargetName } from './schedule.ts'

/** A process that can be ended and started again on the same data. */
export interface FaultyServer {
  /** 0 while it is down. */
  pid(): number
  kill9(): Promise<void>
  /** Ends it in order. */
  terminate(): Promise<unknown>
  /** Starts it again; tries on while what it needs is away. */
  start(): Promise<void>
  /** Deletes what it holds; only of what holds data. */
  flush?(): Promise<void>
}

/** A server and the proxy that everybody reaches it through. */
export interface FaultTarget {
  readonly server: FaultyServer
  readonly proxy: CutProxy
}

export type FaultTargets = Readonly<Partial<Record<TargetName, FaultTarget>>>

/** Time between two resets: long enough to connect again and to ask for something. */
const flapMs = 60
/** Long enough for a gateway to have a write to the ledger under way, whatever it did before. */
const untilWritingMs = 1_000

/**
 * Plays a fault and resolves when it is healed; an aborted signal heals it at once. Rejects when the server does not come
 * back.
 */
export async function playFault(all: FaultTargets, fault: Fault, signal: AbortSignal): Promise<void> {
  const { server, proxy } = targetOf(all, fault.target)
  const pause = (ms: number): Promise<void> => delay(ms, undefined, { signal }).catch(() => {})
  const wait = (): Promise<void> => pause(fault.forMs)
  switch (fault.action) {
    case 'kill':
      await server.kill9()
      await wait()
      return server.start()
    case 'kill-worker': {
      const [oldest] = await childrenOf(server.pid())
      if (oldest === undefined) throw new Error(`${fault.target} has no worker`)
      send(oldest, 'SIGKILL')
      return wait()
    }
    case 'restart':
      await server.terminate()
      await wait()
      return server.start()
    case 'freeze': {
      const stopped = await stop(server.pid())
      await wait()
      for (const pid of stopped) send(pid, 'SIGCONT')
      return
    }
    case 'cut':
      proxy.refuse()
      proxy.cut()
      await wait()
      return proxy.heal()
    case 'flap':
      for (const untilMs = Date.now() + fault.forMs; Date.now() < untilMs && !signal.aborted; await pause(flapMs)) {
        proxy.cut()
      }
      return
    case 'stall':
      proxy.stall()
      await wait()
      return proxy.heal()
    case 'kill-writing': {
      const postgres = targetOf(all, 'postgres').proxy
      postgres.stall()
      await pause(untilWritingMs)
      await server.kill9()
      postgres.cut()
      postgres.heal()
      await wait()
      return server.start()
    }
    case 'freeze-writing': {
      const postgres = targetOf(all, 'postgres').proxy
      postgres.stall()
      await pause(untilWritingMs)
      const stopped = await stop(server.pid())
      postgres.heal()
      await wait()
      for (const pid of stopped) send(pid, 'SIGCONT')
      return
    }
    case 'flush':
      if (server.flush === undefined) throw new Error(`${fault.target} holds nothing that could be deleted`)
      return server.flush()
  }
}

function targetOf(all: FaultTargets, name: TargetName): FaultTarget {
  const target = all[name]
  if (target === undefined) throw new Error(`there is no ${name}`)
  return target
}

/** Stops a process and its children, which for Postgres are its connections; the parent first, so that it makes no more. */
async function stop(pid: number): Promise<number[]> {
  send(pid, 'SIGSTOP')
  const children = await childrenOf(pid)
  for (const child of children) send(child, 'SIGSTOP')
  return [...children, pid]
}
