import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs'
import { type FaultKind, faultKinds } from './faults.ts'
import type { PracticeUsage } from './usage.ts'

/** How a call went: as it should (delays included), with a fault, refused as unreadable, or left by the caller. */
export type PracticeOutcome = 'served' | 'rejected' | 'aborted' | Exclude<FaultKind, 'none'>

/** One line of the practice backend's log. */
export interface PracticeRecord {
  /** Number of the call, from 1, growing over restarts with the same file. An `aborted` line may repeat a number. */
  readonly seq: number
  /** ISO 8601, UTC. */
  readonly time: string
  /** `x-request-id` of the call; null when absent. */
  readonly requestId: string | null
  /** `x-tollgate-attempt-id` of the call; null when absent. */
  readonly attemptId: string | null
  readonly path: string
  /** Null when the request could not be read. */
  readonly model: string | null
  readonly stream: boolean
  readonly outcome: PracticeOutcome
  /** What the answer reports; null when it reports nothing. */
  readonly usage: PracticeUsage | null
  /** Tokens of text that this answer sends, or had sent when the caller went away. */
  readonly deliveredTokens: number
}

/**
 * Append-only log, JSON Lines. A line that {@link PracticeLog.append} returned from is with the operating system, so it
 * survives the end of the process; with `sync` it is on the disk. Writes block on purpose: no answer may overtake its line.
 */
export class PracticeLog {
  readonly #file: number
  readonly #sync: boolean
  #open = true
  /** Number of the last call in the file when it was opened; 0 for a new file. */
  readonly lastSeq: number

  /** Opens or creates the file. The half line that a crash may have left at its end is cut off. */
  constructor(path: string, sync: boolean) {
    this.#file = openSync(path, 'a+', 0o600)
    this.#sync = sync
    this.lastSeq = recoverEnd(this.#file)
  }

  /** Writes one line; throws what the file system throws. After {@link PracticeLog.close} it does nothing. */
  append(record: PracticeRecord): void {
    // The number of a closed file may belong to another one by now.
    if (!this.#open) return
    const line = Buffer.from(`${JSON.stringify(record)}\n`)
    let written = 0
    while (written < line.length) written += writeSync(this.#file, line, written)
    if (this.#sync) fdatasyncSync(this.#file)
  }

  /** Closes the file; once. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    closeSync(this.#file)
  }
}

/** All whole lines of a log, oldest first; empty when the file does not exist. Throws on a line that is not a record. */
export function readPracticeLog(path: string): PracticeRecord[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw error
  }
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line !== '')
    .map(parseRecord)
}

/** A line is far shorter than this: ids and models are clipped. */
const tailBytes = 64 * 1024

function recoverEnd(file: number): number {
  const { size } = fstatSync(file)
  const start = Math.max(0, size - tailBytes)
  const tail = Buffer.alloc(size - start)
  readSync(file, tail, 0, tail.length, start)
  const end = tail.lastIndexOf('\n') + 1
  if (end < tail.length) ftruncateSync(file, start + end)
  // Aborted lines may come late: the last line need not have the highest number.
  const lines = tail
    .subarray(0, end)
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '')
  return lines.slice(start === 0 ? 0 : 1).reduce((highest, line) => Math.max(highest, parseRecord(line).seq), 0)
}

function parseRecord(line: string): PracticeRecord {
  const value: unknown = JSON.parse(line)
  if (isRecord(value)) return value
  throw new Error('a line of the practice log is not a record')
}

function isRecord(value: unknown): value is PracticeRecord {
  if (typeof value !== 'object' || value === null) return false
  return 'seq' in value && typeof value.seq === 'number' && 'outcome' in value && outcomes.has(value.outcome)
}

const outcomes: ReadonlySet<unknown> = new Set(['served', 'rejected', 'aborted', ...faultKinds])
