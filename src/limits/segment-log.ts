import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { unframe } from './segment-frames.ts'

/** The part of a file that a segment uses; tests give one that fails. */
export interface SegmentFile {
  write(bytes: Buffer, from: number, length: number, position: number): Promise<{ bytesWritten: number }>
  truncate(size: number): Promise<void>
  datasync(): Promise<void>
  close(): Promise<void>
}

export interface SegmentLogOptions {
  readonly folder: string
  readonly log: Logger
  /** Size at which the next segment begins. Default 16 MiB. */
  readonly segmentBytes?: number
  /** Numbers below this were used before, even if no segment shows it. */
  readonly atLeast: number
  readonly openFile?: (path: string, flags: string) => Promise<SegmentFile>
}

export interface StoredRecord {
  /** Number of the record, from 1, growing by 1 over all segments. */
  readonly sequence: number
  readonly payload: Buffer
}

interface Append {
  readonly bytes: Buffer
  readonly durable: boolean
  readonly stored: (sequence: number) => void
  readonly failed: (error: unknown) => void
}

interface Segment {
  /** Number of its first record; also its file name. */
  readonly base: number
  /** Number after its last record. */
  end: number
}

const defaultSegmentBytes = 16 * 1024 * 1024
/** Appends that wait to be written, and their bytes; beyond it the disk is too slow and appending fails. */
const maxQueued = 20_000
const maxQueuedBytes = 256 * 1024 * 1024
/** What one write takes at most; a larger record is written alone. */
const maxBatch = 1_000
const maxBatchBytes = 4 * 1024 * 1024

/**
 * An append-only log in a folder of segment files. What was being written when the process died is cut off when the log
 * is opened again; what was durable is there.
 *
 * Two loops keep it fast. One writes what is queued, in one write; the other calls fdatasync for all that was written
 * before it began (**group commit**): appends that arrive during a sync share the next one. A failed write is cut off
 * at once. After a failed fdatasync nobody knows what the disk holds, and a second one on the same file may lie, so the
 * appends fail and the next record begins a new segment.
 */
export class SegmentLog {
  readonly #options: SegmentLogOptions
  readonly #segments: Segment[]
  #file: SegmentFile | undefined
  /** Bytes of the active segment that are whole records. */
  #size: number
  #mustCut = false
  #mustRotate = false
  #queue: Append[] = []
  #queuedBytes = 0
  #unsynced: { readonly append: Append; readonly sequence: number }[] = []
  #writing: Promise<void> | undefined
  #syncing: Promise<void> | undefined
  #closed = false

  private constructor(options: SegmentLogOptions, segments: Segment[], file: SegmentFile | undefined, size: number) {
    this.#options = options
    this.#segments = segments
    this.#file = file
    this.#size = size
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
      if (end < bytes.length) {
        options.log.warn({ segment: base, bytes: bytes.length - end }, 'usage log ends in an unfinished record')
      }
      payloads.forEach((payload, index) => {
        records.push({ sequence: base + index, payload })
      })
      segments.push({ base, end: base + payloads.length })
      size = end
    }
    const openFile = options.openFile ?? open
    const last = segments.at(-1)
    const file = last === undefined ? undefined : await openFile(pathOf(options.folder, last.base), 'r+')
    await file?.truncate(size)
    const log = new SegmentLog({ ...options, openFile }, segments, file, size)
    log.#mustRotate = last === undefined || last.end < options.atLeast
    return { segments: log, records }
  }

  /**
   * Appends a record that is framed; resolves when it is written, with `durable` when it is on the disk. `stored` is
   * called with its number in the same step. Rejects with the problem of the file system; then the record is not in the
   * log, or, after a failed fdatasync, perhaps.
   */
  append(bytes: Buffer, durable: boolean, stored: (sequence: number) => void): Promise<void> {
    return new Promise((done, failed) => {
      if (this.#closed) throw new Error('usage log is closed')
      if (this.#queue.length >= maxQueued || this.#queuedBytes >= maxQueuedBytes) {
        throw new Error('usage log is written too slowly')
      }
      const append: Append = {
        bytes,
        durable,
        failed,
        stored: (sequence) => {
          stored(sequence)
          done()
        },
      }
      this.#queue.push(append)
      this.#queuedBytes += bytes.length
      this.#writing ??= this.#write()
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
    await this.#writing
    await this.#syncing
    await this.#file?.close()
    this.#file = undefined
  }

  async #write(): Promise<void> {
    // Leaves the caller's turn first, so that appends of one turn share a write.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const batch = this.#nextBatch()
      try {
        await this.#writeBatch(batch)
      } catch (error) {
        for (const append of batch) append.failed(error)
      }
    }
    // In the same step as the look at the queue: an append that came in between would wait for ever.
    this.#writing = undefined
  }

  #nextBatch(): Append[] {
    let bytes = 0
    const end = this.#queue.findIndex((append, index) => {
      bytes += append.bytes.length
      return index > 0 && (index >= maxBatch || bytes > maxBatchBytes)
    })
    const batch = end < 0 ? this.#queue : this.#queue.slice(0, end)
    this.#queue = this.#queue.slice(batch.length)
    for (const append of batch) this.#queuedBytes -= append.bytes.length
    return batch
  }

  async #writeBatch(batch: readonly Append[]): Promise<void> {
    const segmentBytes = this.#options.segmentBytes ?? defaultSegmentBytes
    if (this.#mustRotate || this.#size >= segmentBytes) await this.#rotate()
    const { file, segment } = this.#active()
    if (this.#mustCut) await this.#cut(file)
    const bytes = Buffer.concat(batch.map((append) => append.bytes))
    try {
      for (let from = 0; from < bytes.length; ) {
        const { bytesWritten } = await file.write(bytes, from, bytes.length - from, this.#size + from)
        from += bytesWritten
      }
    } catch (error) {
      this.#mustCut = true
      // The next write tries again if this fails.
      await this.#cut(file).catch(() => undefined)
      throw error
    }
    this.#size += bytes.length
    for (const append of batch) {
      const sequence = segment.end++
      if (!append.durable) append.stored(sequence)
      // A sync of this file failed during the write: another one would prove nothing.
      else if (this.#mustRotate) append.failed(new Error('usage log could not be synced'))
      else this.#unsynced.push({ append, sequence })
    }
    if (this.#unsynced.length > 0) {
      this.#syncing ??= this.#sync(file)
    }
  }

  async #sync(file: SegmentFile): Promise<void> {
    while (this.#unsynced.length > 0) {
      const batch = this.#unsynced
      this.#unsynced = []
      try {
        await file.datasync()
        for (const { append, sequence } of batch) append.stored(sequence)
      } catch (error) {
        this.#mustRotate = true
        const written = this.#unsynced
        this.#unsynced = []
        for (const { append } of [...batch, ...written]) append.failed(error)
      }
    }
    this.#syncing = undefined
  }

  async #cut(file: SegmentFile): Promise<void> {
    await file.truncate(this.#size)
    this.#mustCut = false
  }

  /** Begins the next segment. Every record of the old one is synced before, so only the newest can end torn. */
  async #rotate(): Promise<void> {
    await this.#syncing
    const old = this.#segments.at(-1)
    if (old !== undefined && this.#file !== undefined) {
      if (this.#mustCut) await this.#cut(this.#file)
      // Admissions are written without a sync of their own.
      if (!this.#mustRotate) await this.#file.datasync()
    }
    const base = Math.max(old?.end ?? 1, this.#options.atLeast)
    if (old?.base !== base || this.#file === undefined) {
      const openFile = this.#options.openFile ?? open
      const next = await openFile(pathOf(this.#options.folder, base), 'w')
      try {
        await syncFolder(this.#options.folder)
      } catch (error) {
        await next.close()
        throw error
      }
      await this.#file?.close().catch(() => undefined)
      this.#file = next
      this.#size = 0
      this.#segments.push({ base, end: base })
    }
    this.#mustRotate = false
  }

  #active(): { file: SegmentFile; segment: Segment } {
    const segment = this.#segments.at(-1)
    if (this.#file === undefined || segment === undefined) throw new Error('usage log has no open segment')
    return { file: this.#file, segment }
  }
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
