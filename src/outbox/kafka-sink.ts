import { createKafkaTopic, type KafkaTopicOptions } from '../events/kafka-topic.ts'
import { cloudEventContentType } from './domain-event.ts'
import type { OutboxSink } from './outbox-sink.ts'

/**
 * Sends events to a topic as CloudEvents in structured mode. The key is the subject, so the events of a resource share a
 * partition and stay in order.
 */
export async function createKafkaOutboxSink(options: KafkaTopicOptions): Promise<OutboxSink> {
  const topic = await createKafkaTopic(options)
  return {
    name: 'kafka',
    async deliver(events) {
      const headers = { 'content-type': cloudEventContentType }
      await topic.send(events.map((event) => ({ key: event.subject, value: JSON.stringify(event), headers })))
      return events.map(() => 'delivered')
    },
    close: topic.close,
  }
}
