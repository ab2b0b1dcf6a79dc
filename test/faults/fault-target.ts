import { execFile } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { CutProxy } from '../support/cut-proxy.ts'
import type { Fault } from './schedule.ts'

/** A process that can be ended and started again on the same data. */
export interface FaultyServer {
  /** 0 while it is down. */
  pid(): number
  kill9(): Promise<void>
  /** Ends it in order. */
  terminate(): Promise<void>
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

/**
 * Plays a fault and resolves when it is healed; an aborted signal heals it at once. Rejects when the server does not come
 * back.
 */
export async function playFault({ server, proxy }: FaultTarget, fault: Fault, signal: AbortSignal): Promise<void> {
  const wait = (): Promise<void> => delay(fault.forMs, undefined, { signal }).catch(() => {})
  switch (fault.action) {
    case 'kill':
      await server.kill9()
      await wait()
      return server.start()
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
    case 'stall':
      proxy.stall()
      await wait()
      return proxy.heal()
    case 'flush':
      if (server.flush === undefined) throw new Error(`${fault.target} holds nothing that could be deleted`)
      return server.flush()
  }
}

/** Stops a process and its children, which for Postgres are its connections; the parent first, so that it makes no more. */
async function stop(pid: number): Promise<number[]> {
  send(pid, 'SIGSTOP')
  const children = await childrenOf(pid)
  for (const child of children) send(child, 'SIGSTOP')
  return [...children, pid]
}

async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,ppid='])
  return stdout.split('\n').flatMap((line) => {
    const [child, parent] = line.trim().split(/\s+/).map(Number)
    return child !== undefined && parent === pid ? [child] : []
  })
}

/** A child may end while its parent is being stopped. */
function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
