import { mkdir } from 'node:fs/promises'
import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { AcknowledgedFile } from './acknowledged-file.ts'
import type { Settlement } from './limits.ts'
import { isUnreachable } from './redis-scripts.ts'
import { SegmentLog, type StoredRecord } from './segment-log.ts'
import { decodeSettlement, encodeSettlement } from './settlement-codec.ts'

export interface LateSettlementsOptions {
  /** Of this process alone; made when it is missing. */
  readonly folder: string
  readonly log: Logger
  /** Settlements that may wait at once; beyond it they are refused. Default 100,000. */
  readonly most?: number
  /** Bytes of answers that wait with them; beyond it a settlement waits without its answer. Default 64 MiB. */
  readonly answersMaxBytes?: number
}

const settledAtOnce = 32

/**
 * The settlements of calls that the shared store admitted and could not settle, because it was away: on disk, until it
 * has settled them. They are not in the ledger before: only the shared store knows what became of the reservation
 * meanwhile, and a settlement may be repeated there any number of times.
 */
export class LateSettlements {
  readonly #options: LateSettlementsOptions
  readonly #segments: SegmentLog
  readonly #acknowledged: AcknowledgedFile
  readonly #waiting = new Map<string, Settlement>()
  readonly #adding = new Map<string, Promise<void>>()
  #answerBytes = 0
  /** Number of the last record. */
  #last: number
  #settling: Promise<number> | undefined

  private constructor(options: LateSettlementsOptions, segments: SegmentLog, acknowledged: AcknowledgedFile) {
    this.#options = options
    this.#segments = segments
    this.#acknowledged = acknowledged
    this.#last = acknowledged.through
  }

  /** Takes up what an earlier process left. */
  static async open(options: LateSettlementsOptions): Promise<LateSettlements> {
    const { folder, log } = options
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const acknowledged = await AcknowledgedFile.open(folder)
    const { segments, records } = await SegmentLog.open({ folder, log, atLeast: acknowledged.through + 1 })
    const late = new LateSettlements(options, segments, acknowledged)
    late.#replay(records)
    return late
  }

  get size(): number {
    return this.#waiting.size
  }

  /** Resolves when the settlement is durable; throws LIMITS_UNAVAILABLE when too many wait, and STORAGE_UNAVAILABLE. */
  async add(settlement: Settlement): Promise<void> {
    const { id } = settlement.admission
    if (this.#waiting.has(id)) return
    let adding = this.#adding.get(id)
    if (adding === undefined) {
      adding = this.#append(settlement).finally(() => this.#adding.delete(id))
      this.#adding.set(id, adding)
    }
    await adding
  }

  /**
   * Settles all that wait, some at once, and returns how many. Throws what `settle` throws: at once when the shared
   * store is away, else after all were tried. Those that failed wait on.
   */
  settleAll(settle: (settlement: Settlement) => Promise<unknown>): Promise<number> {
    this.#settling ??= this.#settleAll(settle).finally(() => {
      this.#settling = undefined
    })
    return this.#settling
  }

  async close(): Promise<void> {
    await this.#segments.close()
  }

  async #append(settlement: Settlement): Promise<void> {
    const { most = 100_000, answersMaxBytes = 64 * 1024 * 1024 } = this.#options
    if (this.#waiting.size + this.#adding.size >= most) {
      throw new TollgateError('LIMITS_UNAVAILABLE', 'too many calls wait to be settled')
    }
    const { answer, ...rest } = settlement
    const isKept = answer !== undefined && this.#answerBytes + answer.length <= answersMaxBytes
    const kept: Settlement = isKept ? settlement : rest
    try {
      await this.#segments.append(encodeSettlement(kept), (sequence) => this.#hold(kept, sequence))
    } catch (cause) {
      throw new TollgateError('STORAGE_UNAVAILABLE', 'usage cannot be recorded at the moment', { cause })
    }
  }

  #hold(settlement: Settlement, sequence: number): void {
    this.#last = sequence
    this.#waiting.set(settlement.admission.id, settlement)
    this.#answerBytes += settlement.answer?.length ?? 0
  }

  #replay(records: readonly StoredRecord[]): void {
    for (const { sequence, payload } of records) {
      if (sequence <= this.#acknowledged.through) continue
      const settlement = decodeSettlement(payload)
      if (settlement !== undefined) this.#hold(settlement, sequence)
      else this.#options.log.error({ sequence }, 'a late settlement cannot be understood; its lease will settle it')
    }
  }

  async #settleAll(settle: (settlement: Settlement) => Promise<unknown>): Promise<number> {
    let count = 0
    let failure: PromiseRejectedResult | undefined
    const all = [...this.#waiting.values()]
    for (let from = 0; from < all.length && !isUnreachable(failure?.reason); from += settledAtOnce) {
      const some = all.slice(from, from + settledAtOnce)
      const results = await Promise.allSettled(some.map(settle))
      results.forEach((result, index) => {
        const settlement = some[index]
        if (result.status === 'rejected') failure = result
        else if (settlement !== undefined) {
          this.#release(settlement)
          count += 1
        }
      })
    }
    await this.#forget()
    if (failure !== undefined) throw failure.reason
    return count
  }

  #release({ admission, answer }: Settlement): void {
    this.#waiting.delete(admission.id)
    this.#answerBytes -= answer?.length ?? 0
  }

  /** When none waits, the files are not needed any more; until then, those that are settled may be settled again. */
  async #forget(): Promise<void> {
    if (this.#waiting.size > 0 || this.#last === this.#acknowledged.through) return
    const last = this.#last
    this.#acknowledged.store(last)
    await this.#segments.forget(last + 1)
  }
}
