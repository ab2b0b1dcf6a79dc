import { type AnalyticsEvent, dataOf } from './event.ts'
import type { EventPublisher } from './event-publisher.ts'

/**
 * What stands in for Kafka where none is configured: one log line for each threshold, at once. The other events are not
 * logged, because a caller can cause any number of them, and they are counted in metrics already.
 */
export function createLogPublisher(log: { warn(fields: object, text: string): void }): EventPublisher {
  return {
    publish(event: AnalyticsEvent) {
      if (event.type === 'quota_threshold') log.warn(dataOf(event), 'a quota passed a threshold')
    },
    state: () => undefined,
    close: async () => {},
  }
}
