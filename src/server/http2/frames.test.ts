import fc from 'fast-check'
import { expect, test } from 'vitest'
import { cutAt } from '../../providers/fixtures/stream-fixture.ts'
import { frame } from './fixture.ts'
import { FrameReader } from './frames.ts'

function readAll(chunks: readonly Buffer[]): unknown[] {
  const found: unknown[] = []
  const reader = new FrameReader({
    frame: (type, flags, id, bytes, from, to) => {
      found.push({ type, flags, id, payload: bytes.toString('latin1', from, to) })
    },
  })
  for (const chunk of chunks) reader.read(chunk)
  return found
}

test('frames are the same however they are cut', () => {
  const parts = fc.array(
    fc.record({
      type: fc.nat(255),
      flags: fc.nat(255),
      id: fc.nat(2 ** 31 - 1),
      payload: fc.uint8Array({ maxLength: 60 }),
    }),
    { maxLength: 8 },
  )
  fc.assert(
    fc.property(parts, fc.array(fc.nat(400), { maxLength: 40 }), (frames, places) => {
      const bytes = Buffer.concat(
        frames.map((each) => frame(each.type, each.flags, each.id, Buffer.from(each.payload))),
      )
      const cut = cutAt(
        bytes,
        places.filter((at) => at <= bytes.length),
      ).map((chunk) => Buffer.from(chunk))
      expect(readAll(cut)).toEqual(
        frames.map((each) => ({ ...each, payload: Buffer.from(each.payload).toString('latin1') })),
      )
    }),
  )
})

test('frames of any length are the same wherever a read ends near the end of one', () => {
  for (const length of [16_384, 16_383, 16_376, 16_375, 1]) {
    const bytes = Buffer.concat([frame(0, 0, 1, Buffer.alloc(length, 1)), frame(0, 0, 3, Buffer.alloc(length, 2))])
    const whole = readAll([bytes])
    expect(whole).toHaveLength(2)
    for (const end of [length + 9, bytes.length]) {
      for (let at = Math.max(0, end - 20); at <= Math.min(end + 20, bytes.length); at++) {
        expect(readAll([Buffer.from(bytes.subarray(0, at)), Buffer.from(bytes.subarray(at))])).toEqual(whole)
      }
    }
  }
})

test('the longest frame comes through byte by byte, and a longer one is refused as soon as it says so', () => {
  const bytes = frame(0, 0, 1, Buffer.alloc(16_384, 7))
  expect(readAll([...bytes].map((byte) => Buffer.from([byte])))).toHaveLength(1)
  expect(() => readAll([Buffer.from([0, 0x40, 0x01, 0, 0, 0, 0, 0, 1])])).toThrow('a frame has 16385 bytes')
})
