import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import pino from 'pino'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openSegmentFile, type SegmentFile } from './segment-file.ts'
import { frame, unframe } from './segment-frames.ts'
import { SegmentLog } from './segment-log.ts'

const log = pino({ level: 'silent' })
/** So many of these bytes are enough for zeros behind them. */
const text = 'a record of some length '.repeat(40)
const enough = 70
let folder: string
let path: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-segment-end-'))
  path = join(folder, '0000000000000001.segment')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function append(segments: SegmentLog, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await segments.append({ text }, () => {})
}

/** The folder as a process leaves it that dies now, opened by the next one: how many records are whole. */
async function recovered(bytes: Buffer): Promise<number> {
  const copy = await mkdtemp(join(tmpdir(), 'tollgate-segment-end-'))
  try {
    await cp(folder, copy, { recursive: true })
    await writeFile(join(copy, '0000000000000001.segment'), bytes)
    const { segments, records } = await SegmentLog.open({ folder: copy, log, atLeast: 1 })
    await append(segments, 1)
    await segments.close()
    const again = await SegmentLog.open({ folder: copy, log, atLeast: 1 })
    await again.segments.close()
    expect(again.records.map(({ payload }) => payload.toString())).toEqual(Array(records.length + 1).fill(text))
    return records.length
  } finally {
    await rm(copy, { recursive: true })
  }
}

it('has zeros behind many records while it is written, and none when it is closed', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await append(segments, 1)
  expect((await stat(path)).size).toBe(frame({ text }).length)
  await append(segments, enough - 1)
  const size = enough * frame({ text }).length
  const bytes = await readFile(path)
  expect(bytes.length).toBeGreaterThan(2 * size)
  expect(bytes.subarray(size).every((byte) => byte === 0)).toBe(true)
  await segments.close()
  expect((await stat(path)).size).toBe(size)
})

it('keeps every whole record before one that is torn among zeros, at whatever byte', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await append(segments, enough)
  const bytes = await readFile(path)
  await segments.close()
  const { length } = frame({ text })
  expect(await recovered(bytes)).toBe(enough)
  for (const kept of [0, 1, 3, 4, 5, 8, 9, length - 2, length - 1]) {
    const torn = Buffer.from(bytes)
    expect(await recovered(torn.fill(0, (enough - 1) * length + kept))).toBe(enough - 1)
  }
})

it('says nothing of zeros when it is opened, and of an unfinished record how long it is', async () => {
  const warned: object[] = []
  const telling = pino({ level: 'warn' }, { write: (line: string) => warned.push(JSON.parse(line)) })
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await append(segments, enough)
  const bytes = await readFile(path)
  await segments.close()
  await writeFile(path, bytes)
  await (await SegmentLog.open({ folder, log: telling, atLeast: 1 })).segments.close()
  expect(warned).toEqual([])
  await writeFile(path, bytes.fill(0, enough * frame({ text }).length - 10))
  await (await SegmentLog.open({ folder, log: telling, atLeast: 1 })).segments.close()
  expect(warned).toMatchObject([{ bytes: frame({ text }).length - 10 }])
})

it('takes records while the disk has room for them and not for zeros', async () => {
  async function openFile(name: string, flags: string): Promise<SegmentFile> {
    const file = await openSegmentFile(name, flags)
    return {
      ...file,
      write(bytes, from, length, position) {
        if (length <= 10_000) return file.write(bytes, from, length, position)
        file.write(bytes, from, 5_000, position)
        throw new Error('ENOSPC: no space left on device')
      },
    }
  }
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1, openFile })
  await append(segments, 2 * enough)
  expect(await recovered(await readFile(path))).toBe(2 * enough)
  await segments.close()
})

it('writes no zeros beyond the size of a segment', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1, segmentBytes: 80_000 })
  await append(segments, 300)
  for (const name of (await readdir(folder)).sort().slice(0, -1)) {
    expect((await stat(join(folder, name))).size).toBeLessThan(80_000 + frame({ text }).length)
  }
  await segments.close()
  const { segments: again, records } = await SegmentLog.open({ folder, log, atLeast: 1 })
  expect(records.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 300 }, (_, index) => index + 1))
  await again.close()
})

it('holds every whole record before a cut or a changed byte, wherever that is among records and zeros', async () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 30_000 }), { minLength: 5, maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(sizes, fc.nat(), fc.integer({ min: 1, max: 255 }), async (lengths, at, flip) => {
      const own = await mkdtemp(join(folder, 'run-'))
      const { segments } = await SegmentLog.open({ folder: own, log, atLeast: 1 })
      for (const length of lengths) await segments.append({ text: 'x'.repeat(length) }, () => {})
      const bytes = await readFile(join(own, '0000000000000001.segment'))
      await segments.close()
      const ends = lengths.map((_, index) => lengths.slice(0, index + 1).reduce((sum, length) => sum + length + 8, 0))
      const place = at % (ends.at(-1) ?? 1)
      const whole = ends.filter((end) => end <= place).length
      expect(unframe(bytes).payloads.length).toBe(lengths.length)
      expect(unframe(Buffer.from(bytes).fill(0, place)).payloads.length).toBe(whole)
      bytes[place] = (bytes[place] ?? 0) ^ flip
      expect(unframe(bytes).payloads.length).toBe(whole)
    }),
    { numRuns: 60 },
  )
})
