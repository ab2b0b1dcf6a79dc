import { connect } from 'node:http2'
import { create, toBinary } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService, StreamRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { EventMessage } from '../consumption/event-message.ts'
import { as, clientOf, type Fixture, keys, startFixture } from './fixture.ts'
import { envelope } from './plain-formats.ts'
import { register } from './rpc.ts'

/** An implementation that answers the same messages in the way that `service_id` says. */
const ways = ['alone', 'in lists', 'as written messages', 'as lists of written messages'] as const

/** Small, one that is compressed for those who take it, and more together than is collected. */
const sizes = [0, 3, 127, 128, 20_000, 15_000, 100_000, 100_000, 7]

let fixture: Fixture
beforeAll(async () => {
  const service = register(ConsumptionService, {
    async *streamRequest({ serviceId, payload }) {
      const data = sizes.map((size, index) => Buffer.alloc(size + 2, `${index}`))
      const messages = serviceId.includes('written')
        ? data.map((bytes) => new EventMessage(bytes, 1, bytes.length - 1))
        : data.map((bytes) => ({ part: { case: 'eventData', value: bytes.subarray(1, -1) } }) as const)
      yield []
      if (!serviceId.includes('lists')) yield* messages
      else for (let at = 0; at < messages.length; at += payload.length) yield messages.slice(at, at + payload.length)
    },
  })
  fixture = await startFixture({ services: [service] })
})
afterAll(() => fixture.close())

/** All bytes of the answer, with the bytes that are compressed as they are when they are not. */
function bytesOf(serviceId: string, together: number, encodings = 'identity'): Promise<Buffer> {
  const session = connect(fixture.server.address)
  const stream = session.request({
    ':method': 'POST',
    ':path': '/marketplace.v1.ConsumptionService/StreamRequest',
    'content-type': 'application/grpc',
    'grpc-accept-encoding': encodings,
    ...as(keys.own).headers,
  })
  const asked = create(StreamRequestRequestSchema, { serviceId, payload: new Uint8Array(together) })
  stream.end(envelope(0, toBinary(StreamRequestRequestSchema, asked)))
  const chunks: Buffer[] = []
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.on('error', reject)
  stream.on('close', () => {
    session.close()
    resolve(Buffer.concat(chunks))
  })
  return promise
}

describe.each(['identity', 'gzip'])('messages to a caller who takes %s', (encodings) => {
  test('are the same bytes, whether they come alone or together', async () => {
    const alone = await bytesOf('alone', 1, encodings)
    for (const way of ways) {
      for (const together of [1, 2, 3, sizes.length]) {
        expect((await bytesOf(way, together, encodings)).equals(alone)).toBe(true)
      }
    }
  })
})

test.each(['grpc-web over HTTP/1.1', 'Connect JSON over HTTP/1.1'] as const)('lists arrive over %s', async (wire) => {
  const lengths: number[] = []
  const asked = { serviceId: 'as lists of written messages', payload: new Uint8Array(4) }
  for await (const { part } of clientOf(fixture, wire).streamRequest(asked, as(keys.own))) {
    if (part.case === 'eventData') lengths.push(part.value.length)
  }
  expect(lengths).toEqual(sizes)
})
