import { Consumer, MessagesStreamModes, stringDeserializers } from '@platformatic/kafka'
import { newId } from '../../src/ids.ts'
import { eventually } from './eventually.ts'

/** A message as its consumer sees it. */
export interface TopicMessage {
  readonly key: string
  readonly value: string
  readonly headers: Readonly<Record<string, string>>
  readonly partition: number
}

/**
 * Reads a topic from its beginning until `enough` says so, and returns the messages, those of a partition in order.
 * Throws when they do not come.
 */
export async function readTopic(
  brokers: string,
  topic: string,
  enough: (messages: readonly TopicMessage[]) => boolean,
): Promise<readonly TopicMessage[]> {
  const consumer = new Consumer({
    clientId: 'test',
    groupId: `test-${newId()}`,
    bootstrapBrokers: brokers.split(','),
    deserializers: stringDeserializers,
    retryDelay: 100,
  })
  const messages: TopicMessage[] = []
  try {
    const stream = await consumer.consume({
      topics: [topic],
      mode: MessagesStreamModes.EARLIEST,
      autocommit: false,
      maxWaitTime: 200,
    })
    stream.on('data', ({ key, value, headers, partition }) => {
      messages.push({ key, value, headers: Object.fromEntries(headers), partition })
    })
    await eventually(() => enough(messages), { what: () => `messages of ${topic}, of which ${messages.length} came` })
    return messages
  } finally {
    await consumer.close(true)
  }
}
