import { join } from 'node:path'
import type { LocalClaims } from './local-claims.ts'
import { type AnswerRecord, encodeSettled, replayRecords } from './local-records.ts'
import { SegmentLog, type SegmentLogOptions } from './segment-log.ts'

/** Answers that are moved at once. */
const maxMoved = 1_000

/**
 * A second log for the answers that outlive their place in the first one. An answer is kept for a day, and a segment of
 * the usage log for seconds: were it kept for the sake of an answer, one idempotent call would keep a day of all calls,
 * on the disk and in the way of the next start. So what is still worth keeping is copied here before its segment is
 * deleted. Answers come in order and end in order; a segment here is deleted when its last answer ended.
 */
export class LocalAnswers {
  readonly #segments: SegmentLog
  readonly #claims: LocalClaims

  private constructor(segments: SegmentLog, claims: LocalClaims) {
    this.#segments = segments
    this.#claims = claims
  }

  /** Opens the log below the folder of the usage log, and keeps the answers that it holds. */
  static async open(options: Omit<SegmentLogOptions, 'atLeast'>, claims: LocalClaims): Promise<LocalAnswers> {
    const folder = join(options.folder, 'answers')
    const { segments, records } = await SegmentLog.open({ ...options, folder, atLeast: 1 })
    const { settled, unreadable } = replayRecords(records)
    for (const sequence of unreadable) options.log.error({ sequence }, 'an answer cannot be understood; it is left out')
    for (const { sequence, answer } of settled) if (answer !== undefined) claims.keepMoved(answer, sequence)
    return new LocalAnswers(segments, claims)
  }

  /** Resolves when every answer in a record of the usage log with a lower number than this is stored here. */
  async takeBefore(sequence: number): Promise<void> {
    this.#claims.expire()
    for (;;) {
      const answers = this.#claims.freshBefore(sequence, maxMoved)
      if (answers.length === 0) break
      await Promise.all(answers.map((answer) => this.#take(answer)))
    }
    await this.#segments.forget(this.#claims.oldestMoved ?? Number.POSITIVE_INFINITY)
  }

  #take({ key, fingerprint, untilMs, bytes }: AnswerRecord): Promise<void> {
    const answer = { key, fingerprint, untilMs, bytes }
    const record = encodeSettled({ id: '', events: [], answer })
    return this.#segments.append(record, (sequence) => this.#claims.move(answer, sequence))
  }

  close(): Promise<void> {
    return this.#segments.close()
  }
}
