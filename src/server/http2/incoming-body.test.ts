import { Buffer } from 'node:buffer'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { errorCodes } from './error-codes.ts'
import { IncomingBody } from './incoming-body.ts'

/** What a peer would know: how much of what it sent was given back to it. */
function body(contentLength?: number) {
  const given = { ofConnection: 0, ofStream: 0 }
  const incoming = new IncomingBody(1, contentLength, {
    given: (_, bytes, ofStream) => {
      given.ofConnection += bytes
      given.ofStream += ofStream
    },
  })
  return { incoming, given }
}

const chunks = fc.array(fc.tuple(fc.uint8Array({ maxLength: 3000 }), fc.nat(20)), { maxLength: 30 })

test('is what was sent, as a whole, and all of it is given back', () => {
  fc.assert(
    fc.property(chunks, fc.boolean(), (sent, endsAlone) => {
      const { incoming, given } = body()
      let frames = 0
      for (const [at, [bytes, padding]] of sent.entries()) {
        frames += bytes.length + padding
        incoming.put(Buffer.from(bytes), bytes.length + padding, !endsAlone && at === sent.length - 1)
      }
      if (!incoming.isEnded) {
        expect(incoming.take()).toBeUndefined()
        expect(incoming.isOver).toBe(false)
        expect(incoming.end()).toBeUndefined()
      }
      expect(Buffer.compare(incoming.take() ?? Buffer.alloc(1), Buffer.concat(sent.map(([bytes]) => bytes)))).toBe(0)
      expect(incoming.isOver).toBe(true)
      expect(given.ofConnection).toBe(frames)
    }),
  )
})

test.each([true, false])('does not hold on to what came with it (a whole body: %s)', (isWhole) => {
  const { incoming } = body()
  const read = new ArrayBuffer(65_536)
  incoming.put(Buffer.from(read, 100, 2_000), 2_000, isWhole)
  const held = isWhole ? incoming.take() : incoming.shift()
  expect(held?.length).toBe(2_000)
  expect(held?.buffer).not.toBe(read)
  if (!isWhole) expect(held?.buffer.byteLength).toBe(2_000)
})

test('is what was sent, chunk by chunk, whoever is faster', async () => {
  await fc.assert(
    fc.asyncProperty(chunks, fc.nat(30), async (sent, before) => {
      const { incoming, given } = body()
      const read: Buffer[] = []
      const put = (parts: typeof sent) => {
        for (const [bytes, padding] of parts) incoming.put(Buffer.from(bytes), bytes.length + padding, false)
      }
      put(sent.slice(0, before))
      const reading = (async () => {
        for await (const chunk of incoming.readable) read.push(chunk)
      })()
      await new Promise((resolve) => setImmediate(resolve))
      put(sent.slice(before))
      incoming.end()
      await reading
      expect(Buffer.compare(Buffer.concat(read), Buffer.concat(sent.map(([bytes]) => bytes)))).toBe(0)
      expect(incoming.isOver).toBe(true)
      expect(given.ofConnection).toBe(sent.reduce((sum, [bytes, padding]) => sum + bytes.length + padding, 0))
    }),
    { numRuns: 30 },
  )
})

test('that nobody reads takes no more than its window, and one that is read gets room again', () => {
  const part = Buffer.alloc(16_384)
  const unread = body()
  let taken = 0
  while (unread.incoming.put(part, part.length, false) === undefined) taken += part.length
  expect(taken).toBe(1024 * 1024)
  expect(unread.given).toEqual({ ofConnection: 0, ofStream: 0 })

  const read = body()
  read.incoming.readable.resume()
  for (let at = 0; at < 1000; at++) {
    expect(read.incoming.put(part, part.length, false)).toBeUndefined()
    read.incoming.readable.read()
  }
  expect(read.given.ofStream).toBeGreaterThan(14 * 1024 * 1024)
  read.incoming.close()
})

test('that comes in single bytes is held in little more than these', () => {
  const { incoming } = body()
  const packet = Buffer.alloc(65_536)
  let held = 0
  for (let at = 0; at < 10_000; at++) incoming.put(packet.subarray(at, at + 1), 1, false)
  const buffers = new Set<ArrayBufferLike>()
  for (let chunk = incoming.shift(); chunk !== undefined && chunk !== null; chunk = incoming.shift()) {
    expect(chunk.buffer).not.toBe(packet.buffer)
    buffers.add(chunk.buffer)
    held += 1
  }
  expect(held).toBeLessThan(10)
  expect(buffers.size).toBe(held)
})

test('of another length than announced is refused', () => {
  const { protocolError, streamClosed } = errorCodes
  const part = Buffer.from('abc')
  expect(body(2).incoming.put(part, 3, false)).toBe(protocolError)
  expect(body(4).incoming.put(part, 3, true)).toBe(protocolError)
  expect(body(4).incoming.end()).toBe(protocolError)
  const { incoming } = body(3)
  expect(incoming.put(part, 3, true)).toBeUndefined()
  expect(incoming.put(part, 3, true)).toBe(streamClosed)
})

test('that is closed gives back what was not read, and all that follows', () => {
  const { incoming, given } = body()
  incoming.put(Buffer.alloc(500), 500, false)
  incoming.close()
  expect(given.ofConnection).toBe(500)
  incoming.put(Buffer.alloc(400), 410, false)
  expect(given.ofConnection).toBe(910)
  expect(incoming.readable.destroyed).toBe(true)
})
