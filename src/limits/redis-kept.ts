import type { UsageEvent } from '../metering/usage-event.ts'
import type { Admission } from './limits.ts'
import { isAfter } from './redis-stream.ts'
import { ToldThresholds } from './told-thresholds.ts'

/** An event that this process saw appended to the usage stream. */
export interface KeptEvent {
  /** Id of its entry. */
  readonly entry: string
  readonly event: UsageEvent
  /** How the call ended by it: settled, abandoned, or it ended no call. */
  readonly ended: 's' | 'a' | ''
  /** Id of that call. */
  readonly callId: string
}

interface OpenCall {
  readonly admission: Admission
  /** By `performance.now()`. */
  readonly leaseEndsAt: number
}

/** Beyond this many the oldest are let go. About 1 KB each. */
const maxEvents = 100_000

/** Also after its lease a call may be on the way to its settlement, or to be swept. */
const openMarginMs = 60_000

/**
 * What this process could give back to a Redis that lost its data: the calls that it admitted and that are not settled,
 * and the events that it appended and that the ledger may not have yet. The ledger has an event when the usage stream was
 * trimmed beyond it. While the ledger is away events gather, up to {@link maxEvents}; what is let go beyond that is lost
 * if Redis loses its data before the ledger is back. Also
 * what this process told of thresholds.
 */
export class RedisKept {
  readonly told = new ToldThresholds()
  readonly #open = new Map<string, OpenCall>()
  /** In the order of the stream. */
  readonly #events = new Map<string, KeptEvent>()
  #newest = '0-0'

  opened(admission: Admission): void {
    this.#open.set(admission.id, { admission, leaseEndsAt: performance.now() + admission.leaseMs })
  }

  /** True when the call was open: this process did not know before that it ended. */
  closed(id: string): boolean {
    return this.#open.delete(id)
  }

  append(kept: KeptEvent): void {
    this.#events.set(kept.entry, kept)
    if (isAfter(kept.entry, this.#newest)) this.#newest = kept.entry
    if (this.#events.size <= maxEvents) return
    const [oldest = ''] = this.#events.keys()
    this.#events.delete(oldest)
  }

  /** Newest entry of the usage stream that this process appended. */
  get newest(): string {
    return this.#newest
  }

  /** Lets go of what the ledger has, and of calls that somebody recorded as abandoned long ago. */
  forget(oldest: string, newest: string): void {
    for (const entry of this.#events.keys()) {
      const isTrimmed = oldest === '' ? !isAfter(entry, newest) : isAfter(oldest, entry)
      if (!isTrimmed) break
      this.#events.delete(entry)
    }
    const now = performance.now()
    for (const [id, { leaseEndsAt }] of this.#open) if (leaseEndsAt + openMarginMs < now) this.#open.delete(id)
  }

  /** Open calls, with what is left of their leases in milliseconds, at least 1. */
  open(): { admission: Admission; leaseMs: number }[] {
    const now = performance.now()
    return [...this.#open.values()].map(({ admission, leaseEndsAt }) => ({
      admission,
      leaseMs: Math.max(1, Math.round(leaseEndsAt - now)),
    }))
  }

  events(): KeptEvent[] {
    return [...this.#events.values()]
  }

  /** Redis is another one, and an event was appended there: its old entry means nothing any more. */
  moved(kept: KeptEvent, entry: string): void {
    this.#events.delete(kept.entry)
    this.append({ ...kept, entry })
  }

  /** All that is kept was appended to another Redis, whose clock may be another one, too. */
  renewed(): void {
    this.#newest = '0-0'
    for (const entry of this.#events.keys()) if (isAfter(entry, this.#newest)) this.#newest = entry
  }
}
