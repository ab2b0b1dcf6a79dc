import type { AdmissionResult, Claim } from './limits.ts'
import type { AnswerRecord } from './local-records.ts'

/** Largest answer that is kept, if half of all answers' bytes allow it; the claim of a larger one is given up. */
const maxAnswerBytes = 16 * 1024 * 1024

/** What an answer takes in memory beside its own bytes, roughly. */
const overheadBytes = 400

export interface LocalClaimsOptions {
  /** Unix milliseconds. */
  readonly clock: () => number
  /** How long an answer is kept. */
  readonly ttlMs: number
  /** Bytes of all answers together; beyond it the oldest are dropped first. */
  readonly maxBytes: number
}

interface Running {
  readonly id: string
  readonly fingerprint: string
}

interface Kept extends AnswerRecord {
  /** Number of the record that holds it. */
  readonly sequence: number
}

/**
 * Who holds which claim, and the answers that claims keep. An answer is first in the record of its call's settlement;
 * when the log lets go of that, it is moved (see `local-answers.ts`). Both maps are in the order of settlement, and the
 * moved ones are older.
 */
export class LocalClaims {
  readonly #options: LocalClaimsOptions
  readonly #running = new Map<string, Running>()
  readonly #moved = new Map<string, Kept>()
  readonly #fresh = new Map<string, Kept>()
  #bytes = 0

  constructor(options: LocalClaimsOptions) {
    this.#options = options
  }

  /** What a call with this claim gets in place of admission; undefined when the claim is free or its own. */
  look({ key, fingerprint }: Claim, id: string): AdmissionResult | undefined {
    const running = this.#running.get(key)
    if (running !== undefined) {
      if (running.id === id) return undefined
      return running.fingerprint === fingerprint ? { outcome: 'running' } : { outcome: 'mismatch' }
    }
    const kept = this.#fresh.get(key) ?? this.#moved.get(key)
    if (kept === undefined || kept.untilMs <= this.#options.clock()) return undefined
    return kept.fingerprint === fingerprint ? { outcome: 'answered', answer: kept.bytes } : { outcome: 'mismatch' }
  }

  /** Takes a claim that is free. */
  take({ key, fingerprint }: Claim, id: string): void {
    this.#running.set(key, { id, fingerprint })
  }

  /** Gives a claim up, if there is one and this call holds it. */
  free(claim: Claim | undefined, id: string): void {
    if (claim !== undefined && this.#running.get(claim.key)?.id === id) this.#running.delete(claim.key)
  }

  /** What a claim is to keep: nothing without a claim, without an answer, or of one that is too large. */
  answerOf(claim: Claim | undefined, bytes: Uint8Array | undefined): AnswerRecord | undefined {
    if (claim === undefined || bytes === undefined) return undefined
    if (bytes.length > Math.min(maxAnswerBytes, this.#options.maxBytes / 2)) return undefined
    const { key, fingerprint } = claim
    // A copy: the caller's bytes may be a small part of something large.
    return { key, fingerprint, untilMs: this.#options.clock() + this.#options.ttlMs, bytes: Uint8Array.from(bytes) }
  }

  /** Keeps an answer, which is stored in the record with this number. */
  keep(answer: AnswerRecord, sequence: number): void {
    this.#keep(this.#fresh, answer, sequence)
  }

  /** Up to `most` answers whose records in the usage log have numbers below this one, oldest first. */
  freshBefore(sequence: number, most: number): AnswerRecord[] {
    const found: AnswerRecord[] = []
    for (const kept of this.#fresh.values()) {
      if (kept.sequence >= sequence || found.length === most) break
      found.push(kept)
    }
    return found
  }

  /** An answer is now stored in the record with this number of the answers' own log; it may be gone meanwhile. */
  move(answer: AnswerRecord, sequence: number): void {
    if (this.#fresh.get(answer.key)?.bytes === answer.bytes) this.#keep(this.#moved, answer, sequence)
  }

  /** As {@link move}, of an answer that was found there at start. */
  keepMoved(answer: AnswerRecord, sequence: number): void {
    this.#keep(this.#moved, answer, sequence)
  }

  /** Number of the oldest moved record that is still kept. */
  get oldestMoved(): number | undefined {
    const [oldest] = this.#moved.values()
    return oldest?.sequence
  }

  /** Forgets the answers whose time is over. */
  expire(): void {
    for (const map of [this.#moved, this.#fresh]) {
      for (const { key, untilMs } of map.values()) {
        if (untilMs > this.#options.clock()) break
        this.#drop(key)
      }
    }
  }

  #keep(map: Map<string, Kept>, answer: AnswerRecord, sequence: number): void {
    this.#drop(answer.key)
    map.set(answer.key, { ...answer, sequence })
    this.#bytes += sizeOf(answer)
    if (this.#bytes > this.#options.maxBytes) this.#makeRoom()
  }

  /** Drops an eighth at once: to look for the oldest one of a map passes over all that were deleted before. */
  #makeRoom(): void {
    for (const map of [this.#moved, this.#fresh]) {
      for (const key of map.keys()) {
        if (this.#bytes <= this.#options.maxBytes * 0.875) return
        this.#drop(key)
      }
    }
  }

  #drop(key: string): void {
    for (const map of [this.#moved, this.#fresh]) {
      const kept = map.get(key)
      if (kept === undefined) continue
      map.delete(key)
      this.#bytes -= sizeOf(kept)
    }
  }
}

function sizeOf({ key, fingerprint, bytes }: AnswerRecord): number {
  return bytes.length + key.length + fingerprint.length + overheadBytes
}
