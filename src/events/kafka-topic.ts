import type { Producer, ProducerOptions } from '@platformatic/kafka'
import { within } from '../within.ts'

export interface KafkaTopicOptions {
  /** Each host:port. */
  readonly brokers: readonly string[]
  readonly topic: string
  readonly clientId: string
  /** Ceiling for one batch, retries of the client included; default 15 000. */
  readonly sendTimeoutMs?: number
}

/** Messages of one key share a partition and stay in order. */
export interface KafkaMessage {
  readonly key: string
  readonly value: string
  readonly headers: Readonly<Record<string, string>>
}

/** A topic to write to. One call at a time; each settles within a bound. */
export interface KafkaTopic {
  /** Resolves when all in-sync replicas have the messages; rejects when that is not certain. */
  send(messages: readonly KafkaMessage[]): Promise<void>
  /** Resolves when messages could be sent now, else rejects with a reason. */
  check(): Promise<void>
  /** Lets go of every connection. Never rejects. */
  close(): Promise<void>
}

type TopicProducer = Producer<string, string, string, string>

/** With {@link retryDelayMs} a broker has about 5 s to come back before a batch counts as failed. */
const retries = 6
const connectTimeoutMs = 2_000
const closeTimeoutMs = 1_000

/**
 * The producer is idempotent and waits for all in-sync replicas: what the client itself repeats is stored once. A batch that
 * failed for good comes again from a new producer, and then a message may be stored twice.
 *
 * Loads the client now, which takes a third of a second, and connects when it is first asked to.
 */
export async function createKafkaTopic(options: KafkaTopicOptions): Promise<KafkaTopic> {
  const kafka = await import('@platformatic/kafka')
  const { topic } = options
  const sendTimeoutMs = options.sendTimeoutMs ?? 15_000
  const producerOptions: ProducerOptions<string, string, string, string> = {
    clientId: options.clientId,
    bootstrapBrokers: [...options.brokers],
    idempotent: true,
    acks: kafka.ProduceAcks.ALL,
    autocreateTopics: true,
    connectTimeout: connectTimeoutMs,
    retries,
    retryDelay: (_client, _operation, attempt) => retryDelayMs(attempt),
    // The rule of Kafka's own clients, so that what others write under the same key goes to the same partition.
    partitioner: (_message, key) => kafka.compatibilityPartitioner(_message, key),
    serializers: kafka.stringSerializers,
  }
  let producer: TopicProducer | undefined

  async function attempt(work: (producer: TopicProducer) => Promise<unknown>): Promise<void> {
    producer ??= new kafka.Producer(producerOptions)
    try {
      await within(sendTimeoutMs, work(producer), () => new Error(`no answer within ${sendTimeoutMs} ms`))
    } catch (error) {
      // Nobody knows what the client still has under way: the next attempt starts anew.
      void disconnect()
      throw new Error(rootOf(error), { cause: error })
    }
  }

  async function disconnect(): Promise<void> {
    const leaving = producer
    producer = undefined
    // What was under way was told as failed, or nobody waits for it any more.
    if (leaving !== undefined) await within(closeTimeoutMs, leaving.close(true)).catch(() => {})
  }

  return {
    send: (messages) =>
      attempt((to) =>
        to.send({
          messages: messages.map(({ key, value, headers }) => ({ topic, key, value, headers: { ...headers } })),
        }),
      ),
    check: () => attempt((to) => to.metadata({ topics: [topic], autocreateTopics: true })),
    close: disconnect,
  }
}

function retryDelayMs(attempt: number): number {
  return Math.min(2_000, 100 * 2 ** (attempt - 1))
}

/** What the client's nested errors come down to, for example "connect ECONNREFUSED 127.0.0.1:9092". */
function rootOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof AggregateError && error.errors.length > 0) return rootOf(error.errors.at(-1))
  return error.cause === undefined ? error.message : rootOf(error.cause)
}
