import { connect } from 'node:http2'
import { create, toBinary } from '@bufbuild/protobuf'
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { StreamRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { as, clientOf, type Fixture, keys, startFixture, until } from './fixture.ts'
import { envelope } from './plain-formats.ts'
import { Outlet } from './streamed-answer.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  fixture.release()
  await fixture.close()
})

const left = (): Promise<void> => until(() => fixture.streams.open === 0 && fixture.server.activeCalls() === 0)

/** What an outlet wrote, on an exchange that only takes. */
function outlet(): { readonly writes: string[]; readonly into: Outlet } {
  const writes: string[] = []
  const into = new Outlet({
    isFull: false,
    write: (bytes) => void writes.push(Buffer.from(bytes).toString()),
    drained: async () => {},
  })
  return { writes, into }
}

describe('parts of an answer', () => {
  test('leave together when they are there together', async () => {
    const { writes, into } = outlet()
    for (const part of ['a', 'b', '', 'c']) {
      into.put(Buffer.from(part))
      await Promise.resolve()
    }
    expect(writes).toEqual([])
    await new Promise((resolve) => setImmediate(resolve))
    expect(writes).toEqual(['abc'])
  })

  test('leave at once when nothing follows, or when they are many', async () => {
    const { writes, into } = outlet()
    into.put(Buffer.from('a'))
    await new Promise((resolve) => process.nextTick(resolve))
    expect(writes).toEqual(['a'])
    into.put(Buffer.alloc(20_000, 'b'))
    expect(writes).toHaveLength(2)
  })

  test('that stand one behind the other leave as they stand, others as a copy', () => {
    const chunk = Buffer.from('0123456789')
    const { into } = outlet()
    into.putAll([chunk.subarray(2, 4), chunk.subarray(4, 4), chunk.subarray(4, 7)])
    const rest = into.rest()
    expect(Buffer.from(rest).toString()).toBe('23456')
    expect([rest.buffer, rest.byteOffset]).toEqual([chunk.buffer, chunk.byteOffset + 2])
    for (const places of [
      [2, 4, 5, 7],
      [4, 7, 2, 4],
      [2, 4, 2, 4],
    ] as const) {
      into.putAll([chunk.subarray(places[0], places[1]), chunk.subarray(places[2], places[3])])
      const expected = '0123456789'.slice(places[0], places[1]) + '0123456789'.slice(places[2], places[3])
      expect(Buffer.from(into.rest()).toString()).toBe(expected)
    }
    into.putAll([chunk.subarray(2, 4), Buffer.from('45')])
    expect(Buffer.from(into.rest()).toString()).toBe('2345')
    expect(into.rest()).toHaveLength(0)
  })

  test('that have not left yet leave with the end', async () => {
    const { writes, into } = outlet()
    into.put(Buffer.from('a'))
    into.put(Buffer.from('b'))
    expect(Buffer.from(into.rest()).toString()).toBe('ab')
    await new Promise((resolve) => setImmediate(resolve))
    expect(writes).toEqual([])
  })
})

test('a write that fails when nobody waits for it is told to whoever puts the next part, or ends', async () => {
  const into = new Outlet({
    isFull: false,
    write() {
      throw new Error('not a header')
    },
    drained: async () => {},
  })
  into.put(Buffer.from('a'))
  await new Promise((resolve) => setImmediate(resolve))
  expect(() => into.put(Buffer.from('b'))).toThrow('not a header')
  expect(() => into.rest()).toThrow('not a header')
})

test('all parts of a stream arrive, in order, before its end', async () => {
  const cases: string[] = []
  for await (const { part } of clientOf(fixture, 'grpc').streamRequest({ serviceId: 'many' }, as(keys.own))) {
    cases.push(part.case ?? 'none')
  }
  expect(cases).toEqual(['start', ...Array.from({ length: 500 }, () => 'eventData'), 'end'])
  await left()
})

test('a caller that does not read holds the implementation back, and its leaving ends it', async () => {
  fixture.streams.taken = 0
  const session = connect(fixture.server.address, { settings: { initialWindowSize: 65_535 } })
  const stream = session.request({
    ':method': 'POST',
    ':path': '/marketplace.v1.ConsumptionService/StreamRequest',
    'content-type': 'application/grpc',
    ...as(keys.own).headers,
  })
  stream.on('error', () => {})
  const message = create(StreamRequestRequestSchema, { serviceId: 'flood', payload: new Uint8Array(10_000) })
  stream.end(envelope(0, toBinary(StreamRequestRequestSchema, message)))
  await until(() => fixture.streams.taken > 0)
  // Whoever is not held back takes thousands while a caller asks something else a hundred times.
  const client = clientOf(fixture, 'grpc')
  for (let call = 0; call < 100; call++) await client.checkQuota({ serviceId: 's' }, as(keys.own))
  expect(fixture.streams.taken).toBeLessThan(100)
  session.destroy()
  await left()
  expect(fixture.ended.at(-1)).toEqual({ rpc: 'StreamRequest', reason: 'CANCELLED' })
})

test('a deadline ends a stream in its trailers, and what was there before it arrived', async () => {
  const cases: string[] = []
  const stream = clientOf(fixture, 'grpc').streamRequest(
    { serviceId: 'late:held' },
    { headers: { ...as(keys.own).headers, 'grpc-timeout': '80m' } },
  )
  const reading = (async () => {
    for await (const { part } of stream) cases.push(part.case ?? 'none')
  })()
  await expect(reading).rejects.toMatchObject({ code: Code.DeadlineExceeded })
  expect(cases).toEqual(['start'])
  fixture.release()
  await left()
})

test('a caller that cancels ends an implementation that waits', async () => {
  const leave = new AbortController()
  const stream = clientOf(fixture, 'grpc').streamRequest(
    { serviceId: 'late:held' },
    { ...as(keys.own), signal: leave.signal },
  )
  const reading = (async () => {
    for await (const _ of stream) leave.abort()
  })()
  await expect(reading).rejects.toMatchObject({ code: Code.Canceled })
  await until(() => fixture.calls.at(-1)?.ended?.reason === 'CANCELLED')
  fixture.release()
  await left()
})
