import { encodeFields } from '../limits/event-codec.ts'
import type { UsageEvent } from './usage-event.ts'

/** Usage events on their way to the ledger. Which of the two a store has at hand, it gives as it is; the other it makes. */
export interface EventBatch {
  readonly size: number
  /** As objects. */
  events(): readonly UsageEvent[]
  /** JSON of a list of `EventFields`, in memory that is the caller's alone: it may be handed to another thread. */
  encoded(): Uint8Array<ArrayBuffer>
}

/** A batch of events that are objects. */
export function batchOf(events: readonly UsageEvent[]): EventBatch {
  return {
    size: events.length,
    events: () => events,
    encoded: () => new TextEncoder().encode(`[${events.map(encodeFields).join(',')}]`),
  }
}
