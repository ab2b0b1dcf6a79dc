import type { Logger } from 'pino'
import type { AcknowledgedFile } from './acknowledged-file.ts'
import type { LocalAnswers } from './local-answers.ts'
import { encodeRecord, type LocalRecord } from './local-records.ts'
import type { SegmentLog } from './segment-log.ts'

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
  #failure: string | undefined

  constructor(parts: LocalJournalParts) {
    this.#parts = parts
  }

  /** What the last append failed with; undefined while all is well. */
  get failure(): string | undefined {
    return this.#failure
  }

  /** As {@link SegmentLog.append}; tells of the first failure, and of the end of failing. */
  async append(record: LocalRecord, durable: boolean, stored: (sequence: number) => void): Promise<void> {
    const { segments, log } = this.#parts
    try {
      await segments.append(encodeRecord(record), durable, stored)
      if (this.#failure !== undefined) log.info('usage log can be written again')
      this.#failure = undefined
    } catch (error) {
      const problem = problemOf(error)
      if (this.#failure === undefined) log.error({ problem }, 'usage log cannot be written')
      this.#failure = problem
      throw error
    }
  }

  /**
   * Every record up to `through` is in the ledger: keeps that position, and deletes the segments that nothing needs.
   * `neededFrom` tells the oldest record that is needed for another reason. Never throws: the entries are in the ledger,
   * and the worst that follows of a failure is that they are delivered once more.
   */
  async forget(through: number, neededFrom: () => number): Promise<void> {
    try {
      await this.#parts.acknowledged.store(through)
      // One after the other, so that no segment is deleted before its answers are moved.
      const trimming = this.#trimming.then(() => this.#trim(Math.min(through + 1, neededFrom())))
      this.#trimming = trimming.catch(() => undefined)
      await trimming
    } catch (error) {
      this.#parts.log.warn({ problem: problemOf(error) }, 'the position of the usage log cannot be stored')
    }
  }

  /** Resolves when what is to be deleted is deleted; everything below is the caller's to close. */
  settled(): Promise<void> {
    return this.#trimming
  }

  async #trim(needed: number): Promise<void> {
    const { segments, answers } = this.#parts
    await answers.takeBefore(segments.oldestAfter(needed))
    await segments.forget(needed)
  }
}

function problemOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown problem'
}
