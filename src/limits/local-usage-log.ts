import type { UsageEvent } from '../metering/usage-event.ts'
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
  /** Number of the record that holds it. */
  readonly sequence: number
  readonly event: UsageEvent
}

interface Held extends Waiting {
  readonly sinceMs: number
}

/** The reading end of the log of one process. Events that are durable and not acknowledged stand in memory. */
export class LocalUsageLog implements UsageLog {
  readonly #options: LocalUsageLogOptions
  readonly #news = new Nudge()
  /** By position; numbers ascend. */
  readonly #waiting = new Map<string, Waiting>()
  /** By position, in the order of delivery. */
  readonly #held = new Map<string, Held>()
  #last: number
  #closed = false

  constructor(options: LocalUsageLogOptions, last: number) {
    this.#options = options
    this.#last = last
  }

  /** The events of a record became durable; numbers only grow. */
  add(sequence: number, events: readonly UsageEvent[]): void {
    events.forEach((event, index) => {
      this.#waiting.set(`${sequence}.${index}`, { sequence, event })
    })
    this.#last = sequence
    this.#news.ring()
  }

  get size(): number {
    return this.#waiting.size + this.#held.size
  }

  /** The events of a limit's scope and month that are not acknowledged; of those with one id the first, as in the ledger. */
  waitingFor(limit: PeriodLimit): UsageEvent[] {
    const events = new Map<string, UsageEvent>()
    for (const entries of [this.#held, this.#waiting]) {
      for (const { event } of entries.values()) {
        if (unitsOf(limit, event) !== undefined && !events.has(event.id)) events.set(event.id, event)
      }
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
    for (const { position } of entries) {
      this.#held.delete(position)
      this.#waiting.delete(position)
    }
    await this.#options.acknowledgedThrough(this.#through())
  }

  async backlog(): Promise<number> {
    return this.size
  }

  sweep(): Promise<number> {
    return this.#options.sweep()
  }

  #take(max: number): UsageLogEntry[] {
    const now = this.#options.clock()
    const taken: [position: string, entry: Waiting][] = []
    for (const [position, held] of this.#held) {
      if (taken.length >= max || now - held.sinceMs < this.#options.reclaimIdleMs) break
      taken.push([position, held])
    }
    for (const [position, waiting] of this.#waiting) {
      if (taken.length >= max) break
      this.#waiting.delete(position)
      taken.push([position, waiting])
    }
    return taken.map(([position, { sequence, event }]) => {
      // Deleted first, so that it stands at the end again.
      this.#held.delete(position)
      this.#held.set(position, { sequence, event, sinceMs: now })
      return { position, event }
    })
  }

  /** The number before the oldest record with an event that is not acknowledged. */
  #through(): number {
    let oldest = this.#last + 1
    for (const { sequence } of this.#held.values()) oldest = Math.min(oldest, sequence)
    const [first] = this.#waiting.values()
    return Math.min(oldest, first?.sequence ?? oldest) - 1
  }
}
