/**
 * What is broken, and when. A schedule is a pure function of its seed and the number of calls; its entries wait for a
 * number of finished calls instead of a time, so that a seed means the same on a fast machine and on a slow one.
 */
import { random, shuffled } from './random.ts'

export const targets = ['gateway-a', 'gateway-b', 'redis', 'postgres', 'backend'] as const
export type TargetName = (typeof targets)[number]

export type Action =
  /** SIGKILL, and a new start after the fault's time. */
  | 'kill'
  /** SIGKILL of the oldest worker of a gateway that has several; its primary starts another one. */
  | 'kill-worker'
  /** SIGSTOP, and SIGCONT after the fault's time. */
  | 'freeze'
  /** SIGTERM, and a new start when it has ended and the fault's time is over. */
  | 'restart'
  /** Resets every connection to it, and refuses new ones for the fault's time. */
  | 'cut'
  /** Resets every connection to it, again and again: what was asked may have been done, and the answer is lost. */
  | 'flap'
  /** Passes nothing on for the fault's time. */
  | 'stall'
  /** SIGKILL of a gateway in the middle of a write to the ledger, which does not arrive. */
  | 'kill-writing'
  /** SIGSTOP of a gateway in the middle of a write to the ledger, which arrives: another one takes over and repeats it. */
  | 'freeze-writing'
  /** Deletes everything that Redis holds. */
  | 'flush'

export interface Fault {
  /** Begins when so many calls have finished. */
  readonly atCall: number
  readonly target: TargetName
  readonly action: Action
  readonly forMs: number
}

/** By `atCall`. */
export type Schedule = readonly Fault[]

const fewest = 30
const most = 500
const callsPerFault = 250
/** Every so often two faults begin at the same call. */
const pairEvery = 5
/** Longer than the 5 s after which another gateway takes over what a reader of the usage log holds. */
const outlastsReaderMs = 7_000
const callsPerBrokenWrite = 10_000
const callsPerWorkerKill = 250

/**
 * Plays every action on every target before any is repeated, in an order that the seed decides, between the first 2 % and
 * the last 5 % of the calls. Faults are mostly short; some outlast every timeout of the gate but the leases. Besides,
 * {@link brokenWrites}.
 */
export function planSchedule(seed: number, calls: number): Schedule {
  const next = random(seed)
  const actions = ['kill', 'freeze', 'restart', 'cut', 'flap', 'stall'] as const
  const deck = targets.flatMap((target) => actions.map((action) => ({ target, action })))
  const count = Math.min(most, Math.max(fewest, Math.round(calls / callsPerFault)))
  const cards = Array.from({ length: Math.ceil(count / deck.length) }, () => shuffled(deck, next)).flat()
  const [first, last] = [calls * 0.02, calls * 0.95]
  let atCall = 0
  const faults = cards.slice(0, count).map(({ target, action }, index): Fault => {
    const place = first + ((last - first) * (index + next() * 0.8)) / count
    if (index % pairEvery !== pairEvery - 1) atCall = Math.floor(place)
    return { atCall, target, action, forMs: 100 + Math.floor(next() ** 3 * 2_200) }
  })
  return [...faults, ...brokenWrites(calls, next)].sort((a, b) => a.atCall - b.atCall)
}

/**
 * Breaks what is rarely hit by chance, because a write takes a few milliseconds: whoever acknowledges before it is written
 * loses it in the one, and only deduplication makes the other a no-op.
 */
function brokenWrites(calls: number, next: () => number): Fault[] {
  const count = Math.max(1, Math.round(calls / callsPerBrokenWrite))
  const gateway = (): TargetName => (next() < 0.5 ? 'gateway-a' : 'gateway-b')
  return Array.from({ length: count }, (_, index): Fault[] => {
    const at = (part: number): number => Math.floor((calls * (index + part)) / count)
    return [
      { atCall: at(0.25), target: gateway(), action: 'kill-writing', forMs: 100 },
      { atCall: at(0.5), target: gateway(), action: 'freeze-writing', forMs: outlastsReaderMs },
    ]
  }).flat()
}

/** Kills a worker of each gateway in turn, between the same calls as {@link planSchedule}. */
export function withWorkerKills(schedule: Schedule, calls: number): Schedule {
  const count = Math.ceil(calls / callsPerWorkerKill)
  const kills = Array.from({ length: count }, (_, index): Fault => {
    const target = index % 2 === 0 ? 'gateway-a' : 'gateway-b'
    return { atCall: Math.floor(calls * (0.02 + (0.93 * index) / count)), target, action: 'kill-worker', forMs: 100 }
  })
  return [...schedule, ...kills].sort((a, b) => a.atCall - b.atCall)
}

/** What a fault takes hold of. */
export function targetsOf({ target, action }: Fault): readonly TargetName[] {
  return action === 'kill-writing' || action === 'freeze-writing' ? [target, 'postgres'] : [target]
}

/** One line a fault. */
export function describeSchedule(schedule: Schedule): string[] {
  return schedule.map((fault) => `  at call ${fault.atCall}: ${describeFault(fault)}`)
}

export function describeFault({ target, action, forMs }: Fault): string {
  return action === 'flush' ? `${action} ${target}` : `${action} ${target} for ${forMs} ms`
}
