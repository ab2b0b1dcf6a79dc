import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { StreamRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { EventMessage } from './event-message.ts'

/** What the message writes of itself, between bytes that it must leave alone. */
function written(message: EventMessage): Buffer {
  const target = Buffer.alloc(message.binaryLength + 4, 0xee)
  message.writeBinary(target, 2)
  expect([...target.subarray(0, 2), ...target.subarray(-2)]).toEqual([0xee, 0xee, 0xee, 0xee])
  return target.subarray(2, -2)
}

/** The same as protobuf-es writes it. */
function encoded(value: Uint8Array): Buffer {
  return Buffer.from(
    toBinary(
      StreamRequestResponseSchema,
      create(StreamRequestResponseSchema, { part: { case: 'eventData', value: Uint8Array.from(value) } }),
    ),
  )
}

describe('a message of one event', () => {
  it('writes what its schema writes, of any part of any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(), fc.nat(), (bytes, one, other) => {
        const [start = 0, end = 0] = [one % (bytes.length + 1), other % (bytes.length + 1)].sort((a, b) => a - b)
        const message = new EventMessage(Buffer.from(bytes), start, end)
        expect(written(message).equals(encoded(bytes.subarray(start, end)))).toBe(true)
      }),
    )
  })

  test.each([0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])('writes a length of %d', (length) => {
    const bytes = Buffer.alloc(length + 2, 'x')
    const message = new EventMessage(bytes, 1, length + 1)
    expect(written(message).equals(encoded(bytes.subarray(1, -1)))).toBe(true)
  })

  it('is what its message can be made from', () => {
    const message = new EventMessage(Buffer.from('data: {"n":1}\n\n'), 6, 13)
    const made = create(StreamRequestResponseSchema, message)
    expect(made).toEqual(fromBinary(StreamRequestResponseSchema, written(message)))
    expect(made.part).toEqual({ case: 'eventData', value: Buffer.from('{"n":1}') })
  })
})
