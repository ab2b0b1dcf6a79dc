import type { UsageEvent } from '../metering/usage-event.ts'
import { PassingMap } from '../passing-map.ts'
import { unitsOf } from './limit-keys.ts'
import type { PeriodLimit, UsageLog, UsageLogEntry } from './limits.ts'
import { Nudge } from './nudge.ts'

export interface LocalUsageLogOptions {
  /** Unix milliseconds. */
  readonly clock: () => number
  /** Time after which an entry that its reader did not acknowledge is delivered again. */
  readonly reclaimIdleMs: number
  readonly sweep: () => Promise<number>
  /** Every record up to this number is acknowledged. */
  readonly acknowledgedThrough: (sequence: number) => Promise<void>
}

interface Waiting {
  /** Number of the record that holds it, and its place among the events of that record. */
  readonly sequence: number
  readonly index: number
  readonly event: UsageEvent
}

interface Held extends Waiting {
  readonly sinceMs: number
}

/** Room for what was read is given back when it is so much. */
const maxRead = 10_000

/** The reading end of the log of one process. Events that are durable and not acknowledged stand in memory. */
export class LocalUsageLog implements UsageLog {
  readonly #options: LocalUsageLogOptions
  readonly #news = new Nudge()
  /** From `#next` on; numbers ascend. */
  #waiting: Waiting[] = []
  #next = 0
  /** By position, in the order of delivery. */
  readonly #held = new PassingMap<string, Held>()
  #last: number
  #closed = false

  constructor(options: LocalUsageLogOptions, last: number) {
    this.#options = options
    this.#last = last
  }

  /** The events of a record became durable; numbers only grow. */
  add(sequence: number, events: readonly UsageEvent[]): void {
    for (let index = 0; index < events.length; index++) {
      const event = events[index]
      if (event !== undefined) this.#waiting.push({ sequence, index, event })
    }
    this.#last = sequence
    this.#news.ring()
  }

  get size(): number {
    return this.#waiting.length - this.#next + this.#held.size
  }

  /** The events of a limit's scope and month that are not acknowledged; of those with one id the first, as in the ledger. */
  waitingFor(limit: PeriodLimit): UsageEvent[] {
    const events = new Map<string, UsageEvent>()
    for (const { event } of [...this.#held.values(), ...this.#waiting.slice(this.#next)]) {
      if (unitsOf(limit, event) !== undefined && !events.has(event.id)) events.set(event.id, event)
    }
    return [...events.values()]
  }

  close(): void {
    this.#closed = true
    this.#news.ring()
  }

  async read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageLogEntry[]> {
    const deadline = performance.now() + waitMs
    while (!signal.aborted && !this.#closed) {
      const entries = this.#take(max)
      const left = deadline - performance.now()
      if (entries.length > 0 || left <= 0) return entries
      // Looks again in between for what other readers gave up on.
      await this.#news.wait(Math.min(left, this.#options.reclaimIdleMs), signal)
    }
    return []
  }

  async acknowledge(entries: readonly UsageLogEntry[]): Promise<void> {
    for (const { position } of entries) this.#held.delete(position)
    await this.#options.acknowledgedThrough(this.#through())
  }

  async backlog(): Promise<number> {
    return this.size
  }

  sweep(): Promise<number> {
    return this.#options.sweep()
  }

  #take(max: number): UsageLogEntry[] {
    const sinceMs = this.#options.clock()
    const taken: UsageLogEntry[] = []
    for (const [position, held] of this.#held) {
      if (taken.length >= max || sinceMs - held.sinceMs < this.#options.reclaimIdleMs) break
      taken.push({ position, event: held.event })
    }
    for (const { position } of taken) this.#holdAgain(position, sinceMs)
    while (taken.length < max) {
      const waiting = this.#waiting[this.#next]
      if (waiting === undefined) break
      this.#next += 1
      const { sequence, index, event } = waiting
      const position = `${sequence}.${index}`
      this.#held.set(position, { sequence, index, event, sinceMs })
      taken.push({ position, event })
    }
    if (this.#next === this.#waiting.length || this.#next >= maxRead) {
      this.#waiting = this.#waiting.slice(this.#next)
      this.#next = 0
    }
    return taken
  }

  /** Deleted first, so that it stands at the end again. */
  #holdAgain(position: string, sinceMs: number): void {
    const held = this.#held.get(position)
    this.#held.delete(position)
    if (held !== undefined) this.#held.set(position, { ...held, sinceMs })
  }

  /** The number before the oldest record with an event that is not acknowledged. */
  #through(): number {
    let oldest = this.#waiting[this.#next]?.sequence ?? this.#last + 1
    for (const { sequence } of this.#held.values()) oldest = Math.min(oldest, sequence)
    return oldest - 1
  }
}
