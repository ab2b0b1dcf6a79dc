import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { correctionIds, correctionOf } from '../metering/correction.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { abandon, settle } from './buckets.ts'
import { encodeFields } from './event-codec.ts'
import { type Admission, type LimitCost, nothingCrossed, type Settled, type Settlement } from './limits.ts'
import type { LocalCalls, OpenCall } from './local-calls.ts'
import type { LocalClaims } from './local-claims.ts'
import type { LocalCounters } from './local-counters.ts'
import type { LocalJournal } from './local-journal.ts'
import type { AnswerRecord, SettledRecord } from './local-records.ts'
import type { LocalUsageLog } from './local-usage-log.ts'
import { RecentIds } from './recent-ids.ts'
import type { ToldFile } from './told-file.ts'

export interface LocalSettlementsParts {
  readonly journal: LocalJournal
  readonly usageLog: LocalUsageLog
  readonly counters: LocalCounters
  readonly calls: LocalCalls
  readonly claims: LocalClaims
  readonly told: ToldFile
  readonly log: Logger
  /** Unix milliseconds. */
  readonly clock: () => number
}

const settledKeepMs = 600_000
/** A call is settled twice when somebody tries again at once, if at all. */
const settledMost = 100_000

/** How calls of one process end: settled, or abandoned, with a record on its way to the ledger. */
export class LocalSettlements {
  readonly #parts: LocalSettlementsParts
  readonly #strangers = new Map<string, Promise<void>>()
  readonly #settled: RecentIds

  constructor(parts: LocalSettlementsParts) {
    this.#parts = parts
    this.#settled = new RecentIds(parts.clock, settledKeepMs, settledMost)
  }

  /** Whether the call with this id was settled lately. */
  has(id: string): boolean {
    return this.#settled.has(id)
  }

  settle(settlement: Settlement): Promise<Settled> {
    const call = this.#parts.calls.get(settlement.admission.id)
    if (call === undefined) return this.#settleUnknown(settlement)
    if (call.closing !== undefined) return this.#settleAfter(call.closing, settlement)
    if (call.abandonedAtMs === undefined) return this.#settleOpen(call, settlement)
    return whileClosing(call, this.#settleLate(settlement))
  }

  /** Records that the lease of a call ran out; it is kept for a late settlement. */
  abandon(call: OpenCall, now: number): Promise<Settled> {
    return whileClosing(call, this.#abandon(call, now))
  }

  /**
   * Appends what is on its way to the ledger. Resolves when it is on the disk; counters follow in the same step: those of
   * `counted` as `stored` moves them, all others by their next seed. Rejects with STORAGE_UNAVAILABLE.
   */
  record(
    { id, events, answer }: SettledRecord,
    counted: readonly LimitCost[] = [],
    stored?: (sequence: number) => void,
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const texts = events.map(encodeFields)
    this.#parts.journal.settled(
      { id, events: texts, answer },
      {
        stored: (sequence) => {
          this.#recorded(sequence, events, texts, counted)
          stored?.(sequence)
          resolve()
        },
        failed: (cause) => reject(unrecorded(cause)),
      },
    )
    return promise
  }

  async #settleUnknown(settlement: Settlement): Promise<Settled> {
    if (!this.#settled.has(settlement.admission.id)) await this.#settleStranger(settlement)
    return nothingCrossed
  }

  /** The other settlement won, or the lease ran out, unless that fails; then so does this. */
  async #settleAfter(closing: Promise<Settled>, settlement: Settlement): Promise<Settled> {
    await closing
    return this.settle(settlement)
  }

  #settleOpen(call: OpenCall, { admission, actual, event, answer: bytes }: Settlement): Promise<Settled> {
    const { id, costs, claim } = admission
    const answer = this.#parts.claims.answerOf(claim, bytes)
    const [events, texts] = [[event], [encodeFields(event)]]
    const { promise, resolve, reject } = Promise.withResolvers<Settled>()
    call.closing = promise
    this.#parts.journal.settled(
      { id, events: texts, answer },
      {
        stored: (sequence) => {
          this.#recorded(sequence, events, texts, costs)
          const crossed = this.#settleCosts(costs, actual)
          this.#end(admission, answer, sequence)
          resolve(crossed.length === 0 ? nothingCrossed : this.#tell(crossed))
        },
        failed(cause) {
          call.closing = undefined
          reject(unrecorded(cause))
        },
      },
    )
    return promise
  }

  #settleCosts(costs: readonly LimitCost[], actual: readonly number[]): Settled['crossed'] {
    const passed = settle(this.#parts.counters, costs, actual, this.#nowMicros())
    if (passed.length === 0) return nothingCrossed.crossed
    return passed.flatMap(({ index, used, threshold }) => {
      const limit = costs[index]?.limit
      return limit?.kind === 'period' ? [{ limit, used, threshold }] : []
    })
  }

  async #tell(crossed: Settled['crossed']): Promise<Settled> {
    const { told, log } = this.#parts
    try {
      await told.tell(crossed)
    } catch (error) {
      log.warn({ err: error }, 'a told threshold cannot be stored; after a restart it is told again')
    }
    return { crossed }
  }

  /**
   * The call stands in the log as abandoned: two entries correct that. Its periods follow the ledger, its buckets are
   * corrected here, and its concurrency was given back when its lease ran out.
   */
  async #settleLate(settlement: Settlement): Promise<Settled> {
    const { counters } = this.#parts
    const { admission, actual, event } = settlement
    const correction = correctionOf(admission.ifAbandoned, event, correctionIds(admission.ifAbandoned.id))
    await this.#recordLate(settlement, correction)
    admission.costs.forEach((cost, index) => {
      if (cost.limit.kind !== 'bucket') return
      settle(counters, [cost], [actual[index] ?? cost.amount], this.#nowMicros())
    })
    counters.learn(admission.costs)
    return nothingCrossed
  }

  /** A call that this store does not know, or not any more: its event counts, and nothing is held for it. */
  async #settleStranger(settlement: Settlement): Promise<void> {
    const { id } = settlement.admission
    const running = this.#strangers.get(id)
    if (running !== undefined) return running
    const recording = this.#recordLate(settlement, [settlement.event]).finally(() => this.#strangers.delete(id))
    this.#strangers.set(id, recording)
    return recording
  }

  /** Of a call that holds nothing any more. Its claim is taken again for the answer, unless somebody else has it. */
  async #recordLate({ admission, answer: bytes }: Settlement, events: readonly UsageEvent[]): Promise<void> {
    const { claims } = this.#parts
    const { id, claim } = admission
    const isFree = claim !== undefined && claims.look(claim, id) === undefined
    const answer = isFree ? claims.answerOf(claim, bytes) : undefined
    if (isFree) claims.take(claim, id)
    try {
      await this.record({ id, events, answer }, [], (sequence) => {
        this.#end(admission, answer, sequence)
      })
    } catch (error) {
      claims.free(claim, id)
      throw error
    }
  }

  #end({ id, claim }: Admission, answer: AnswerRecord | undefined, sequence: number): void {
    const { calls, claims } = this.#parts
    calls.delete(id)
    this.#settled.add(id)
    claims.free(claim, id)
    if (answer !== undefined) claims.keep(answer, sequence)
  }

  async #abandon(call: OpenCall, now: number): Promise<Settled> {
    const { counters, claims } = this.#parts
    const { id, costs, claim, ifAbandoned } = call.admission
    await this.record({ id, events: [ifAbandoned] }, costs, () => {
      abandon(counters, costs, this.#nowMicros())
      claims.free(claim, id)
      call.abandonedAtMs = now
    })
    return nothingCrossed
  }

  /** Events became durable: the ledger is told, and all counters but those of `counted` follow by their next seed. */
  #recorded(
    sequence: number,
    events: readonly UsageEvent[],
    texts: readonly string[],
    counted: readonly LimitCost[],
  ): void {
    const { usageLog, counters } = this.#parts
    usageLog.add(sequence, texts)
    for (const event of events) counters.follow(event, counted, this.#nowMicros())
  }

  #nowMicros(): number {
    return microsOf(this.#parts.clock())
  }
}

/** What the counters have for this time. */
export function microsOf(unixMs: number): number {
  return Math.floor(unixMs * 1_000)
}

function unrecorded(cause: unknown): TollgateError {
  return new TollgateError('STORAGE_UNAVAILABLE', 'usage cannot be recorded at the moment', { cause })
}

function whileClosing(call: OpenCall, closing: Promise<Settled>): Promise<Settled> {
  call.closing = closing
  const over = (): void => {
    call.closing = undefined
  }
  closing.then(over, over)
  return closing
}
