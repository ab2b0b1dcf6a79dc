import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSegmentFile, type SegmentFile } from './segment-file.ts'
import { frame, maxPayloadBytes, unframe } from './segment-frames.ts'
import { SegmentLog, type SegmentWatcher, type StoredRecord } from './segment-log.ts'

const log = pino({ level: 'silent' })
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-segments-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function append(segments: SegmentLog, text: string, durable = true): Promise<number> {
  if (!durable) {
    return new Promise((stored, failed) => segments.write({ text }, { stored, failed }))
  }
  let found = 0
  await segments.append({ text }, (sequence) => {
    found = sequence
  })
  return found
}

function texts(records: readonly StoredRecord[]): [sequence: number, text: string][] {
  return records.map(({ sequence, payload }) => [sequence, payload.toString()])
}

it('reads back what was appended, numbered without gaps over segments', async () => {
  const first = await SegmentLog.open({ folder, log, atLeast: 1, segmentBytes: 100 })
  const payloads = Array.from({ length: 30 }, (_, index) => `record ${index}`)
  for (const payload of payloads) await append(first.segments, payload, payload.endsWith('0'))
  await first.segments.close()
  expect((await readdir(folder)).length).toBeGreaterThan(3)
  const second = await SegmentLog.open({ folder, log, atLeast: 1 })
  expect(texts(second.records)).toEqual(payloads.map((payload, index) => [index + 1, payload]))
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
  expect(texts(records)).toEqual([
    [100, 'a'],
    [500, 'b'],
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
  for (let size = frame({ text: 'kept' }).length; size < bytes.length; size++) {
    await writeFile(join(folder, name), bytes.subarray(0, size))
    const torn = await SegmentLog.open({ folder, log, atLeast: 1 })
    expect(texts(torn.records)).toEqual([[1, 'kept']])
    await append(torn.segments, 'new', false)
    await torn.segments.close()
    const next = await SegmentLog.open({ folder, log, atLeast: 1 })
    expect(texts(next.records)).toEqual([
      [1, 'kept'],
      [2, 'new'],
    ])
    await next.segments.close()
  }
})

it('has written what is to outlive the process when it says so, after what waits for the disk', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await segments.makeReady()
  const appended = append(segments, 'first')
  expect(await append(segments, 'second', false)).toBe(2)
  const [name = ''] = readdirSync(folder)
  const { payloads } = unframe(readFileSync(join(folder, name)))
  expect(payloads.map(String)).toEqual(['first', 'second'])
  expect(await appended).toBe(1)
  await segments.close()
})

it('writes all records of a turn at once, and waits for no callback of the next', async () => {
  const writes: number[] = []
  const openFile = async (path: string, flags: string): Promise<SegmentFile> => {
    const file = await openSegmentFile(path, flags)
    return {
      ...file,
      write(bytes, from, length, position) {
        writes.push(length)
        return file.write(bytes, from, length, position)
      },
    }
  }
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1, openFile })
  await segments.makeReady()
  let isNext = false
  setImmediate(() => {
    isNext = true
  })
  const calls = Array.from({ length: 20 }, async (_, index) => {
    // Each comes as late as the promises that it waits for let it.
    for (let step = 0; step < index; step++) await undefined
    return append(segments, `record ${index}`, false)
  })
  expect(await Promise.all(calls)).toEqual(calls.map((_, index) => index + 1))
  expect(isNext).toBe(false)
  expect(writes).toHaveLength(1)
  await segments.close()
})

it.each([true, false])(
  'writes what came before it was closed, whether a segment is there (%s) or not',
  async (isReady) => {
    const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
    if (isReady) await segments.makeReady()
    const written = append(segments, 'last', false)
    await segments.close()
    expect(await written).toBe(1)
    const { records, segments: again } = await SegmentLog.open({ folder, log, atLeast: 1 })
    expect(texts(records)).toEqual([[1, 'last']])
    await again.close()
  },
)

it('fails an append after it is closed', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  await segments.close()
  await expect(append(segments, 'late')).rejects.toThrow(/closed/)
  await expect(append(segments, 'late', false)).rejects.toThrow(/closed/)
})

it('knows which records it would leave, and leaves those', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1, segmentBytes: 40 })
  for (let number = 1; number <= 12; number++) await append(segments, `record ${number}`)
  for (const through of [1, 4, 8, 100]) {
    const oldest = segments.oldestAfter(through)
    expect(oldest).toBeLessThanOrEqual(Math.min(through, 12))
    await segments.forget(through)
    const [first = ''] = (await readdir(folder)).sort()
    expect(Number.parseInt(first, 10)).toBe(oldest)
  }
  await segments.close()
})

it('writes records in order, however large they are', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  const sizes = [10, 3_000_000, 9_000_000, 20, 30, 2_000_000]
  await Promise.all(sizes.map((size) => append(segments, 'x'.repeat(size))))
  await segments.close()
  const { records, segments: again } = await SegmentLog.open({ folder, log, atLeast: 1 })
  expect(records.map((record) => record.payload.length)).toEqual(sizes)
  await again.close()
})

it.each([true, false])(
  'refuses a record that cannot be stored, to be on the disk (%s) or not, and goes on',
  async (durable) => {
    const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
    const records = [append(segments, 'a', durable), append(segments, '', durable), append(segments, 'b', durable)]
    expect(await Promise.allSettled(records)).toMatchObject([
      { value: 1 },
      { reason: { message: 'a record of 0 bytes cannot be stored' } },
      { value: 2 },
    ])
    await segments.close()
  },
)

it('lets no more than 20,000 records wait for the disk', async () => {
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1 })
  const appends = Array.from({ length: 20_001 }, (_, index) => append(segments, `${index}`))
  const results = await Promise.allSettled(appends)
  expect(results.filter(({ status }) => status === 'rejected')).toHaveLength(1)
  expect(results.at(-1)).toMatchObject({ reason: { message: 'usage log is written too slowly' } })
  expect(await append(segments, 'next')).toBe(20_001)
  await segments.close()
})

describe('what was said to be on the disk', () => {
  /** Opens a log that names each file as it is synced, and fails the syncs that `isLost` says. */
  async function openSyncing(synced: string[], isLost: () => boolean, segmentBytes = 1_000_000): Promise<SegmentLog> {
    const openFile = async (path: string, flags: string): Promise<SegmentFile> => {
      const file = await openSegmentFile(path, flags)
      return {
        ...file,
        async datasync() {
          synced.push(basename(path))
          if (isLost()) throw new Error('lost')
          await file.datasync()
        },
      }
    }
    const { segments } = await SegmentLog.open({
      folder,
      log,
      atLeast: 1,
      openFile,
      ...(segmentBytes === undefined ? {} : { segmentBytes }),
    })
    await segments.makeReady()
    return segments
  }

  it('shares a sync with all that comes in the turn in which the one before ended', async () => {
    const synced: string[] = []
    const later: Promise<number>[] = []
    const segments = await openSyncing(synced, () => {
      // While the first is under way, and then when it has ended, behind what the log does at once.
      if (synced.length === 1) later.push(append(segments, 'during'))
      return false
    })
    synced.length = 0
    await append(segments, 'first')
    await new Promise<void>((done) => {
      process.nextTick(() => {
        later.push(append(segments, 'after'))
        done()
      })
    })
    expect(await Promise.all(later)).toEqual([2, 3])
    expect(synced).toHaveLength(2)
    await segments.close()
  })

  it('is so where another segment began while it waited', async () => {
    const synced: string[] = []
    const segments = await openSyncing(synced, () => false, 40)
    const appended = append(segments, 'x'.repeat(50))
    await append(segments, 'written with it', false)
    expect(segments.isReady).toBe(false)
    await segments.makeReady()
    expect(await appended).toBe(1)
    expect(synced).toContain('0000000000000001.segment')
    await segments.close()
  })

  it('is in another segment than what a sync failed for, which is not asked for again', async () => {
    const synced: string[] = []
    let isLost = true
    const segments = await openSyncing(synced, () => isLost)
    await expect(append(segments, 'lost')).rejects.toThrow('lost')
    isLost = false
    expect(await append(segments, 'kept')).toBe(2)
    expect(synced).toEqual(['0000000000000001.segment', '0000000000000002.segment'])
    await segments.close()
  })
})

it('tells its watcher once of each write and sync, before those who wait for it', async () => {
  const told: string[] = []
  let fault: 'none' | 'write' | 'sync' = 'none'
  const openFile = async (path: string, flags: string): Promise<SegmentFile> => {
    const file = await openSegmentFile(path, flags)
    return {
      ...file,
      write(bytes, from, length, position) {
        if (fault === 'write') throw new Error('full')
        return file.write(bytes, from, length, position)
      },
      async datasync() {
        if (fault === 'sync') throw new Error('lost')
        await file.datasync()
      },
    }
  }
  const watcher: SegmentWatcher = {
    works: () => told.push('works'),
    failed: (error) => told.push(String(error)),
  }
  const { segments } = await SegmentLog.open({ folder, log, atLeast: 1, openFile, watcher })
  await segments.makeReady()
  async function appendThree(durable: boolean): Promise<string[]> {
    told.length = 0
    const three = Array.from({ length: 3 }, () => {
      return new Promise<void>((done) => {
        const tell = (outcome: string): void => {
          told.push(outcome)
          done()
        }
        const waiter = { stored: (sequence: number) => tell(`${sequence}`), failed: () => tell('failed') }
        if (durable) segments.enqueue({ text: 'text' }, waiter)
        else segments.write({ text: 'text' }, waiter)
      })
    })
    await Promise.all(three)
    return told
  }
  expect(await appendThree(false)).toEqual(['works', '1', '2', '3'])
  expect(await appendThree(true)).toEqual(['works', '4', '5', '6'])
  fault = 'write'
  expect(await appendThree(false)).toEqual(['Error: full', 'failed', 'failed', 'failed'])
  expect(await appendThree(true)).toEqual(['Error: full', 'failed', 'failed', 'failed'])
  fault = 'sync'
  expect(await appendThree(true)).toEqual(['Error: lost', 'failed', 'failed', 'failed'])
  fault = 'none'
  expect(await appendThree(true)).toEqual(['works', '10', '11', '12'])
  await segments.close()
  const closed = ['Error: usage log is closed', 'failed']
  expect(await appendThree(true)).toEqual([...closed, ...closed, ...closed])
})

it('frames no record that is empty or too large', () => {
  expect(() => frame({ text: '' })).toThrow(/cannot be stored/)
  expect(() => frame({ text: '', bytes: new Uint8Array(maxPayloadBytes + 1) })).toThrow(/cannot be stored/)
})

it('finds whole frames before any change of a byte', () => {
  // Halves of surrogate pairs, too, which UTF-8 does not have.
  const unit = fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code))
  const text = fc.oneof(fc.string({ minLength: 1, unit: 'binary' }), fc.string({ minLength: 1, unit }))
  const payloads = fc.array(fc.tuple(text, fc.uint8Array()), {
    minLength: 1,
    maxLength: 5,
  })
  fc.assert(
    fc.property(payloads, fc.nat(), fc.integer({ min: 1, max: 255 }), (pairs, at, flip) => {
      const written = pairs.map(([text, tail]) => Buffer.concat([Buffer.from(text), tail]))
      const bytes = Buffer.concat(pairs.map(([text, tail]) => frame({ text, bytes: tail })))
      expect(unframe(bytes)).toEqual({ payloads: written, end: bytes.length })
      const place = at % bytes.length
      bytes[place] = (bytes[place] ?? 0) ^ flip
      const { payloads: found, end } = unframe(bytes)
      expect(found).toEqual(written.slice(0, found.length))
      expect(end).toBeLessThanOrEqual(place)
    }),
  )
})
