import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { PassingMap } from '../passing-map.ts'
import { pause } from '../pause.ts'
import type { AdmissionMode, LimitsSample } from '../telemetry/metric-sources.ts'
import {
  type Admission,
  type AdmissionResult,
  type Correction,
  type Limit,
  type LimitState,
  type Limits,
  type LimitsHealth,
  nothingCrossed,
  type PeriodSeed,
  type Settled,
  type Settlement,
  type UsageLog,
} from './limits.ts'
import { Outage } from './outage.ts'
import { OwedUsage } from './owed-usage.ts'
import { RecentEvents } from './recent-events.ts'
import { isUnreachable, wasNotSent } from './redis-scripts.ts'
import { askSeed } from './seeds.ts'
import { ShareBases } from './share-bases.ts'

export interface FailoverOptions {
  /** The limits that all replicas share; they stay the caller's to close. */
  readonly primary: Limits
  /** Opens the limits of this process, whose usage log somebody drains: see {@link FailoverLimits.localUsageLog}. */
  readonly openLocal: (seed: PeriodSeed) => Promise<Limits>
  /** Of this process alone, beside that of the local limits; made when it is missing. */
  readonly folder: string
  /** `open`: no limits while the shared store is away. `local`: this replica's share of each limit. */
  readonly mode: 'open' | 'local'
  /** Living replicas, this one among them; 0 when the others do not count this one. See `replicas.ts`. */
  readonly replicas: () => number
  readonly seed: PeriodSeed
  readonly log: Logger
  /** Unix milliseconds. Default Date.now. */
  readonly clock?: () => number
  /** Pause between two looks whether the shared store answers again. Default 500 ms. */
  readonly probeEveryMs?: number
  /** How long admissions stay local after that, until the ledger has all local usage. Default 10 seconds. */
  readonly bookWithinMs?: number
}

export interface FailoverLimits extends Limits {
  /** The local usage log. Like the other one it needs a drain: what leaves it corrects the shared counters. */
  readonly localUsageLog: UsageLog
  readonly state: () => LimitsSample
  /** Whether the folder holds nothing that the shared store or the ledger must still be told. */
  isPaid(): Promise<boolean>
}

/**
 * {@link Limits} that go on when the shared store cannot be reached: an **outage**. It begins with the first command that
 * gets no answer. From then on no call waits for the shared store; admissions go to limits of this process. It ends by
 * itself: when a probe is answered, calls that the shared store had admitted are settled there, local usage goes to the
 * ledger, the period counters that it belongs to are made unknown in the shared store, which asks the ledger for them,
 * and admissions go there again.
 *
 * - A call settles where it was admitted. One that the shared store admitted and cannot settle is settled when its
 *   settlement is durable here, and is repeated there when that answers: after the outage, or after a restart of this
 *   process. Until then the ledger does not have it.
 * - A call whose admission was under way when the outage began fails with LIMITS_UNAVAILABLE, because nobody knows
 *   whether it was admitted. One that was not sent is admitted here.
 * - Local calls that are still open when the outage ends settle here, and correct the counters in the same way.
 * - Claims are not shared meanwhile: a repetition is a new call, unless this process made the first one in an outage.
 * - Thresholds that are passed meanwhile are not told.
 *
 * docs/operations.md states by how much limits may be passed.
 */
export async function createFailoverLimits(options: FailoverOptions): Promise<FailoverLimits> {
  const recent = new RecentEvents(options.clock ?? Date.now)
  const bases = new ShareBases(options.seed, recent)
  const closers: (() => Promise<void>)[] = []
  try {
    const local = await options.openLocal(bases.seed)
    closers.unshift(() => local.close())
    const owed = await OwedUsage.open(options.primary, options.folder, options.log)
    closers.unshift(() => owed.close())
    const limits = new Failover(options, { local, owed, recent, bases, closers })
    await limits.tidy()
    return limits
  } catch (error) {
    for (const close of closers) await close()
    throw error
  }
}

interface Parts {
  readonly local: Limits
  readonly owed: OwedUsage
  readonly recent: RecentEvents
  readonly bases: ShareBases
  /** In the order of closing. */
  readonly closers: readonly (() => Promise<void>)[]
}

interface TrackedCall {
  readonly admission: Admission
  readonly forgetAtMs: number
}

const backlogEveryMs = 20
const forgetEveryMs = 60_000
/** As long as an abandoned call can be settled. */
const lateMs = 86_400_000

class Failover implements FailoverLimits {
  readonly usageLog: UsageLog
  readonly localUsageLog: UsageLog
  readonly #options: FailoverOptions
  readonly #clock: () => number
  readonly #primary: Limits
  readonly #parts: Parts
  readonly #admitted: Record<AdmissionMode, number> = { redis: 0, open: 0, local: 0 }
  /** Open calls that were admitted here, as they were admitted here. */
  readonly #own = new PassingMap<string, TrackedCall>()
  /** Open calls that the shared store admitted. */
  readonly #shared = new PassingMap<string, TrackedCall>()
  readonly #closing = new AbortController()
  #outage: Outage | undefined
  #forgetting: Promise<void> = Promise.resolve()
  #comingBack: Promise<void> = Promise.resolve()
  #forgotAt: number

  constructor(options: FailoverOptions, parts: Parts) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
    this.#primary = options.primary
    this.#parts = parts
    this.#forgotAt = this.#clock()
    this.usageLog = options.primary.usageLog
    const log = parts.local.usageLog
    this.localUsageLog = {
      read: async (max, waitMs, signal) => {
        const batch = await log.read(max, waitMs, signal)
        const acknowledge = async (): Promise<void> => {
          await this.#book(batch.events())
          await batch.acknowledge()
        }
        return { ...batch, acknowledge }
      },
      backlog: () => log.backlog(),
      sweep: async () => {
        const recorded = await log.sweep()
        await this.tidy()
        return recorded
      },
    }
  }

  readonly state = (): LimitsSample => ({
    mode: this.#outage === undefined ? 'redis' : this.#options.mode,
    admitted: { ...this.#admitted },
  })

  async admit(admission: Admission): Promise<AdmissionResult> {
    if (this.#outage === undefined) {
      try {
        const result = await this.#primary.admit(admission)
        if (result.outcome === 'admitted') this.#opened(admission)
        return result
      } catch (error) {
        if (!this.#isAway(error) || !wasNotSent(error)) throw error
      }
    }
    return this.#admitHere(admission, this.#begin())
  }

  async settle(settlement: Settlement): Promise<Settled> {
    const { id } = settlement.admission
    const own = this.#own.get(id)
    if (own !== undefined) return this.#settleHere(own.admission, settlement)
    if (this.#outage === undefined || this.#outage.isEnding) {
      try {
        const settled = await this.#primary.settle(settlement)
        this.#closed(settlement)
        if (this.#options.mode === 'local') this.#parts.recent.add(settlement.event)
        return settled
      } catch (error) {
        if (!this.#isAway(error)) throw error
      }
    }
    await this.#parts.owed.settleLater(settlement)
    this.#closed(settlement)
    return nothingCrossed
  }

  /** While the shared store is away, counters are corrected when it is back, and events cannot be appended. */
  async correct(correction: Correction): Promise<void> {
    if (this.#outage === undefined) {
      try {
        await this.#primary.correct(correction)
        return
      } catch (error) {
        if (!this.#isAway(error) || correction.events.length > 0) throw error
      }
    }
    if (correction.events.length > 0) throw unavailable('nothing can be corrected while redis is away')
    await this.#parts.owed.correctLater(correction.counters)
  }

  async read(limits: readonly Limit[]): Promise<LimitState[]> {
    if (this.#outage === undefined) {
      try {
        return await this.#primary.read(limits)
      } catch (error) {
        if (!this.#isAway(error)) throw error
      }
    }
    if (this.#options.mode === 'open') return Promise.all(limits.map((limit) => this.#unlimited(limit)))
    return this.#parts.local.read(await this.#shares(limits, this.#begin()))
  }

  async health(): Promise<LimitsHealth> {
    if (this.#outage === undefined) {
      const health = await this.#primary.health()
      if (health.ok) return health
    }
    const { startedAtMs, replicas } = this.#begin()
    const local = await this.#parts.local.health()
    const how = this.#options.mode === 'open' ? 'calls have no limits' : `calls get 1/${replicas} of each limit`
    const detail = `redis is away since ${new Date(startedAtMs).toISOString()}: ${how}; ${local.detail}`
    return { ok: local.ok, isDegraded: true, detail }
  }

  async isPaid(): Promise<boolean> {
    const { unsettled, uncorrected } = this.#parts.owed.left
    return unsettled + uncorrected + (await this.localUsageLog.backlog()) === 0
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#comingBack
    for (const close of this.#parts.closers) await close()
  }

  /** The outage that is going on, or begins now. */
  #begin(): Outage {
    if (this.#outage !== undefined) return this.#outage
    const open = [...this.#shared.values()].map((call) => call.admission)
    const outage = new Outage(this.#clock(), this.#options.replicas(), open)
    this.#outage = outage
    // Shares are of what is left now, whatever an earlier outage left in the counters.
    this.#forgetting = this.#parts.local.correct({ events: [], counters: this.#parts.bases.forget() })
    const { mode, log } = this.#options
    log.warn({ mode, replicas: outage.replicas }, 'redis is away: calls are admitted without it')
    this.#comingBack = this.#comeBack(outage)
    return outage
  }

  async #comeBack(outage: Outage): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      await pause(this.#options.probeEveryMs ?? 500, signal, { ref: false })
      if (signal.aborted) return
      const { ok } = await this.#primary.health()
      if (ok && (await this.#end(outage))) return
    }
  }

  /** True when admissions go to the shared store again; false when it went away before they could. */
  async #end(outage: Outage): Promise<boolean> {
    const { owed } = this.#parts
    outage.isEnding = true
    try {
      let settled = await owed.settle()
      await this.#booked()
      const counters = await owed.correct()
      settled += await owed.settle()
      // It went away for a call meanwhile.
      if (!outage.isEnding || this.#closing.signal.aborted) return false
      this.#outage = undefined
      const seconds = Math.round((this.#clock() - outage.startedAtMs) / 100) / 10
      const { mode, log } = this.#options
      const { admitted, booked } = outage
      log.info({ mode, seconds, admitted, booked, settled, counters, ...owed.left }, 'redis is back')
      return true
    } catch {
      // It went away again: the outage goes on, and with it the looks at its health.
      outage.isEnding = false
      return false
    }
  }

  /** Resolves when the ledger has all that was used here, or the time for it is over. */
  async #booked(): Promise<void> {
    const untilMs = performance.now() + (this.#options.bookWithinMs ?? 10_000)
    const { signal } = this.#closing
    while (!signal.aborted && performance.now() < untilMs && (await this.localUsageLog.backlog()) > 0) {
      await pause(backlogEveryMs, signal, { ref: false })
    }
  }

  async #admitHere(admission: Admission, outage: Outage): Promise<AdmissionResult> {
    const { mode } = this.#options
    const limits = mode === 'open' ? [] : await this.#shares(limitsOf(admission), outage)
    const costs = limits.map((limit, index) => ({ limit, amount: admission.costs[index]?.amount ?? 0 }))
    const here = { ...admission, costs }
    const result = await this.#parts.local.admit(here)
    if (result.outcome !== 'admitted') return result
    this.#own.set(here.id, { admission: here, forgetAtMs: this.#clock() + here.leaseMs + lateMs })
    this.#admitted[mode] += 1
    outage.admitted += 1
    if (mode === 'local') return result
    return { ...result, limits: limitsOf(admission).map((limit) => whole(limit, this.#clock())) }
  }

  async #settleHere(here: Admission, settlement: Settlement): Promise<Settled> {
    const actual = here.costs.length === 0 ? [] : settlement.actual
    await this.#parts.local.settle({ ...settlement, admission: here, actual })
    this.#own.delete(here.id)
    return nothingCrossed
  }

  /** This replica's shares, in the order of the limits; asks the ledger for periods that are new in this outage. */
  async #shares(limits: readonly Limit[], outage: Outage): Promise<Limit[]> {
    const { local, bases } = this.#parts
    if (outage.replicas === 0) throw unavailable('this replica was not counted when redis went away')
    await this.#forgetting
    const unknown = limits.filter((limit) => limit.kind === 'period' && bases.of(limit.key) === undefined)
    if (unknown.length > 0) await local.read(unknown)
    return limits.map((limit) => {
      const base = bases.of(limit.key)
      if (base === undefined && limit.kind === 'period') throw unavailable('usage of the period is not known')
      return outage.share(limit, base ?? { ledger: 0, own: 0 })
    })
  }

  /** State of a limit that does not hold at the moment. */
  async #unlimited(limit: Limit): Promise<LimitState> {
    const state = whole(limit, this.#clock())
    if (limit.kind !== 'period') return state
    return { ...state, remaining: limit.capacity - (await askSeed(this.#options.seed, limit, [])) }
  }

  /** These events are in the ledger: the shared store must ask it for their counters, now or when it is back. */
  async #book(events: readonly UsageEvent[]): Promise<void> {
    const { owed } = this.#parts
    // On the disk first: they must not be forgotten by a process that dies before the shared store took them.
    await owed.bookLater(events)
    if (this.#outage !== undefined) this.#outage.booked += events.length
    if (this.#outage === undefined || this.#outage.isEnding) {
      await owed.correct().catch((error: unknown) => this.#isAway(error))
    }
  }

  /** Does what an earlier process or the end of an outage left to do, and forgets calls that nobody settled. */
  async tidy(): Promise<void> {
    if (this.#outage === undefined) {
      const { owed } = this.#parts
      try {
        if (owed.left.unsettled > 0) await owed.settle()
        if (owed.left.uncorrected > 0) await owed.correct()
      } catch (error) {
        this.#isAway(error)
      }
    }
    const now = this.#clock()
    if (now - this.#forgotAt < forgetEveryMs) return
    this.#forgotAt = now
    for (const calls of [this.#own, this.#shared]) {
      for (const [id, { forgetAtMs }] of calls) if (forgetAtMs <= now) calls.delete(id)
    }
  }

  #opened(admission: Admission): void {
    this.#admitted.redis += 1
    if (this.#options.mode === 'open') return
    this.#shared.set(admission.id, { admission, forgetAtMs: this.#clock() + admission.leaseMs })
    this.#outage?.opened(admission)
  }

  /** A call is over that the shared store admitted. */
  #closed(settlement: Settlement): void {
    if (this.#shared.delete(settlement.admission.id)) this.#outage?.settled(settlement)
  }

  /** True when the error says that the shared store is away; then an outage begins, unless it goes on already. */
  #isAway(error: unknown): boolean {
    if (!isUnreachable(error)) return false
    this.#begin().isEnding = false
    return true
  }
}

function limitsOf({ costs }: Admission): Limit[] {
  return costs.map((cost) => cost.limit)
}

/** State of a limit of which nothing is taken. */
function whole(limit: Limit, nowMs: number): LimitState {
  return { remaining: limit.capacity, resetAtMs: limit.kind === 'period' ? limit.endsAtMs : nowMs }
}

function unavailable(message: string): TollgateError {
  return new TollgateError('LIMITS_UNAVAILABLE', message)
}
