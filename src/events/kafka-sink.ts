import { orderingKey, type TakenEvent, toCloudEvent } from './event.ts'
import type { EventSink } from './event-sink.ts'
import { createKafkaTopic, type KafkaTopicOptions } from './kafka-topic.ts'

export interface KafkaSinkOptions extends KafkaTopicOptions {
  /** `source` of the CloudEvents, a URI reference. */
  readonly source: string
}

/**
 * Sends events to a topic as CloudEvents in structured mode: one JSON document is the whole event, so it stays one when
 * it is copied to a topic, file or table without headers, and any JSON reader reads it.
 *
 * The key is the organization, so its events share a partition and stay in order. An event that is stored twice has one id.
 */
export async function createKafkaSink(options: KafkaSinkOptions): Promise<EventSink<TakenEvent>> {
  const { source } = options
  const topic = await createKafkaTopic(options)
  return {
    send: (events) =>
      topic.send(
        events.map((taken) => ({
          key: orderingKey(taken.event),
          value: JSON.stringify(toCloudEvent(taken, source)),
          headers: { 'content-type': 'application/cloudevents+json; charset=UTF-8' },
        })),
      ),
    check: topic.check,
    close: topic.close,
  }
}
