import type { Config } from '../config.ts'
import type { Sql, StorageLog } from '../storage/postgres.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { createFileSink } from './file-sink.ts'
import { createKafkaOutboxSink } from './kafka-sink.ts'
import { type Outbox, startOutbox } from './outbox.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { createRegistrySink } from './registry-sink.ts'
import { webhookKey } from './webhook-signature.ts'
import { createWebhookSink } from './webhook-sink.ts'

export interface OpenOutboxOptions {
  readonly sql: Sql
  readonly log: StorageLog
  readonly metrics: Pick<Metrics, 'domainEventsDelivered' | 'domainEventsFailed' | 'domainEventsDied'>
  /** Name of this process, different from those of all others. */
  readonly holder: string
}

/** The outbox with the sinks that the configuration names. */
export async function openOutbox(config: Config, options: OpenOutboxOptions): Promise<Outbox> {
  const { metrics, ...rest } = options
  const sinks = await configuredSinks(config)
  // All counters stand at 0 from the start, so that a first failure shows as an increase.
  for (const { name } of sinks) {
    metrics.domainEventsDelivered.of(name)
    metrics.domainEventsFailed.of(name)
    metrics.domainEventsDied.of(name)
  }
  const { giveUpMs, source } = config.events.outbox
  return startOutbox({
    ...rest,
    sinks,
    giveUpMs,
    source,
    observer: {
      delivered: (sink, events) => metrics.domainEventsDelivered.of(sink).inc(events),
      failed: (sink) => metrics.domainEventsFailed.of(sink).inc(),
      died: (sink) => metrics.domainEventsDied.of(sink).inc(),
    },
  })
}

async function configuredSinks({ events, registry }: Config): Promise<OutboxSink[]> {
  const { webhook, file, kafkaTopic } = events.outbox
  const { outside, gateUrl } = registry
  const sinks: OutboxSink[] = []
  const key = webhook && webhookKey(webhook.secret)
  if (webhook !== undefined && key !== undefined) sinks.push(createWebhookSink({ url: webhook.url, key }))
  if (file !== undefined) sinks.push(createFileSink(file))
  if (kafkaTopic !== undefined && events.kafka !== undefined) {
    sinks.push(await createKafkaOutboxSink({ ...events.kafka, topic: kafkaTopic }))
  }
  if (outside?.isTold === true) {
    const { url, apiKey } = outside
    sinks.push(createRegistrySink({ url, apiKey, gateUrl }))
  }
  return sinks
}
