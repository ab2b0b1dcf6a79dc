/** Plays a schedule against running servers, paced by the calls that finish. */
import { describeFault, type Fault, type Schedule, type TargetName, targetsOf } from './schedule.ts'

export interface DisturbanceOptions {
  readonly schedule: Schedule
  /** Resolves when the fault is healed. */
  readonly play: (fault: Fault) => Promise<void>
  /** How far calls may run ahead of a fault that is due, and must be no less than the calls in flight. */
  readonly leadCalls: number
  /** Told when a fault begins, and when it was healed. */
  readonly onChange: (text: string) => void
  readonly signal: AbortSignal
}

export interface Disturbance {
  /** So many calls have finished. */
  progress(calls: number): void
  /** Resolves when the faults that are due before this call have begun, or the run is given up. */
  reached(index: number): Promise<void>
  /** True when every fault was played and healed. */
  isOver(): boolean
  /** Targets that are in a fault at the moment. */
  active(): ReadonlySet<TargetName>
  /** Faults that were played, by target and action. */
  readonly played: ReadonlyMap<string, number>
  /** Resolves when no fault is going on any more; rejects with the first that could not be healed. */
  settled(): Promise<void>
}

/** Targets; more would only mean that nobody serves anybody. */
const mostAtOnce = 2
/** So many calls finish between two faults, but for pairs: a schedule that is behind its calls must not starve them. */
const callsBetween = 8

export function createDisturbance({ schedule, play, leadCalls, onChange, signal }: DisturbanceOptions): Disturbance {
  const waiting = [...schedule]
  const active = new Map<TargetName, Promise<void>>()
  const played = new Map<string, number>()
  const held: { readonly index: number; readonly go: () => void }[] = []
  let finished = 0
  let last: { readonly fault: Fault; readonly begun: number } | undefined
  let failure: { readonly error: unknown } | undefined

  /** Begins what is due, in order; what must wait holds up what comes after it. */
  function begin(): void {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      const taken = targetsOf(next)
      const isTaken = active.size + taken.length > mostAtOnce || taken.some((target) => active.has(target))
      const mustWait = finished < dueAt(next) || isTaken
      if (mustWait || signal.aborted || failure !== undefined) break
      waiting.shift()
      last = { fault: next, begun: finished }
      const running = run(next)
      for (const target of taken) active.set(target, running)
    }
    for (const { index, go } of held.splice(0)) hold(index, go)
  }

  /** When so many calls have finished. */
  function dueAt({ atCall }: Fault): number {
    if (last === undefined || last.fault.atCall === atCall) return atCall
    return Math.max(atCall, last.begun + callsBetween)
  }

  async function run(fault: Fault): Promise<void> {
    const name = `${fault.action} ${fault.target}`
    played.set(name, (played.get(name) ?? 0) + 1)
    onChange(`call ${finished}: ${describeFault(fault)}`)
    try {
      await play(fault)
      onChange(`call ${finished}: ${fault.target} is back`)
    } catch (error) {
      failure ??= { error }
    }
    for (const target of targetsOf(fault)) active.delete(target)
    begin()
  }

  function hold(index: number, go: () => void): void {
    const due = waiting[0]
    const isFree = due === undefined || index < dueAt(due) + leadCalls || failure !== undefined || signal.aborted
    if (isFree) go()
    else held.push({ index, go })
  }

  signal.addEventListener('abort', begin, { once: true })
  return {
    progress(calls) {
      finished = calls
      begin()
    },
    reached: (index) => new Promise((go) => hold(index, go)),
    isOver: () => failure !== undefined || (waiting.length === 0 && active.size === 0),
    active: () => new Set(active.keys()),
    played,
    async settled() {
      while (active.size > 0) await Promise.all(active.values())
      if (failure !== undefined) throw failure.error
    },
  }
}
