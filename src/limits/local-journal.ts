import type { Logger } from 'pino'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { AcknowledgedFile } from './acknowledged-file.ts'
import type { LocalAnswers } from './local-answers.ts'
import { encodeAdmitted, encodeSettled, type WrittenRecord } from './local-records.ts'
import type { RecordWaiter, SegmentLog } from './segment-log.ts'
import { problemOf } from './usage-log-health.ts'

export interface LocalJournalParts {
  readonly segments: SegmentLog
  readonly acknowledged: AcknowledgedFile
  readonly answers: LocalAnswers
  readonly log: Logger
}

/** The writing end of the log of one process: what is appended, and what may be deleted. */
export class LocalJournal {
  readonly #parts: LocalJournalParts
  #trimming: Promise<void> = Promise.resolve()

  constructor(parts: LocalJournalParts) {
    this.#parts = parts
  }

  /** Whether {@link admitted} need not wait for a segment. */
  get isReady(): boolean {
    return this.#parts.segments.isReady
  }

  /** Resolves when it need not; rejects with the problem of the file system. */
  makeReady(): Promise<void> {
    return this.#parts.segments.makeReady()
  }

  /** Writes that a call was admitted, and tells the waiter when it is written: see {@link SegmentLog.write}. Never throws. */
  admitted(id: string, event: UsageEvent, waiter: RecordWaiter): void {
    this.#parts.segments.write(encodeAdmitted(id, event), waiter)
  }

  /** Appends what is on its way to the ledger, and tells the waiter when it is on the disk; never throws. */
  settled(record: WrittenRecord, waiter: RecordWaiter): void {
    this.#parts.segments.enqueue(encodeSettled(record), waiter)
  }

  /**
   * Every record up to `through` is in the ledger: keeps that position, and deletes the segments that nothing needs.
   * `neededFrom` tells the oldest record that is needed for another reason. Never throws: the entries are in the ledger,
   * and the worst that follows of a failure is that they are delivered once more.
   */
  async forget(through: number, neededFrom: () => number): Promise<void> {
    const { acknowledged, log } = this.#parts
    try {
      acknowledged.store(through)
      // One after the other, so that no segment is deleted before its answers are moved.
      const trimming = this.#trimming.then(() => this.#trim(Math.min(through + 1, neededFrom())))
      this.#trimming = trimming.catch(() => undefined)
      await trimming
    } catch (error) {
      log.warn({ problem: problemOf(error) }, 'the position of the usage log cannot be stored')
    }
  }

  /** Resolves when what is to be deleted is deleted; everything below is the caller's to close. */
  trimmed(): Promise<void> {
    return this.#trimming
  }

  async #trim(needed: number): Promise<void> {
    const { segments, answers } = this.#parts
    await answers.takeBefore(segments.oldestAfter(needed))
    await segments.forget(needed)
  }
}
