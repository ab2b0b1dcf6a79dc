import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { turnsEnd } from '../turn.ts'
import { SegmentEnd } from './segment-end.ts'
import { openSegmentFile, type SegmentFile } from './segment-file.ts'
import { type Payload, unframe } from './segment-frames.ts'
import { SegmentQueue } from './segment-queue.ts'

export interface SegmentLogOptions {
  readonly folder: string
  readonly log: Logger
  /** Size at which the next segment begins. Default 16 MiB. */
  readonly segmentBytes?: number
  /** Numbers below this were used before, even if no segment shows it. */
  readonly atLeast: number
  readonly openFile?: (path: string, flags: string) => Promise<SegmentFile>
  readonly watcher?: SegmentWatcher
}

/** Hears whether the log works, before those whose records are concerned. */
export interface SegmentWatcher {
  /** Records were stored: once for all of a write or a sync that somebody waited for. */
  works(): void
  /** Records were not stored, or no segment could be begun. */
  failed(error: unknown): void
}

export interface StoredRecord {
  /** Number of the record, from 1, growing by 1 over all segments. */
  readonly sequence: number
  readonly payload: Buffer
}

/** Waits for a record to be written or on the disk; all that wait for the same are told in the order of their records. */
export interface RecordWaiter {
  /** So it is, under this number. */
  stored(sequence: number): void
  /** It is not in the log, or, after a failed fdatasync, perhaps. */
  failed(error: unknown): void
}

interface Append {
  readonly waiter: RecordWaiter
  /** Whether its waiter waits for the disk, and not only for the write. */
  readonly isSynced: boolean
  /** Number of the record, once it is written. */
  sequence: number
}

interface Segment {
  /** Number of its first record; also its file name. */
  readonly base: number
  /** Number after its last record. */
  end: number
}

const defaultSegmentBytes = 16 * 1024 * 1024
/** Records that wait for the disk, and their bytes while they are not written; beyond it the disk is too slow. */
const maxWaiting = 20_000
const maxQueuedBytes = 256 * 1024 * 1024

/**
 * An append-only log in a folder of segment files. What was being written when the process died is cut off when the log
 * is opened again; what was durable is there.
 *
 * A record that need not outlive the machine is only **written**, into the page cache: with all others of the calls that go on
 * together, as soon as each of them waits for something. One that must be on the disk is queued, written with the next
 * write, and waits for a loop that calls fdatasync for all that was written before (**group commit**): what is queued during
 * a sync shares the next one. Records stand in the order in which they came.
 *
 * A failed write is cut off at once. After a failed fdatasync nobody knows what the disk holds, and a second one on the
 * same file may lie, so the appends fail and the next record begins a new segment.
 */
export class SegmentLog {
  readonly #options: SegmentLogOptions
  readonly #segmentBytes: number
  readonly #segments: Segment[]
  readonly #queue = new SegmentQueue<Append>()
  /** Of the active segment. */
  #end: SegmentEnd | undefined
  #mustRotate = false
  #isWriteDue = false
  #unsynced: Append[] = []
  /** The loop, the one fdatasync, and the beginning of a segment that are going on. */
  #looping: Promise<void> | undefined
  #syncing: Promise<void> | undefined
  #rotating: Promise<void> | undefined
  #closed = false

  private constructor(options: SegmentLogOptions, segments: Segment[], end: SegmentEnd | undefined) {
    this.#options = options
    this.#segmentBytes = options.segmentBytes ?? defaultSegmentBytes
    this.#segments = segments
    this.#end = end
  }

  /** Reads every whole record, oldest first, and makes the log ready to append. */
  static async open(options: SegmentLogOptions): Promise<{ segments: SegmentLog; records: StoredRecord[] }> {
    await mkdir(options.folder, { recursive: true })
    const bases = (await readdir(options.folder)).flatMap((name) => {
      const match = /^(\d{16})\.segment$/.exec(name)
      return match === null ? [] : [Number(match[1])]
    })
    bases.sort((a, b) => a - b)
    const records: StoredRecord[] = []
    const segments: Segment[] = []
    let size = 0
    for (const base of bases) {
      const bytes = await readFile(pathOf(options.folder, base))
      const { payloads, end } = unframe(bytes)
      const unfinished = lengthWithoutZeros(bytes.subarray(end))
      if (unfinished > 0)
        options.log.warn({ segment: base, bytes: unfinished }, 'usage log ends in an unfinished record')
      payloads.forEach((payload, index) => {
        records.push({ sequence: base + index, payload })
      })
      segments.push({ base, end: base + payloads.length })
      size = end
    }
    const last = segments.at(-1)
    const end = last === undefined ? undefined : await openEnd(options, last.base, 'r+', size)
    const log = new SegmentLog(options, segments, end)
    log.#mustRotate = last === undefined || last.end < options.atLeast
    return { segments: log, records }
  }

  /** Whether what is written need not wait for a segment: one is there, and not full. */
  get isReady(): boolean {
    return this.#end !== undefined && !this.#mustRotate && this.#end.size < this.#segmentBytes
  }

  /** Resolves when it is ready, if need be with a new segment; rejects with the problem of the file system. */
  async makeReady(): Promise<void> {
    while (!this.isReady) {
      try {
        if (this.#closed) throw closedError()
        await this.#rotateOnce()
      } catch (error) {
        this.#options.watcher?.failed(error)
        throw error
      }
    }
  }

  /**
   * Writes a record after all that were queued, and tells its waiter as soon as it survives the death of this process; never
   * throws. That is before any callback of the event loop, unless the log is not {@link isReady}.
   */
  write(payload: Payload, waiter: RecordWaiter): void {
    if (!this.#push(payload, { waiter, isSynced: false, sequence: 0 }) || this.#isWriteDue) return
    this.#isWriteDue = true
    // Runs when no promise has anything left to do: then all calls of this turn that are to be admitted have come.
    process.nextTick(this.#writeDue)
  }

  /** Appends a record, and tells its waiter when it is on the disk; never throws. */
  enqueue(payload: Payload, waiter: RecordWaiter): void {
    const append = { waiter, isSynced: true, sequence: 0 }
    if (this.#queue.length + this.#unsynced.length >= maxWaiting || this.#queue.bytes >= maxQueuedBytes) {
      this.#fail([append], new Error('usage log is written too slowly'))
    } else if (this.#push(payload, append)) {
      this.#looping ??= this.#loop()
    }
  }

  /** As {@link enqueue}; resolves when the record is on the disk. `stored` is called with its number in the same step. */
  append(payload: Payload, stored: (sequence: number) => void): Promise<void> {
    return new Promise((done, failed) => {
      this.enqueue(payload, {
        stored(sequence) {
          stored(sequence)
          done()
        },
        failed,
      })
    })
  }

  /** Number of the oldest record that {@link forget} would leave. */
  oldestAfter(sequence: number): number {
    const kept = this.#segments.find((segment) => segment.end > sequence) ?? this.#segments.at(-1)
    return kept?.base ?? sequence
  }

  /** Deletes the segments whose records all have numbers below `sequence`, except the one being written. */
  async forget(sequence: number): Promise<void> {
    for (let first = this.#segments[0]; first !== undefined; first = this.#segments[0]) {
      if (this.#segments.length === 1 || first.end > sequence) return
      // Strictly oldest first, so that no reservation outlives the record of its settlement.
      await rm(pathOf(this.#options.folder, first.base), { force: true })
      if (this.#segments[0] === first) this.#segments.shift()
    }
  }

  /** Writes and syncs what was appended, then closes the file. */
  async close(): Promise<void> {
    this.#closed = true
    this.#writeDue()
    await this.#looping
    await this.#rotating?.catch(() => undefined)
    await this.#end?.close()
    this.#end = undefined
  }

  /** Whether the record is in the queue; else its waiter was told. */
  #push(payload: Payload, append: Append): boolean {
    try {
      if (this.#closed) throw closedError()
      this.#queue.push(payload, append)
      return true
    } catch (error) {
      this.#fail([append], error)
      return false
    }
  }

  readonly #writeDue = (): void => {
    this.#isWriteDue = false
    if (this.#queue.length === 0) return
    if (!this.isReady) {
      this.#looping ??= this.#loop()
      return
    }
    try {
      this.#writeQueue()
    } catch {
      // Those who wait were told.
    }
  }

  /** Only begun when something waits: else it would end before its caller has noted it. */
  async #loop(): Promise<void> {
    while (this.#queue.length + this.#unsynced.length > 0) {
      // What the turn of the event loop brings shares the sync, which costs 80 µs of CPU for however many records. Neither a timer
      // nor no wait at all is as good (docs/performance.md).
      await turnsEnd()
      try {
        await this.#rotating
        if (!this.isReady) await this.#rotateOnce()
        this.#writeQueue()
      } catch (error) {
        this.#fail(this.#queue.clear(), error)
      }
      // Another segment may have begun while this waited; then what is not synced is in it.
      if (this.#unsynced.length === 0 || this.#rotating !== undefined) continue
      this.#syncing = this.#sync()
      await this.#syncing
      this.#syncing = undefined
    }
    // In the same step as the look at the queue: an append that came in between would wait for ever.
    this.#looping = undefined
  }

  /** Brings to the disk what is written, and tells those who wait. Never rejects. */
  async #sync(): Promise<void> {
    const batch = this.#unsynced
    this.#unsynced = []
    try {
      await this.#active().end.datasync()
    } catch (error) {
      this.#mustRotate = true
      const written = this.#unsynced
      this.#unsynced = []
      this.#fail([...batch, ...written], error)
      return
    }
    this.#succeed(batch)
  }

  /** Writes what is queued. Throws when that fails; those that are not in the log then are told. */
  #writeQueue(): void {
    try {
      for (let bytes = this.#queue.first(); bytes !== undefined; bytes = this.#queue.first()) {
        const { end, segment } = this.#active()
        end.append(bytes)
        const appends = this.#queue.shift()
        for (const append of appends) {
          append.sequence = segment.end++
          if (append.isSynced) this.#unsynced.push(append)
        }
        this.#succeed(appends.filter(({ isSynced }) => !isSynced))
      }
    } catch (error) {
      this.#fail(this.#queue.clear(), error)
      throw error
    }
  }

  #succeed(appends: readonly Append[]): void {
    if (appends.length > 0) this.#options.watcher?.works()
    for (const { waiter, sequence } of appends) waiter.stored(sequence)
  }

  #fail(appends: readonly Append[], error: unknown): void {
    if (appends.length > 0) this.#options.watcher?.failed(error)
    for (const { waiter } of appends) waiter.failed(error)
  }

  #rotateOnce(): Promise<void> {
    this.#rotating ??= this.#rotate().finally(() => {
      this.#rotating = undefined
    })
    return this.#rotating
  }

  /** Begins the next segment. Every record of the old one is synced before, so only the newest can end torn. */
  async #rotate(): Promise<void> {
    await this.#syncing
    const old = this.#segments.at(-1)
    if (this.#end !== undefined) {
      this.#end.cut()
      if (!this.#mustRotate) await this.#sync()
    }
    const base = Math.max(old?.end ?? 1, this.#options.atLeast)
    if (old?.base !== base || this.#end === undefined) {
      const next = await openEnd(this.#options, base, 'w', 0)
      try {
        await syncFolder(this.#options.folder)
      } catch (error) {
        await next.close()
        throw error
      }
      await this.#end?.close().catch(() => undefined)
      this.#end = next
      this.#segments.push({ base, end: base })
    }
    this.#mustRotate = false
  }

  #active(): { end: SegmentEnd; segment: Segment } {
    const segment = this.#segments.at(-1)
    if (this.#end === undefined || segment === undefined) throw new Error('usage log has no open segment')
    return { end: this.#end, segment }
  }
}

function closedError(): Error {
  return new Error('usage log is closed')
}

/** Makes the names of a folder's files durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function pathOf(folder: string, base: number): string {
  return join(folder, `${String(base).padStart(16, '0')}.segment`)
}

/** Opens a segment to go on behind its records. */
async function openEnd(options: SegmentLogOptions, base: number, flags: string, size: number): Promise<SegmentEnd> {
  const { folder, openFile = openSegmentFile, segmentBytes = defaultSegmentBytes } = options
  const file = await openFile(pathOf(folder, base), flags)
  file.truncate(size)
  return new SegmentEnd(file, size, segmentBytes)
}

function lengthWithoutZeros(bytes: Uint8Array): number {
  let length = bytes.length
  while (bytes[length - 1] === 0) length -= 1
  return length
}
