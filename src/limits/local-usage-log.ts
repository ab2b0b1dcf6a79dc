import type { UsageEvent } from '../metering/usage-event.ts'
import { decodeList } from './event-codec.ts'
import { unitsOf } from './limit-keys.ts'
import type { PeriodLimit, UsageBatch, UsageLog } from './limits.ts'
import { Nudge } from './nudge.ts'
import { WaitingEvents } from './waiting-events.ts'

export interface LocalUsageLogOptions {
  /** Unix milliseconds. */
  readonly clock: () => number
  /** Time after which a batch that its reader did not acknowledge is delivered again. */
  readonly reclaimIdleMs: number
  readonly sweep: () => Promise<number>
  /** Every record up to this number is acknowledged. */
  readonly acknowledgedThrough: (sequence: number) => Promise<void>
}

/** Events from one number up to another. */
interface Range {
  readonly from: number
  readonly to: number
}

interface Held extends Range {
  readonly sinceMs: number
}

/** The reading end of the log of one process. Events that are durable and not acknowledged stand in memory. */
export class LocalUsageLog implements UsageLog {
  readonly #options: LocalUsageLogOptions
  readonly #news = new Nudge()
  readonly #events = new WaitingEvents()
  /** Number of the first event that nobody read. */
  #next = 0
  /** What was read and is not acknowledged, in the order of delivery; no two have an event in common. */
  #held: Held[] = []
  #last: number
  #size = 0
  #closed = false

  constructor(options: LocalUsageLogOptions, last: number) {
    this.#options = options
    this.#last = last
  }

  /** The events of a record became durable, of which these are the texts; numbers only grow. */
  add(sequence: number, texts: readonly string[]): void {
    for (const text of texts) this.#events.add(sequence, text)
    this.#size += texts.length
    this.#last = sequence
    this.#news.ring()
  }

  get size(): number {
    return this.#size
  }

  /** The events of a limit's scope and month that are not acknowledged; of those with one id the first, as in the ledger. */
  waitingFor(limit: PeriodLimit): UsageEvent[] {
    const events = new Map<string, UsageEvent>()
    const subject = JSON.stringify(limit.scope.id)
    for (const { from, to } of [...this.#held, { from: this.#next, to: this.#events.end }]) {
      for (const event of this.#events.with(subject, from, to)) {
        if (unitsOf(limit, event) !== undefined && !events.has(event.id)) events.set(event.id, event)
      }
    }
    return [...events.values()]
  }

  close(): void {
    this.#closed = true
    this.#news.ring()
  }

  async read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageBatch> {
    const deadline = performance.now() + waitMs
    while (!signal.aborted && !this.#closed) {
      const range = this.#take(max)
      const left = deadline - performance.now()
      if (range.to > range.from || left <= 0) return this.#batch(range)
      // Looks again in between for what other readers gave up on.
      await this.#news.wait(Math.min(left, this.#options.reclaimIdleMs), signal)
    }
    return this.#batch({ from: 0, to: 0 })
  }

  async backlog(): Promise<number> {
    return this.size
  }

  sweep(): Promise<number> {
    return this.#options.sweep()
  }

  #batch(range: Range): UsageBatch {
    const { from, to } = range
    // What others acknowledged meanwhile may be gone: it is in the ledger.
    const encoded = () => this.#events.list(from, to)
    return {
      size: to - from,
      encoded,
      events: () => decodeList(encoded().toString()),
      acknowledge: () => this.#acknowledge(range),
    }
  }

  async #acknowledge(range: Range): Promise<void> {
    this.#held = this.#held.flatMap((held) => without(held, range))
    this.#size = this.#held.reduce((size, { from, to }) => size + to - from, this.#events.end - this.#next)
    const oldest = this.#held.reduce((number, { from }) => Math.min(number, from), this.#next)
    this.#events.forgetBefore(oldest)
    // The number before the oldest record with an event that is not acknowledged.
    await this.#options.acknowledgedThrough((this.#events.sequenceOf(oldest) ?? this.#last + 1) - 1)
  }

  /** What is to be delivered now, and held from now on. */
  #take(max: number): Range {
    const sinceMs = this.#options.clock()
    const [oldest, ...others] = this.#held
    if (oldest !== undefined && sinceMs - oldest.sinceMs >= this.#options.reclaimIdleMs) {
      const { from, to } = oldest
      const middle = Math.min(to, from + max)
      this.#held = [...without(oldest, { from, to: middle }), ...others, { from, to: middle, sinceMs }]
      return { from, to: middle }
    }
    const from = this.#next
    this.#next = Math.min(this.#events.end, from + max)
    if (this.#next > from) this.#held.push({ from, to: this.#next, sinceMs })
    return { from, to: this.#next }
  }
}

/** What is left of one range without another. */
function without(held: Held, { from, to }: Range): Held[] {
  const before = { ...held, to: Math.min(held.to, from) }
  const after = { ...held, from: Math.max(held.from, to) }
  return [before, after].filter((part) => part.to > part.from)
}
