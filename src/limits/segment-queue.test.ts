import fc from 'fast-check'
import { expect, it } from 'vitest'
import { frame, maxPayloadBytes, type Payload } from './segment-frames.ts'
import { SegmentQueue } from './segment-queue.ts'

const mostWritten = 1024 * 1024

/** Of one to four bytes a character, and half of one that has no bytes of its own. */
const characters = ['x', 'ü', '€', '😀', '\ud800']

/** Short, as nearly all are; some for a part of a write, and larger than one. */
const texts = fc
  .tuple(
    fc.constantFrom(...characters),
    fc.oneof({ weight: 3, arbitrary: fc.nat(200) }, { weight: 2, arbitrary: fc.nat(400_000) }),
  )
  .map(([character, count]) => `"${character.repeat(count)}"`)

const payloads: fc.Arbitrary<Payload> = fc.record(
  { text: texts, bytes: fc.nat(300_000).map((length) => new Uint8Array(length).fill(length)) },
  { requiredKeys: ['text'] },
)

it('has every record where it is written from, in order and once, however full it is', () => {
  const programs = fc.array(fc.oneof({ weight: 5, arbitrary: payloads }, fc.constant('write' as const)), {
    minLength: 1,
    maxLength: 25,
    size: 'max',
  })
  fc.assert(
    fc.property(programs, (program) => {
      const queue = new SegmentQueue<number>()
      const expected: Buffer[] = []
      const written: Buffer[] = []
      let pushed = 0
      for (const step of [...program, ...program.map(() => 'write' as const)]) {
        if (step === 'write') {
          const bytes = Buffer.from(queue.first() ?? [])
          const entries = queue.shift()
          const records = expected.slice(written.length, written.length + entries.length)
          expect(entries).toEqual(records.map((_, index) => written.length + index))
          expect(bytes.equals(Buffer.concat(records))).toBe(true)
          if (entries.length > 1) expect(bytes.length).toBeLessThanOrEqual(mostWritten)
          written.push(...records)
        } else {
          queue.push(step, pushed++)
          expected.push(frame(step))
        }
        const waiting = expected.slice(written.length)
        expect(queue.length).toBe(waiting.length)
        expect(queue.bytes).toBe(Buffer.concat(waiting).length)
      }
      expect(written).toHaveLength(expected.length)
      expect(queue.first()).toBeUndefined()
    }),
    { numRuns: 60 },
  )
})

it('has what comes together in one piece, until that is a mebibyte', () => {
  const queue = new SegmentQueue<number>()
  const text = 'x'.repeat(1_000)
  for (let number = 0; number < 1_000; number++) queue.push({ text }, number)
  expect(queue.shift()).toHaveLength(1_000)
  expect(queue.length).toBe(0)
})

it('gives all that it has back when they are not to be written, and is empty', () => {
  const queue = new SegmentQueue<number>()
  for (let number = 0; number < 5; number++) queue.push({ text: 'x'.repeat(400_000) }, number)
  expect(queue.clear()).toEqual([0, 1, 2, 3, 4])
  expect([queue.length, queue.bytes, queue.first()]).toEqual([0, 0, undefined])
  queue.push({ text: 'next' }, 5)
  expect(queue.first()).toEqual(frame({ text: 'next' }))
})

it('takes no record that is empty or too large, and goes on without it', () => {
  const queue = new SegmentQueue<number>()
  const tooLarge = { text: 'x', bytes: new Uint8Array(maxPayloadBytes) }
  for (const payload of [{ text: '' }, { text: '', bytes: new Uint8Array() }, tooLarge]) {
    expect(() => queue.push(payload, 0)).toThrow(/cannot be stored/)
    expect([queue.length, queue.bytes, queue.first()]).toEqual([0, 0, undefined])
  }
  queue.push({ text: 'next' }, 1)
  expect(queue.first()).toEqual(frame({ text: 'next' }))
  expect(queue.shift()).toEqual([1])
})
