import type { UsageEvent } from '../metering/usage-event.ts'
import { PassingMap } from '../passing-map.ts'
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
 * trimmed beyond it; those of abandoned calls are kept longer, because without them a late settlement would not know that
 * there is something to correct. While the ledger is away events gather, up to {@link maxEvents}; what is let go beyond that is lost
 * if Redis loses its data before the ledger is back. Also
 * what this process told of thresholds.
 */
export class RedisKept {
  readonly told = new ToldThresholds()
  readonly #open = new PassingMap<string, OpenCall>()
  /** In the order of the stream. Not by their entries: another stream may number its own the same. */
  readonly #events = new Set<KeptEvent>()
  /** Of calls that were recorded as abandoned, when the ledger has it. */
  readonly #abandoned = new Map<string, { readonly kept: KeptEvent; readonly untilMs: number }>()
  readonly #abandonedTtlMs: number
  #newest = '0-0'

  /** How long a late settlement of an abandoned call is expected. */
  constructor(abandonedTtlMs: number) {
    this.#abandonedTtlMs = abandonedTtlMs
  }

  opened(admission: Admission): void {
    this.#open.set(admission.id, { admission, leaseEndsAt: performance.now() + admission.leaseMs })
  }

  isOpen(id: string): boolean {
    return this.#open.has(id)
  }

  /** True when the call was open: this process did not know before that it ended. */
  closed(id: string): boolean {
    this.#abandoned.delete(id)
    return this.#open.delete(id)
  }

  append(kept: KeptEvent): void {
    this.#events.add(kept)
    if (isAfter(kept.entry, this.#newest)) this.#newest = kept.entry
    if (this.#events.size <= maxEvents) return
    const [oldest] = this.#events
    if (oldest !== undefined) this.#events.delete(oldest)
  }

  /** Newest entry of the usage stream that this process appended. */
  get newest(): string {
    return this.#newest
  }

  /** Lets go of what the ledger has, and of calls that somebody recorded as abandoned long ago. */
  forget(oldest: string, newest: string): void {
    const now = performance.now()
    for (const kept of this.#events) {
      const isTrimmed = oldest === '' ? !isAfter(kept.entry, newest) : isAfter(oldest, kept.entry)
      if (!isTrimmed) break
      this.#events.delete(kept)
      if (kept.ended === 'a') this.#abandoned.set(kept.callId, { kept, untilMs: now + this.#abandonedTtlMs })
    }
    for (const [id, { untilMs }] of this.#abandoned) {
      if (untilMs > now && this.#abandoned.size <= maxEvents) break
      this.#abandoned.delete(id)
    }
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
    return [...[...this.#abandoned.values()].map(({ kept }) => kept), ...this.#events]
  }

  /** Redis is another one, and an event was appended there: its old entry means nothing any more. */
  moved(kept: KeptEvent, entry: string): void {
    this.#events.delete(kept)
    this.#abandoned.delete(kept.callId)
    this.append({ ...kept, entry })
  }

  /** All that is kept was appended to another Redis, whose clock may be another one, too. */
  renewed(): void {
    this.#newest = '0-0'
    for (const { entry } of this.#events) if (isAfter(entry, this.#newest)) this.#newest = entry
  }
}
