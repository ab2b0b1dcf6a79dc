import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import pino from 'pino'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { frame, unframe } from './segment-frames.ts'
import { SegmentLog } from './segment-log.ts'

const log = pino({ level: 'silent' })
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-segments-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function append(segments: SegmentLog, payload: string, durable = true): Promise<number> {
  let found = 0
  await segments.append(payload, durable, (sequence) => {
    found = sequence
  })
  return found
}

it('reads back what was appended, numbered without gaps over segments', async () => {
  const first = await SegmentLog.open({ folder, log, atLeast: 1, segmentBytes: 100 })
  const payloads = Array.from({ length: 30 }, (_, index) => `record ${index}`)
  for (const payload of payloads) await append(first.segments, payload, payload.endsWith('0'))
  await first.segments.close()
  expect((await readdir(folder)).length).toBeGreaterThan(3)
  const second = await SegmentLog.open({ folder, log, atLeast: 1 })
  expect(second.records).toEqual(payloads.map((payload, index) => ({ sequence: index + 1, payload })))
  expect(await append(second.segments, 'next')).toBe(31)
  await second.segments.close()
})

it('never uses a number again that its owner has seen', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 100 })
  expect(await append(segments, 'a')).toBe(100)
  await segments.close()
  const later = await SegmentLog.open({ folder, log, atLeast: 500 })
  expect(await append(later.segments, 'b')).toBe(500)
  await later.segments.close()
  const { records, segments: last } = await SegmentLog.open({ folder, log, atLeast: 1 })
  expect(records).toEqual([
    { sequence: 100, payload: 'a' },
    { sequence: 500, payload: 'b' },
  ])
  await last.close()
})

it('opens at every byte at which the last record can be torn, and goes on from there', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await append(segments, 'kept')
  await append(segments, 'torn in the middle')
  await segments.close()
  const [name = ''] = await readdir(folder)
  const bytes = await readFile(join(folder, name))
  for (let size = frame('kept').length; size < bytes.length; size++) {
    await writeFile(join(folder, name), bytes.subarray(0, size))
    const torn = await SegmentLog.open({ folder, log, atLeast: 1 })
    expect(torn.records.map((record) => record.payload)).toEqual(['kept'])
    await append(torn.segments, 'new', false)
    await torn.segments.close()
    const next = await SegmentLog.open({ folder, log, atLeast: 1 })
    expect(next.records.map((record) => record.payload)).toEqual(['kept', 'new'])
    await next.segments.close()
  }
})

it('fails an append after it is closed, or of a record that is too large', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await expect(append(segments, 'x'.repeat(5_000_000))).rejects.toThrow(/cannot be stored/)
  await segments.close()
  await expect(append(segments, 'late')).rejects.toThrow(/closed/)
})

it('finds whole frames before any change of a byte', () => {
  const payloads = fc.array(fc.string({ minLength: 1, unit: 'binary' }), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(payloads, fc.nat(), fc.integer({ min: 1, max: 255 }), (texts, at, flip) => {
      const written = texts.map((text) => Buffer.from(text).toString())
      const bytes = Buffer.concat(written.map(frame))
      expect(unframe(bytes)).toEqual({ payloads: written, end: bytes.length })
      const place = at % bytes.length
      bytes[place] = (bytes[place] ?? 0) ^ flip
      const { payloads: found, end } = unframe(bytes)
      expect(found).toEqual(written.slice(0, found.length))
      expect(end).toBeLessThanOrEqual(place)
    }),
  )
})
