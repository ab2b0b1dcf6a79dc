import type { UsageEvent } from '../metering/usage-event.ts'
import type { UsageLog, UsageLogEntry } from './limits.ts'
import { Nudge } from './nudge.ts'

export interface LocalUsageLogOptions {
  /** Unix milliseconds. */
  readonly clock: () => number
  /** Time after which an entry that its reader did not acknowledge is delivered again. */
  readonly reclaimIdleMs: number
  readonly sweep: () => Promise<number>
  /** Every event up to this number is acknowledged. */
  readonly acknowledgedThrough: (sequence: number) => Promise<void>
}

interface Held {
  readonly event: UsageEvent
  readonly sinceMs: number
}

/** The reading end of the log of one process. Events that are durable and not acknowledged stand in memory. */
export class LocalUsageLog implements UsageLog {
  readonly #options: LocalUsageLogOptions
  readonly #news = new Nudge()
  /** By number, ascending. */
  readonly #waiting = new Map<number, UsageEvent>()
  /** By number, in the order of delivery. */
  readonly #held = new Map<number, Held>()
  #last: number
  #closed = false

  constructor(options: LocalUsageLogOptions, last: number) {
    this.#options = options
    this.#last = last
  }

  /** An event became durable; numbers only grow. */
  add(sequence: number, event: UsageEvent): void {
    this.#waiting.set(sequence, event)
    this.#last = sequence
    this.#news.ring()
  }

  get size(): number {
    return this.#waiting.size + this.#held.size
  }

  /** True while the event with this number is not acknowledged. */
  has(sequence: number): boolean {
    return this.#waiting.has(sequence) || this.#held.has(sequence)
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
      const sequence = Number(position)
      this.#held.delete(sequence)
      this.#waiting.delete(sequence)
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
    const entries: UsageLogEntry[] = []
    for (const [sequence, { event, sinceMs }] of this.#held) {
      if (entries.length >= max || now - sinceMs < this.#options.reclaimIdleMs) break
      entries.push({ position: String(sequence), event })
    }
    for (const [sequence, event] of this.#waiting) {
      if (entries.length >= max) break
      this.#waiting.delete(sequence)
      entries.push({ position: String(sequence), event })
    }
    for (const { position, event } of entries) {
      const sequence = Number(position)
      // Deleted first, so that it stands at the end again.
      this.#held.delete(sequence)
      this.#held.set(sequence, { event, sinceMs: now })
    }
    return entries
  }

  /** The number before the oldest event that is not acknowledged. */
  #through(): number {
    let oldest = this.#last + 1
    for (const sequence of this.#held.keys()) oldest = Math.min(oldest, sequence)
    const [first] = this.#waiting.keys()
    return Math.min(oldest, first ?? oldest) - 1
  }
}
