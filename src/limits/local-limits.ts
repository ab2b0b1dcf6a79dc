import { mkdir } from 'node:fs/promises'
import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { AcknowledgedFile } from './acknowledged-file.ts'
import { admit, release, remind, states } from './buckets.ts'
import { encodeFields } from './event-codec.ts'
import type {
  Admission,
  AdmissionResult,
  Correction,
  Limit,
  LimitState,
  Limits,
  PeriodSeed,
  Settled,
  Settlement,
} from './limits.ts'
import { LocalAnswers } from './local-answers.ts'
import { LocalCalls, type OpenCall } from './local-calls.ts'
import { LocalClaims } from './local-claims.ts'
import { LocalCounters } from './local-counters.ts'
import { LocalJournal } from './local-journal.ts'
import { replayRecords } from './local-records.ts'
import { LocalSettlements, microsOf } from './local-settlements.ts'
import { LocalUsageLog } from './local-usage-log.ts'
import { SegmentLog, type SegmentLogOptions, type StoredRecord } from './segment-log.ts'
import { ToldFile } from './told-file.ts'
import { UsageLogHealth } from './usage-log-health.ts'

export interface LocalLimitsOptions {
  /** Of this process alone; made when it is missing. */
  readonly folder: string
  readonly seed: PeriodSeed
  readonly log: Logger
  /** Unix milliseconds. Default Date.now. */
  readonly clock?: () => number
  /** Time after which an entry that its reader did not acknowledge is delivered again. Default 5 seconds. */
  readonly reclaimIdleMs?: number
  /** Events that wait for the ledger, at which admission stops. Default 200,000, about 80 MB. */
  readonly maxBacklog?: number
  /** How long a claim keeps its answer. Default 24 hours. */
  readonly answerTtlMs?: number
  /** Bytes of all answers in memory; beyond it the oldest are dropped first. Default 64 MiB. */
  readonly answersMaxBytes?: number
  /** Size of a segment file. Default 16 MiB. */
  readonly segmentBytes?: number
  /** How segment files are opened; tests give files that fail. */
  readonly openFile?: SegmentLogOptions['openFile']
}

/**
 * {@link Limits} of one process, without Redis: counters in memory, the usage log in segment files.
 *
 * - A settlement resolves after its events and its answer are on the disk, in one record. An admission resolves after it
 *   is handed to the file system, so it survives the death of the process, and not of the machine.
 * - At start, settled events that were not acknowledged are delivered again; calls that were in flight are recorded as
 *   abandoned at once and their claims are free, because the process that held them is dead; claims of answered calls
 *   keep their answers. Buckets start full and concurrencies at 0.
 * - What was told of thresholds is on the disk before anybody hears of it, so it is told once, or, if the process dies
 *   just then, not at all.
 * - Period counters are unknown at start. A seed is asked with the events that are not acknowledged, so the ledger counts
 *   each event once, whether it has it already or not.
 * - When the log cannot be written, settlements fail with STORAGE_UNAVAILABLE and admissions with LIMITS_UNAVAILABLE;
 *   each attempt tries the disk again, so it ends by itself.
 * - An answer larger than 16 MiB, or than half of `answersMaxBytes`, is not kept: a repetition is a new call.
 *
 * Throws when another living process uses the folder.
 */
export async function createLocalLimits(options: LocalLimitsOptions): Promise<Limits> {
  // Kept answers are in it, and they are callers' own.
  await mkdir(options.folder, { recursive: true, mode: 0o700 })
  const closers = [await lockFolder(options.folder)]
  try {
    const acknowledged = await AcknowledgedFile.open(options.folder)
    const segmentOptions = {
      folder: options.folder,
      log: options.log,
      ...(options.segmentBytes === undefined ? {} : { segmentBytes: options.segmentBytes }),
      ...(options.openFile === undefined ? {} : { openFile: options.openFile }),
    }
    const claims = new LocalClaims({
      clock: options.clock ?? Date.now,
      ttlMs: options.answerTtlMs ?? 86_400_000,
      maxBytes: options.answersMaxBytes ?? 64 * 1024 * 1024,
    })
    const answers = await LocalAnswers.open(segmentOptions, claims)
    closers.unshift(() => answers.close())
    const health = new UsageLogHealth(options.log)
    const { segments, records } = await SegmentLog.open({
      ...segmentOptions,
      atLeast: acknowledged.through + 1,
      watcher: health,
    })
    closers.unshift(() => segments.close())
    const told = await ToldFile.open(options.folder, (options.clock ?? Date.now)())
    closers.unshift(() => told.close())
    const journal = new LocalJournal({ segments, acknowledged, answers, log: options.log })
    const limits = new LocalLimits(options, { journal, health, told, through: acknowledged.through, claims, closers })
    await limits.replay(records, acknowledged.through)
    return limits
  } catch (error) {
    for (const close of closers) await close()
    throw error
  }
}

interface Parts {
  readonly journal: LocalJournal
  readonly health: UsageLogHealth
  readonly told: ToldFile
  /** Every record up to this number is acknowledged. */
  readonly through: number
  readonly claims: LocalClaims
  /** In the order of closing. */
  readonly closers: readonly (() => Promise<void>)[]
}

const evictEveryMs = 60_000
/** Events in one record of a correction, so that a large one fits. */
const maxCorrectionEvents = 100

class LocalLimits implements Limits {
  readonly usageLog: LocalUsageLog
  readonly #options: LocalLimitsOptions
  readonly #journal: LocalJournal
  readonly #health: UsageLogHealth
  readonly #closers: Parts['closers']
  readonly #claims: LocalClaims
  readonly #clock: () => number
  readonly #counters: LocalCounters
  readonly #calls = new LocalCalls()
  readonly #settlements: LocalSettlements
  #evictedAt: number

  constructor(options: LocalLimitsOptions, parts: Parts) {
    this.#options = options
    this.#journal = parts.journal
    this.#health = parts.health
    this.#closers = parts.closers
    this.#claims = parts.claims
    this.#clock = options.clock ?? Date.now
    this.#evictedAt = this.#clock()
    this.usageLog = new LocalUsageLog(
      {
        clock: this.#clock,
        reclaimIdleMs: options.reclaimIdleMs ?? 5_000,
        sweep: () => this.#sweep(),
        acknowledgedThrough: (sequence) => this.#journal.forget(sequence, () => this.#calls.oldestSequence()),
      },
      parts.through,
    )
    this.#counters = new LocalCounters({
      seed: options.seed,
      waiting: (limit) => this.usageLog.waitingFor(limit),
    })
    for (const period of parts.told.periods()) remind(this.#counters, period.key, period)
    this.#settlements = new LocalSettlements({
      journal: this.#journal,
      usageLog: this.usageLog,
      counters: this.#counters,
      calls: this.#calls,
      claims: this.#claims,
      told: parts.told,
      log: options.log,
      clock: this.#clock,
    })
  }

  /** Takes up what the log holds from earlier processes. */
  async replay(records: readonly StoredRecord[], through: number): Promise<void> {
    const { log } = this.#options
    const { open, settled, unreadable } = replayRecords(records)
    for (const sequence of unreadable) {
      log.error({ sequence }, 'usage log holds a record that cannot be understood; it is left out')
    }
    for (const { sequence, events, answer } of settled) {
      if (answer !== undefined) this.#claims.keep(answer, sequence)
      if (sequence > through) this.usageLog.add(sequence, events.map(encodeFields))
    }
    await Promise.all([...open].map(([id, event]) => this.#settlements.record({ id, events: [event] })))
    if (open.size > 0) log.warn({ calls: open.size }, 'calls of a process that died are recorded as abandoned')
  }

  async admit(admission: Admission): Promise<AdmissionResult> {
    const { id, costs, claim } = admission
    for (;;) {
      // Asked twice, for example after a lost answer: it is in already, or about to be.
      const known = this.#calls.get(id)
      if (known?.opening !== undefined) {
        await known.opening.catch(() => undefined)
        continue
      }
      if (known !== undefined || this.#settlements.has(id)) return this.#admittedBefore(admission)
      // Looked at again after every wait: what follows it happens in one step.
      const taken = claim === undefined ? undefined : this.#claims.look(claim, id)
      if (taken !== undefined) return taken
      if (this.usageLog.size >= (this.#options.maxBacklog ?? 200_000)) {
        throw new TollgateError('LIMITS_UNAVAILABLE', 'too much usage waits to be recorded')
      }
      if (!this.#journal.isReady) {
        await this.#journal.makeReady().catch((error: unknown) => {
          throw unavailable(error)
        })
        continue
      }
      const verdict = admit(this.#counters, costs, this.#nowMicros())
      if (verdict.kind === 'unseeded') {
        await this.#counters.know(costs.map((cost) => cost.limit))
        continue
      }
      if (verdict.kind === 'refused') {
        const { refusedBy, retryAfterMs, limits } = verdict
        return { outcome: 'refused', refusedBy, retryAfterMs, limits }
      }
      await this.#open(admission)
      return { outcome: 'admitted', limits: verdict.limits }
    }
  }

  settle(settlement: Settlement): Promise<Settled> {
    return this.#settlements.settle(settlement)
  }

  async correct({ events, counters }: Correction): Promise<void> {
    const records: Promise<void>[] = []
    for (let from = 0; from < events.length; from += maxCorrectionEvents) {
      const part = events.slice(from, from + maxCorrectionEvents)
      records.push(this.#settlements.record({ id: '', events: part }))
    }
    try {
      await Promise.all(records)
    } finally {
      // Also after a failure: nobody knows what of it was stored.
      this.#counters.forget(counters, this.#nowMicros())
    }
  }

  async read(limits: readonly Limit[]): Promise<LimitState[]> {
    await this.#counters.know(limits)
    return states(this.#counters, limits, this.#nowMicros())
  }

  async health(): Promise<{ ok: boolean; detail: string }> {
    const { failure } = this.#health
    if (failure !== undefined) return { ok: false, detail: `usage log cannot be written: ${failure}` }
    return { ok: true, detail: 'in process, usage log in segment files' }
  }

  async close(): Promise<void> {
    this.usageLog.close()
    await this.#journal.trimmed()
    for (const close of this.#closers) await close()
  }

  async #admittedBefore({ costs }: Admission): Promise<AdmissionResult> {
    return { outcome: 'admitted', limits: await this.read(costs.map((cost) => cost.limit)) }
  }

  /** Writes down that a call was admitted, whose cost is taken; gives all of it back when that fails. */
  #open(admission: Admission): Promise<void> {
    const { id, costs, claim, ifAbandoned } = admission
    const call: OpenCall = {
      admission,
      leaseEndMs: this.#clock() + admission.leaseMs,
      sequence: Number.POSITIVE_INFINITY,
      opening: undefined,
      closing: undefined,
      abandonedAtMs: undefined,
    }
    this.#calls.set(id, call)
    this.#counters.learn(costs)
    if (claim !== undefined) this.#claims.take(claim, id)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    call.opening = promise
    this.#journal.admitted(id, ifAbandoned, {
      stored(sequence) {
        call.sequence = sequence
        call.opening = undefined
        resolve()
      },
      failed: (error) => {
        this.#calls.delete(id)
        this.#claims.free(claim, id)
        release(this.#counters, costs, this.#nowMicros())
        reject(unavailable(error))
      },
    })
    return promise
  }

  async #sweep(): Promise<number> {
    const now = this.#clock()
    const closing = this.#calls.due(now).map((call) => this.#settlements.abandon(call, now))
    if (now - this.#evictedAt >= evictEveryMs) {
      this.#evictedAt = now
      this.#counters.evict(now)
      this.#claims.expire()
    }
    // What could not be written stays open, and the next sweep tries again.
    const results = await Promise.allSettled(closing)
    return results.filter((result) => result.status === 'fulfilled').length
  }

  #nowMicros(): number {
    return microsOf(this.#clock())
  }
}

function unavailable(cause: unknown): TollgateError {
  return new TollgateError('LIMITS_UNAVAILABLE', 'usage cannot be recorded at the moment', { cause })
}
