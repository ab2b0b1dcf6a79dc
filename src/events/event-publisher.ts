import { type AnalyticsEvent, type EventType, eventTypes, type TakenEvent } from './event.ts'
import { createEventBuffer, type EventBufferOptions, type EventBufferState } from './event-buffer.ts'
import type { EventSink } from './event-sink.ts'

/** Where the rest of Tollgate hands its events. */
export interface EventPublisher {
  /** Takes an event, best effort: it never waits, never throws, and what it costs does not depend on where events go. */
  publish(event: AnalyticsEvent): void
  /** For health and metrics; undefined when events go to no place that could be away. */
  state(): EventBufferState | undefined
  /** Sends what waits, within a bound, and lets go of the connection. Never rejects. */
  close(): Promise<void>
}

interface Counter {
  inc(): void
}

export interface EventPublisherOptions
  extends Omit<EventBufferOptions<TakenEvent>, 'sink' | 'onSent' | 'onDropped' | 'onChange'> {
  readonly sink: EventSink<TakenEvent>
  /** UUIDv7. */
  readonly newId: () => string
  /** Unix milliseconds; `now` is the buffer's own, which never goes back. */
  readonly clock: () => number
  readonly metrics: {
    /** Events that the sink took. */
    readonly eventsPublished: { of(type: EventType): Counter }
    /** Events that were given up. */
    readonly eventsDropped: { of(type: EventType): Counter }
  }
  readonly log: {
    info(fields: object, text: string): void
    warn(fields: object, text: string): void
  }
}

/** A publisher that gives each event its id and time and sends it through a buffer. */
export function createEventPublisher(options: EventPublisherOptions): EventPublisher {
  const { sink, newId, clock, metrics, log } = options
  let dropped = 0
  // All counters stand at 0 from the start, so that a first drop shows as an increase.
  for (const type of eventTypes) {
    metrics.eventsPublished.of(type)
    metrics.eventsDropped.of(type)
  }
  const buffer = createEventBuffer<TakenEvent>({
    ...options,
    onSent: ({ event }) => metrics.eventsPublished.of(event.type).inc(),
    onDropped: ({ event }) => {
      metrics.eventsDropped.of(event.type).inc()
      if (dropped === 0) log.warn({ type: event.type }, 'events are dropped')
      dropped += 1
    },
    onChange: (failing) => {
      if (failing !== undefined) log.warn({ failing }, 'events cannot be sent and wait')
      else log.info({ dropped }, 'events are sent again')
      if (failing === undefined) dropped = 0
    },
  })
  return {
    publish: (event) => buffer.publish({ id: newId(), timeMs: clock(), event }),
    state: buffer.state,
    async close() {
      await buffer.close()
      await sink.close()
    },
  }
}
