import type { DomainEvent } from './domain-event.ts'

/** Where domain events go. */
export interface OutboxSink {
  /** As in metrics, health and the contract: "webhook", "file", "kafka", "registry". */
  readonly name: string
  /** What it is told of first, when it is new: the next change, or the oldest that is kept. Default "next". */
  readonly beginsAt?: 'next' | 'oldest'
  /**
   * Delivers events and says of each what came of it, in their order. Of one subject they are delivered one after the other,
   * and after one that was not delivered none is. Rejects when nobody knows what arrived: all of them come again. Settles
   * within a bound of its own, and soon after the signal.
   */
  deliver(events: readonly DomainEvent[], signal: AbortSignal): Promise<readonly Delivery[]>
  /** Lets go of every connection. Never rejects. */
  close(): Promise<void>
}

/** What came of an event; held back: one of its subject before it failed. */
export type Delivery = 'delivered' | 'held_back' | DeliveryFailure

export interface DeliveryFailure {
  /** For people; no secret and no text of the other side. */
  readonly reason: string
  /** True when it will be refused however often it is sent. */
  readonly isFinal: boolean
  /** What the other side asked for; milliseconds. */
  readonly retryAfterMs: number | undefined
}
