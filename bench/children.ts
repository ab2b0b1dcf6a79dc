import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

/** A child process that talks over a channel: one question, one answer. */
export interface Child {
  readonly pid: number
  /** What it said first. */
  readonly hello: unknown
  /** Sends a message and waits for the next one from it, at most `timeoutMs`. */
  ask(message: object, timeoutMs: number): Promise<unknown>
}

const running = new Set<ChildProcess>()
let stopping = false

/** True when processes can be pinned: taskset is there, and a second core. */
export const canPin = availableParallelism() > 1 && hasTaskset()

/** Starts `node script args` beside this file, pinned to one core if possible, and waits for its first message. */
export async function startChild(script: string, args: readonly string[], cpu: number): Promise<Child> {
  const path = fileURLToPath(new URL(script, import.meta.url))
  const child = spawnPinned([path, ...args], cpu, { ipc: true })
  const hello = await nextMessage(child, 10_000)
  return {
    pid: child.pid ?? 0,
    hello,
    ask: (message, timeoutMs) => {
      const answer = nextMessage(child, timeoutMs)
      // A child that has left is told apart by its 'exit', which rejects the answer.
      child.send(message, () => {})
      return answer
    },
  }
}

/** The address that a child told first, as `{ url }`. */
export function urlOf({ hello }: Child): string {
  if (typeof hello === 'object' && hello !== null && 'url' in hello && typeof hello.url === 'string') return hello.url
  throw new Error('a child process told no address')
}

/** Holds all threads of a process, and the processes that it starts from now on, to one core; if possible. */
export function pin(pid: number, cpu: number): void {
  if (canPin) execFileSync('taskset', ['-a', '-c', '-p', String(cpu), String(pid)], { stdio: 'ignore' })
}

/** Starts node with arguments, pinned to one core if possible; {@link stopChildren} ends it. */
export function spawnPinned(
  args: readonly string[],
  cpu: number,
  options: {
    readonly ipc?: boolean
    readonly env?: NodeJS.ProcessEnv
    readonly cwd?: string
    /** Where it writes to: a file's descriptor; without it, pipes. */
    readonly output?: number
  } = {},
): ChildProcess {
  if (stopping) throw new Error('the benchmark is being stopped')
  const command = canPin ? ['taskset', '-c', String(cpu), process.execPath, ...args] : [process.execPath, ...args]
  const [file = '', ...rest] = command
  const output = options.output ?? 'pipe'
  const child = spawn(file, rest, {
    stdio: options.ipc ? ['ignore', 'inherit', 'inherit', 'ipc'] : ['ignore', output, output],
    env: options.env ?? process.env,
    cwd: options.cwd,
  })
  running.add(child)
  child.on('error', (error) => console.error(error))
  child.once('exit', () => running.delete(child))
  return child
}

/** Ends every child: SIGTERM, and SIGKILL for what is left after `graceMs`. Returns when all have left; none can be started after. */
export async function stopChildren(graceMs = 10_000): Promise<void> {
  stopping = true
  await Promise.all([...running].map((child) => stopChild(child, graceMs)))
}

/** Ends one child, as {@link stopChildren} does with all. */
export async function stopChild(child: ChildProcess, graceMs = 10_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
  await gone
  clearTimeout(timer)
}

/** CPU time so far, in microseconds. */
export interface CpuTimes {
  readonly ownUs: number
  readonly descendantsUs: number
  /** How long the main thread could have run but had to wait for its core. */
  readonly waitedUs: number
}

/** CPU time of a process and, apart, of its descendants; undefined where there is no /proc. */
export function readCpu(pid: number): CpuTimes | undefined {
  try {
    const [own, ...descendants] = familyOf(pid)
    const descendantsUs = descendants.reduce((sum, { us }) => sum + us, 0)
    return own === undefined ? undefined : { ownUs: own.us, descendantsUs, waitedUs: readWait(pid) }
  } catch {
    return undefined
  }
}

/** Holds the processes that `pid` started, and those that they start from now on, to one core; if possible. */
export function pinDescendants(pid: number, cpu: number): void {
  if (!canPin) return
  const [, ...descendants] = familyOf(pid)
  for (const descendant of descendants) {
    try {
      pin(descendant.pid, cpu)
    } catch (error) {
      // One that ended meanwhile is on no core.
      if (readStat(descendant.pid) !== undefined) throw error
    }
  }
}

interface Member {
  readonly pid: number
  readonly parent: number
  /** CPU time so far, in microseconds. */
  readonly us: number
}

/** A process, if it is there, and then its descendants. */
function familyOf(pid: number): Member[] {
  const all = readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? (readStat(Number(name)) ?? []) : []))
  const family = all.filter((each) => each.pid === pid)
  // Breadth first: the list grows while it is walked.
  for (const member of family) family.push(...all.filter(({ parent }) => parent === member.pid))
  return family
}

/** Parent and CPU time of a process by proc(5): fields 4, 14 and 15, in ticks of 10 ms. */
function readStat(pid: number): Member | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { pid, parent: Number(fields[1]), us: (Number(fields[11]) + Number(fields[12])) * 10_000 }
  } catch {
    return undefined
  }
}

/** Second field of schedstat: nanoseconds on the run queue. 0 where the kernel keeps no such statistics. */
function readWait(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')[1]) / 1_000
  } catch {
    return 0
  }
}

function nextMessage(child: ChildProcess, timeoutMs: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => finish(() => reject(new Error('a child process does not answer'))), timeoutMs)
    const onMessage = (message: unknown): void => finish(() => resolve(message))
    const onExit = (code: number | null): void =>
      finish(() => reject(new Error(`a child process left with code ${code}`)))
    const finish = (settle: () => void): void => {
      clearTimeout(timer)
      child.off('message', onMessage)
      child.off('exit', onExit)
      settle()
    }
    child.once('message', onMessage)
    child.once('exit', onExit)
    if (child.exitCode !== null || child.signalCode !== null) onExit(child.exitCode)
  })
}

function hasTaskset(): boolean {
  try {
    execFileSync('taskset', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
