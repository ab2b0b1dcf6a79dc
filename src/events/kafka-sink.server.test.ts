import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type KafkaServer, startKafkaServer } from '../../test/support/kafka-server.ts'
import { readTopic } from '../../test/support/kafka-topic.ts'
import { toolTimeoutMs } from '../../test/support/tools.ts'
import { newId } from '../ids.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import type { QuotaThreshold } from './event.ts'
import { createEventPublisher, type EventPublisher } from './event-publisher.ts'
import { createKafkaSink } from './kafka-sink.ts'

let kafka: KafkaServer

beforeAll(async () => {
  kafka = await startKafkaServer()
}, toolTimeoutMs)
afterAll(() => kafka?.stop())

interface Running {
  readonly publisher: EventPublisher
  /** The samples of a metric, by type of event. */
  count(metric: 'published' | 'dropped'): Promise<number>
}

async function start(topic: string): Promise<Running> {
  const sink = await createKafkaSink({ brokers: [kafka.brokers], topic, clientId: 'test', source: '/test' })
  const metrics = createMetrics({ processMetrics: false })
  const log = { info: () => {}, warn: () => {} }
  const publisher = createEventPublisher({ sink, newId, clock: Date.now, metrics, log, lingerMs: 50 })
  return {
    publisher,
    async count(metric) {
      const sample = new RegExp(`tollgate_events_${metric}_total\\{type="quota_threshold"\\} (\\d+)`)
      return Number(sample.exec(await metrics.render())?.[1])
    },
  }
}

/** The nth event of an organization; `used` says which it is. */
function nth(organizationId: string, used: number): QuotaThreshold {
  return {
    type: 'quota_threshold',
    organizationId,
    consumerId: newId(),
    keyId: '',
    serviceId: newId(),
    requestId: newId(),
    subject: `organization:${organizationId}`,
    limit: 'tokens_per_month',
    unit: 'tokens',
    capacity: 100,
    used,
    threshold: 80,
    periodEndMs: Date.UTC(2026, 11, 1),
  }
}

interface Read {
  readonly id: string
  readonly used: number
}

function parse(value: string): Read {
  const { id, data }: { id: string; data: { used: number } } = JSON.parse(value)
  return { id, used: data.used }
}

/** Without the repetitions, which have the id of an earlier one. */
function firstOf(read: readonly Read[]): Read[] {
  return [...new Map(read.map((one) => [one.id, one])).values()]
}

test('events arrive with all that they say, those of an organization in order and in one partition', async () => {
  const topic = `order-${newId()}`
  const { publisher, count } = await start(topic)
  const organizations = Array.from({ length: 6 }, newId)
  const published = Array.from({ length: 1_200 }, (_, i) => nth(organizations[i % 6] ?? '', i))
  for (const event of published) publisher.publish(event)
  await eventually(async () => (await count('published')) === published.length)
  await publisher.close()

  const messages = await readTopic(kafka.brokers, topic, (read) => read.length >= published.length)
  expect(messages).toHaveLength(published.length)
  for (const organization of organizations) {
    const own = messages.filter(({ key }) => key === organization)
    expect(new Set(own.map(({ partition }) => partition)).size).toBe(1)
    const used = published.flatMap((event) => (event.organizationId === organization ? [event.used] : []))
    expect(own.map(({ value }) => parse(value).used)).toEqual(used)
  }
  const [first] = published
  const message = messages.find(({ value }) => parse(value).used === 0)
  expect(message?.headers).toEqual({ 'content-type': 'application/cloudevents+json; charset=UTF-8' })
  expect(JSON.parse(message?.value ?? '')).toEqual({
    specversion: '1.0',
    id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/),
    source: '/test',
    type: 'marketplace.consumption.quota_threshold',
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    subject: first?.subject,
    partitionkey: first?.organizationId,
    datacontenttype: 'application/json',
    data: {
      organizationId: first?.organizationId,
      consumerId: first?.consumerId,
      keyId: '',
      serviceId: first?.serviceId,
      requestId: first?.requestId,
      subject: first?.subject,
      limit: 'tokens_per_month',
      unit: 'tokens',
      capacity: 100,
      used: 0,
      threshold: 80,
      periodEnd: '2026-12-01T00:00:00.000Z',
    },
  })
})

test('a broker that is killed under load loses nothing that was buffered, and what overflowed is counted', async () => {
  const topic = `kill-${newId()}`
  const { publisher, count } = await start(topic)
  const organization = newId()
  let next = 0
  const publish = (n: number): void => {
    for (const end = next + n; next < end; next += 1) publisher.publish(nth(organization, next))
  }
  publish(500)
  await eventually(async () => (await count('published')) >= 100)
  // In the middle of a batch, more often than not.
  publish(1_000)
  await kafka.kill9()
  publish(500)
  await eventually(() => publisher.state()?.failing)
  publish(12_000)
  expect(publisher.state()?.buffered).toBe(10_000)
  expect(publisher.state()?.failing).toMatch(/ECONNREFUSED|closed|Connection/)
  const dropped = await count('dropped')
  expect(dropped + (await count('published'))).toBe(next - 10_000)

  await kafka.restart()
  await eventually(() => publisher.state()?.buffered === 0)
  publish(10)
  await eventually(async () => (await count('published')) + dropped === next)
  expect(publisher.state()).toEqual({ buffered: 0, failing: undefined })
  await publisher.close()

  const arrived = (read: readonly { value: string }[]): Read[] => firstOf(read.map(({ value }) => parse(value)))
  const messages = await readTopic(kafka.brokers, topic, (read) => arrived(read).length >= next - dropped)
  const kept = arrived(messages).map(({ used }) => used)
  // The newest of those published while the broker was away were dropped; everything else is there, in order.
  const overflow = next - 10 - dropped
  expect(kept).toEqual([
    ...Array.from({ length: overflow }, (_, i) => i),
    ...Array.from({ length: 10 }, (_, i) => next - 10 + i),
  ])
})

// Last, since it leaves no broker.
test('closing without a broker ends, and counts what is left as dropped', async () => {
  const { publisher, count } = await start(`closed-${newId()}`)
  await kafka.kill9()
  for (let i = 0; i < 5; i += 1) publisher.publish(nth(newId(), i))
  await publisher.close()
  expect(publisher.state()?.buffered).toBe(0)
  expect(await count('dropped')).toBe(5)
})
