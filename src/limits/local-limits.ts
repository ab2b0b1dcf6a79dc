import { mkdir } from 'node:fs/promises'
import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { AcknowledgedFile } from './acknowledged-file.ts'
import { admit, settle, states, unseeded } from './buckets.ts'
import type {
  Admission,
  AdmissionResult,
  Limit,
  LimitCost,
  LimitState,
  Limits,
  PeriodSeed,
  Settlement,
} from './limits.ts'
import { decodeRecord, encodeRecord, type PeriodUse, periodUses } from './local-records.ts'
import { LocalSlots, scoped } from './local-slots.ts'
import { LocalUsageLog } from './local-usage-log.ts'
import { RecentIds } from './recent-ids.ts'
import { Seeds } from './seeds.ts'
import { SegmentLog, type SegmentLogOptions, type StoredRecord } from './segment-log.ts'

export interface LocalLimitsOptions {
  /** Of this process alone; made when it is missing. */
  readonly folder: string
  readonly seed: PeriodSeed
  readonly log: Logger
  /** Unix milliseconds. Default Date.now. */
  readonly clock?: () => number
  /** Time after which an entry that its reader did not acknowledge is delivered again. Default 5 seconds. */
  readonly reclaimIdleMs?: number
  /** Events that wait for the ledger, at which admission stops. Default 200,000, about 200 MB. */
  readonly maxBacklog?: number
  /** Size of a segment file. Default 16 MiB. */
  readonly segmentBytes?: number
  /** How segment files are opened; tests give files that fail. */
  readonly openFile?: SegmentLogOptions['openFile']
}

/**
 * {@link Limits} of one process, without Redis: counters in memory, the usage log in segment files.
 *
 * - A settlement resolves after its event is on the disk. An admission resolves after it is handed to the file system,
 *   so it survives the death of the process, and not of the machine.
 * - At start, settled events that were not acknowledged are delivered again, and calls that were in flight are recorded
 *   as abandoned at once, because the process that held them is dead. Buckets start full.
 * - Period counters start from the ledger when they are first used, plus the replayed events of that period that are
 *   not acknowledged yet. To be exact, the caller lets the ledger take the whole backlog before it serves; otherwise an
 *   event that is in the ledger but not yet acknowledged counts twice until the period ends: too strict, never too lax.
 * - When the log cannot be written, settlements fail with STORAGE_UNAVAILABLE and admissions with LIMITS_UNAVAILABLE;
 *   each attempt tries the disk again, so it ends by itself.
 *
 * Throws when another living process uses the folder.
 */
export async function createLocalLimits(options: LocalLimitsOptions): Promise<Limits> {
  await mkdir(options.folder, { recursive: true })
  const unlock = await lockFolder(options.folder)
  try {
    const acknowledged = await AcknowledgedFile.open(options.folder)
    const { segments, records } = await SegmentLog.open({
      folder: options.folder,
      log: options.log,
      atLeast: acknowledged.through + 1,
      ...(options.segmentBytes === undefined ? {} : { segmentBytes: options.segmentBytes }),
      ...(options.openFile === undefined ? {} : { openFile: options.openFile }),
    })
    const limits = new LocalLimits(options, segments, acknowledged, unlock)
    try {
      await limits.replay(records)
    } catch (error) {
      await segments.close()
      throw error
    }
    return limits
  } catch (error) {
    await unlock()
    throw error
  }
}

interface Reservation {
  readonly organizationId: string
  readonly costs: readonly LimitCost[]
  readonly leaseEndMs: number
  readonly ifAbandoned: UsageEvent
  /** Number of its record, once that is written. */
  sequence: number | undefined
  /** Its settlement or abandonment, while that is being written. */
  closing: Promise<void> | undefined
  /** When it was recorded as abandoned; it is kept for a late settlement. */
  abandonedAtMs: number | undefined
}

/** A replayed event that the ledger may not know, and what it took from a period. */
interface Carried {
  readonly sequence: number
  readonly key: string
  readonly units: number
}

const settledKeepMs = 600_000
const settledMost = 1_000_000
const abandonedKeepMs = 86_400_000
const evictEveryMs = 60_000

class LocalLimits implements Limits {
  readonly usageLog: LocalUsageLog
  readonly #options: LocalLimitsOptions
  readonly #clock: () => number
  readonly #segments: SegmentLog
  readonly #acknowledged: AcknowledgedFile
  readonly #unlock: () => Promise<void>
  readonly #seeds: Seeds
  readonly #slots = new LocalSlots()
  readonly #reservations = new Map<string, Reservation>()
  readonly #strangers = new Map<string, Promise<void>>()
  readonly #settled: RecentIds
  #carried: Carried[] = []
  #failure: string | undefined
  #evictedAt: number

  constructor(
    options: LocalLimitsOptions,
    segments: SegmentLog,
    acknowledged: AcknowledgedFile,
    unlock: () => Promise<void>,
  ) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
    this.#segments = segments
    this.#acknowledged = acknowledged
    this.#unlock = unlock
    this.#seeds = new Seeds(options.seed)
    this.#settled = new RecentIds(this.#clock, settledKeepMs, settledMost)
    this.#evictedAt = this.#clock()
    this.usageLog = new LocalUsageLog(
      {
        clock: this.#clock,
        reclaimIdleMs: options.reclaimIdleMs ?? 5_000,
        sweep: () => this.#sweep(),
        acknowledgedThrough: (sequence) => this.#forget(sequence),
      },
      acknowledged.through,
    )
  }

  /** Takes up what the log holds from earlier processes. */
  async replay(records: readonly StoredRecord[]): Promise<void> {
    const open = new Map<string, { event: UsageEvent; periods: readonly PeriodUse[] }>()
    for (const { sequence, payload } of records) {
      const record = decodeRecord(payload)
      if (record === undefined) {
        this.#options.log.error({ sequence }, 'usage log holds a record that cannot be understood; it is left out')
      } else if (record.type === 'admitted') {
        open.set(record.id, record)
      } else {
        open.delete(record.id)
        if (sequence > this.#acknowledged.through) this.#deliver(sequence, record.event, record.periods)
      }
    }
    const abandoned = [...open].map(([id, { event, periods }]) => this.#record(id, event, periods, true))
    await Promise.all(abandoned)
    if (abandoned.length > 0) {
      this.#options.log.warn({ calls: abandoned.length }, 'calls of a process that died are recorded as abandoned')
    }
  }

  async admit(admission: Admission): Promise<AdmissionResult> {
    const { id, organizationId, costs } = admission
    const slots = this.#slots.of(organizationId)
    await this.#seed(
      organizationId,
      costs.map((cost) => cost.limit),
    )
    // Asked twice, for example after a lost answer: it is in already.
    if (this.#reservations.has(id) || this.#settled.has(id)) {
      return { admitted: true, limits: states(slots, costs, this.#nowMicros()) }
    }
    if (this.usageLog.size >= (this.#options.maxBacklog ?? 200_000)) {
      throw new TollgateError('LIMITS_UNAVAILABLE', 'too much usage waits to be recorded')
    }
    const verdict = admit(slots, costs, this.#nowMicros())
    if (verdict.kind === 'unseeded') throw new TollgateError('LIMITS_UNAVAILABLE', 'usage of the period is not known')
    if (verdict.kind === 'refused') {
      const { refusedBy, retryAfterMs, limits } = verdict
      return { admitted: false, refusedBy, retryAfterMs, limits }
    }
    this.#slots.learn(organizationId, costs)
    const reservation: Reservation = {
      organizationId,
      costs,
      leaseEndMs: this.#clock() + admission.leaseMs,
      ifAbandoned: admission.ifAbandoned,
      sequence: undefined,
      closing: undefined,
      abandonedAtMs: undefined,
    }
    this.#reservations.set(id, reservation)
    const payload = encodeRecord({ type: 'admitted', id, periods: periodUses(costs), event: admission.ifAbandoned })
    try {
      await this.#append(payload, false, (sequence) => {
        reservation.sequence = sequence
      })
    } catch (cause) {
      this.#reservations.delete(id)
      const nothing = costs.map(() => 0)
      settle(slots, costs, nothing, this.#nowMicros())
      throw new TollgateError('LIMITS_UNAVAILABLE', 'usage cannot be recorded at the moment', { cause })
    }
    return { admitted: true, limits: verdict.limits }
  }

  async settle(settlement: Settlement): Promise<void> {
    const { id, event, actual } = settlement
    const reservation = this.#reservations.get(id)
    if (reservation === undefined) {
      if (!this.#settled.has(id)) await this.#settleStranger(id, event)
      return
    }
    if (reservation.closing !== undefined) {
      await reservation.closing
      // The other settlement won, or the lease ran out meanwhile.
      if (reservation.abandonedAtMs !== undefined) return this.settle(settlement)
      return
    }
    if (reservation.abandonedAtMs === undefined) {
      reservation.closing = this.#record(id, event, periodUses(reservation.costs, actual)).finally(() => {
        reservation.closing = undefined
      })
      await reservation.closing
    }
    // Of a call that was recorded as abandoned only the counters are corrected: the ledger keeps the first event of an
    // id, and the log holds one.
    settle(this.#slots.of(reservation.organizationId), reservation.costs, actual, this.#nowMicros())
    this.#slots.learn(reservation.organizationId, reservation.costs)
    this.#reservations.delete(id)
    this.#settled.add(id)
  }

  async read(organizationId: string, limits: readonly Limit[]): Promise<LimitState[]> {
    await this.#seed(organizationId, limits)
    return states(this.#slots.of(organizationId), limits, this.#nowMicros())
  }

  async health(): Promise<{ ok: boolean; detail: string }> {
    if (this.#failure !== undefined) return { ok: false, detail: `usage log cannot be written: ${this.#failure}` }
    return { ok: true, detail: 'in process, usage log in segment files' }
  }

  async close(): Promise<void> {
    this.usageLog.close()
    await this.#segments.close()
    await this.#unlock()
  }

  async #settleStranger(id: string, event: UsageEvent): Promise<void> {
    const running = this.#strangers.get(id)
    if (running !== undefined) return running
    const recording = this.#record(id, event, [])
      .then(() => this.#settled.add(id))
      .finally(() => this.#strangers.delete(id))
    this.#strangers.set(id, recording)
    await recording
  }

  /** Appends an event and resolves when it is durable; rejects with STORAGE_UNAVAILABLE. */
  async #record(id: string, event: UsageEvent, periods: readonly PeriodUse[], carried = false): Promise<void> {
    try {
      await this.#append(encodeRecord({ type: 'settled', id, periods, event }), true, (sequence) => {
        this.#deliver(sequence, event, carried ? periods : [])
      })
    } catch (cause) {
      throw new TollgateError('STORAGE_UNAVAILABLE', 'usage cannot be recorded at the moment', { cause })
    }
  }

  #deliver(sequence: number, event: UsageEvent, carried: readonly PeriodUse[]): void {
    this.usageLog.add(sequence, event)
    for (const [key, units] of carried) this.#carried.push({ sequence, key: scoped(event.organizationId, key), units })
  }

  async #append(payload: string, durable: boolean, stored: (sequence: number) => void): Promise<void> {
    try {
      await this.#segments.append(payload, durable, stored)
      if (this.#failure !== undefined) this.#options.log.info('usage log can be written again')
      this.#failure = undefined
    } catch (error) {
      const problem = error instanceof Error ? error.message : 'unknown problem'
      if (this.#failure === undefined) this.#options.log.error({ problem }, 'usage log cannot be written')
      this.#failure = problem
      throw error
    }
  }

  async #seed(organizationId: string, limits: readonly Limit[]): Promise<void> {
    const unknown = unseeded(this.#slots.of(organizationId), limits)
    if (unknown.length === 0) return
    await Promise.all(
      unknown.map(async (index) => {
        const limit = limits[index]
        if (limit?.kind !== 'period') return
        const ledger = await this.#seeds.ask(organizationId, limit)
        this.#slots.seed(organizationId, limit, ledger + this.#carriedUnits(scoped(organizationId, limit.key)))
      }),
    )
  }

  #carriedUnits(key: string): number {
    this.#carried = this.#carried.filter((entry) => this.usageLog.has(entry.sequence))
    return this.#carried.reduce((sum, entry) => (entry.key === key ? sum + entry.units : sum), 0)
  }

  async #sweep(): Promise<number> {
    const now = this.#clock()
    const closing: Promise<void>[] = []
    for (const [id, reservation] of this.#reservations) {
      if (reservation.abandonedAtMs !== undefined) {
        if (now - reservation.abandonedAtMs > abandonedKeepMs) this.#reservations.delete(id)
      } else if (reservation.closing === undefined && reservation.leaseEndMs <= now) {
        reservation.closing = this.#abandon(id, reservation, now)
        closing.push(reservation.closing)
      }
    }
    if (now - this.#evictedAt >= evictEveryMs) {
      this.#evictedAt = now
      this.#slots.evict(now)
    }
    // What could not be written stays open, and the next sweep tries again.
    const results = await Promise.allSettled(closing)
    return results.filter((result) => result.status === 'fulfilled').length
  }

  async #abandon(id: string, reservation: Reservation, now: number): Promise<void> {
    try {
      await this.#record(id, reservation.ifAbandoned, periodUses(reservation.costs))
      reservation.abandonedAtMs = now
    } finally {
      reservation.closing = undefined
    }
  }

  /** Keeps the position, and deletes the segments that nothing needs: no unacknowledged event, no open reservation. */
  async #forget(through: number): Promise<void> {
    try {
      await this.#acknowledged.store(through)
      let needed = through + 1
      for (const { sequence, abandonedAtMs } of this.#reservations.values()) {
        if (sequence !== undefined && abandonedAtMs === undefined) needed = Math.min(needed, sequence)
      }
      await this.#segments.forget(needed)
    } catch (error) {
      // The entries are in the ledger. The worst that follows is that they are delivered once more.
      const problem = error instanceof Error ? error.message : 'unknown problem'
      this.#options.log.warn({ problem }, 'the position of the usage log cannot be stored')
    }
  }

  #nowMicros(): number {
    return Math.floor(this.#clock() * 1_000)
  }
}
