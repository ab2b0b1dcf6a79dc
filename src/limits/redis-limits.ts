import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { correctionIds, correctionOf } from '../metering/correction.ts'
import { noTokens, type UsageEvent } from '../metering/usage-event.ts'
import type { RedisClient } from '../storage/redis.ts'
import type { SlicesSample } from '../telemetry/metric-sources.ts'
import { CounterNames } from './counter-names.ts'
import { decodeEvent, encodeEvent } from './event-codec.ts'
import { GroupCommit } from './group-commit.ts'
import { periodKeysOf } from './limit-keys.ts'
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
import { encodePlan, encodeSeeds, type KnownSeed, readStates } from './redis-arguments.ts'
import { admitAll, settleAll } from './redis-batches.ts'
import { checkDurability } from './redis-durability.ts'
import { RedisGeneration } from './redis-generation.ts'
import { RedisKept } from './redis-kept.ts'
import { RedisKeys } from './redis-keys.ts'
import { command, RedisScripts, type ScriptArgument, traced, wasNotSent } from './redis-scripts.ts'
import { RedisSeeds, unknownYet } from './redis-seeds.ts'
import { RedisSlices, type Spending } from './redis-slices.ts'
import { RedisUsageLog } from './redis-usage-log.ts'

export interface RedisLimitsOptions {
  /** Stays the caller's: {@link Limits.close} leaves it open. */
  readonly redis: RedisClient
  /** Name of this process among the readers of the usage log; two living processes must not share one. */
  readonly instanceId: string
  readonly seed: PeriodSeed
  readonly log: Logger
  /** Begin of every key. Default "tg". */
  readonly keyPrefix?: string
  /** How long a settled id is remembered. Default one hour: see {@link createRedisLimits}. */
  readonly settledTtlMs?: number
  /** How long a reservation that was recorded as abandoned can still be corrected. Default 24 hours. */
  readonly abandonedTtlMs?: number
  /** How long a claim keeps its answer. Default 24 hours. */
  readonly answerTtlMs?: number
  /** Idle time after which another reader takes over what a reader did not acknowledge. Default 5 seconds. */
  readonly reclaimIdleMs?: number
  /** Percent of what is left of a limit that all processes together may hold in slices; 0 for none. Default 0. */
  readonly slicePercent?: number
  /** How long Redis keeps for a process what it holds in slices and does not renew. Default 15 seconds. */
  readonly sliceLeaseMs?: number
  /** How long nothing is admitted after Redis lost its data, so that every replica has restored. Default 500. */
  readonly graceMs?: number
  /** Told when this process appended to the usage log, for who reads it elsewhere. */
  readonly onAppend?: () => void
}

/**
 * {@link Limits} shared by all replicas, in Redis (or Valkey) from 6.2, alone or as a cluster: one script for an
 * admission, one for a settlement. Redis's clock is the clock. An admission of n limits costs Redis O(n), a settlement
 * too: a GET and a SET for each limit and a constant number of commands beside them, of which only the lease costs
 * O(log open calls). Nothing scans, so neither depends on how many keys, consumers or calls share a limit
 * (`bench/checks.ts` measures it).
 *
 * What it promises is what Redis keeps. With `appendfsync always` an acknowledged settlement survives a kill; with less,
 * the last moment may be lost, and {@link Limits.health} says so.
 *
 * When Redis loses its data, each process gives back what it knows (`redis-generation.ts`), and period counters start
 * again from the ledger: they end at what was used and what is held, and no event of a living process is lost. What is
 * lost: bucket levels (a bucket starts full, so it may admit its capacity once more), and the answers that claims kept
 * (a repetition is a new call). A process that did not restore within `graceMs` after the loss makes the others admit too
 * much by what it had in flight and not yet in the ledger, until it does; one that died meanwhile loses its events that
 * no drain had taken.
 *
 * Settled ids are remembered for an hour, not longer, because at a thousand calls a second each hour is 3.6 million keys.
 * A repetition after that appends the event again, which the ledger absorbs by its id, and the counters follow the ledger.
 *
 * Every failure of Redis is LIMITS_UNAVAILABLE. Whether the script ran is then unknown: a settlement may be repeated;
 * an admission is released in the background, so that a call that never began is neither charged nor recorded.
 */
export async function createRedisLimits(options: RedisLimitsOptions): Promise<RedisLimits> {
  const { redis, log, settledTtlMs = 3_600_000, abandonedTtlMs = 86_400_000 } = options
  const keys = new RedisKeys(options.keyPrefix)
  const scripts = await RedisScripts.load(redis)
  const durability = await checkDurability(redis, log)
  const kept = new RedisKept(abandonedTtlMs)
  const usageLog = new RedisUsageLog({
    redis,
    scripts,
    keys,
    kept,
    log,
    instanceId: options.instanceId,
    reclaimIdleMs: options.reclaimIdleMs ?? 5_000,
    abandonedTtlMs,
    onAppend: options.onAppend,
  })
  await usageLog.open()
  const generation = new RedisGeneration({
    scripts,
    keys,
    kept,
    graceMs: options.graceMs ?? 500,
    settledTtlMs,
    abandonedTtlMs,
    restored: (calls, events) =>
      log.warn({ calls, events }, 'redis may have lost data; open calls and events are given back'),
  })
  await generation.open()
  const { slicePercent = 0, sliceLeaseMs = 15_000 } = options
  const slices = await RedisSlices.open({
    redis,
    scripts,
    keys,
    kept,
    generation,
    percent: slicePercent,
    leaseMs: sliceLeaseMs,
  })
  return new RedisLimits({
    redis,
    log,
    keys,
    scripts,
    kept,
    generation,
    usageLog,
    slices,
    durability,
    seeds: new RedisSeeds(redis, keys.usage(), options.seed),
    settledTtlMs,
    abandonedTtlMs,
    answerTtlMs: options.answerTtlMs ?? 86_400_000,
  })
}

interface Parts {
  readonly redis: RedisClient
  readonly log: Logger
  readonly keys: RedisKeys
  readonly scripts: RedisScripts
  readonly kept: RedisKept
  readonly generation: RedisGeneration
  readonly usageLog: RedisUsageLog
  readonly slices: RedisSlices
  readonly durability: string
  readonly seeds: RedisSeeds
  readonly settledTtlMs: number
  readonly abandonedTtlMs: number
  readonly answerTtlMs: number
}

/** Key and fingerprint of a call without a claim. */
const noClaim = ['', '']
const nothingCrossed: Settled = { crossed: [] }
/** Admissions with an unknown outcome that wait for their release; beyond it they are left to their lease. */
const maxUnreleased = 10_000
/** How long an admission waits for periods to become known, and how often it tries. */
const seedMaxMs = 3_000
const seedMaxTries = 100
/** A reservation that changes its state again and again while it is settled. */
const maxTries = 5
/** Events in one script of a correction. */
const correctionBatch = 100

/** Made by {@link createRedisLimits}. */
export class RedisLimits implements Limits {
  readonly usageLog: RedisUsageLog
  readonly #parts: Parts
  #asked = 0
  readonly #unreleased = new Map<string, Admission>()
  readonly #admissions: GroupCommit
  readonly #settlements: GroupCommit
  readonly #counterNames: CounterNames

  constructor(parts: Parts) {
    this.#parts = parts
    this.usageLog = parts.usageLog
    this.#admissions = new GroupCommit((batch) => admitAll(parts, batch))
    this.#settlements = new GroupCommit((batch) => settleAll(parts, batch))
    this.#counterNames = new CounterNames(parts.keys)
    parts.usageLog.beforeSweep = () => this.#releaseAll()
  }

  async admit(admission: Admission): Promise<AdmissionResult> {
    const { slices } = this.#parts
    const spending = slices.admit(admission)
    if (spending !== undefined && (await this.#isWritten(spending, admission))) {
      return { outcome: 'admitted', limits: spending.states }
    }
    for (let tries = 0; ; tries++) {
      const result = await this.#admitShared(admission)
      if (result.outcome !== 'refused' || tries === admission.costs.length) return result
      // What this process holds of the limit might be what is missing.
      const limit = admission.costs[result.refusedBy]?.limit
      if (limit === undefined || !(await slices.giveBack(limit))) return result
    }
  }

  /** What this process holds of limits in advance. */
  sliceSample(): SlicesSample {
    return { ...this.#parts.slices.sample(), asked: this.#asked }
  }

  async #isWritten({ written }: Spending, admission: Admission): Promise<boolean> {
    try {
      return await written
    } catch (error) {
      this.#release(admission)
      throw error
    }
  }

  async #admitShared(admission: Admission): Promise<AdmissionResult> {
    const { keys, kept } = this.#parts
    const { id, costs, claim } = admission
    const event = encodeEvent(admission.ifAbandoned)
    const claimed = claim === undefined ? noClaim : [keys.claim(claim.key), claim.fingerprint]
    const facts = [id, String(admission.leaseMs), encodePlan(costs, keys), event, ...claimed]
    const reply = await this.#seeded(limitsOf(admission), async (generation, seeds) => {
      try {
        return await traced('admit', () => this.#admissions.add(generation, [...facts, encodeSeeds(seeds)]))
      } catch (error) {
        if (!wasNotSent(error)) this.#release(admission)
        throw error
      }
    })
    const [, first, second] = reply
    switch (String(reply[0])) {
      case 'admitted':
        kept.opened(admission)
        this.#asked += 1
        return { outcome: 'admitted', limits: readStates(reply, 1) }
      case 'ended':
        return { outcome: 'admitted', limits: readStates(reply, 1) }
      case 'refused':
        return {
          outcome: 'refused',
          refusedBy: Number(first),
          retryAfterMs: Number(String(second)),
          limits: readStates(reply, 3),
        }
      case 'running':
        return { outcome: 'running' }
      case 'answered':
        return { outcome: 'answered', answer: Buffer.isBuffer(first) ? new Uint8Array(first) : new Uint8Array() }
      default:
        return { outcome: 'mismatch' }
    }
  }

  async settle(settlement: Settlement): Promise<Settled> {
    const { admission, event } = settlement
    const { id, costs } = admission
    const { kept, slices } = this.#parts
    await slices.heard(id)
    for (let tries = 0; tries < maxTries; tries++) {
      const [outcome, detail] = await this.#settleOpen(settlement, event)
      const [entry = '', ...told] = String(detail).split(' ')
      // Again, and this process thought it open: the answer of its settlement was lost, and is this one.
      const wasLost = outcome === 'again' && kept.closed(id) && entry !== ''
      if (outcome === 'settled' || wasLost) {
        this.#ended(id, [event], [entry])
        const crossed = readCrossed(costs, told)
        kept.told.tell(crossed)
        return { crossed }
      }
      if (outcome === 'again') return nothingCrossed
      const events = outcome === 'late' ? correctedBy(decodeKnown(detail), event) : [event]
      if (await this.#settleLate(settlement, outcome === 'late' ? 'a' : '', events)) return nothingCrossed
    }
    throw new TollgateError('LIMITS_UNAVAILABLE', 'the reservation changes while it is settled')
  }

  async correct({ events, counters }: Correction): Promise<void> {
    const { keys, scripts, generation, kept, settledTtlMs, abandonedTtlMs } = this.#parts
    const names = [keys.generation(), keys.leases(), keys.usage(), ...counters.map((key) => keys.limit(key))]
    const head = [keys.reservations(), String(settledTtlMs), String(abandonedTtlMs)]
    // Each part makes the counters unknown: none of them may know the sum without it.
    for (let from = 0; from === 0 || from < events.length; from += correctionBatch) {
      const part = events.slice(from, from + correctionBatch)
      const entries = part.flatMap((event) => ['', '', encodeEvent(event), ''])
      const [, ...ids] = await generation.run(false, (own) => scripts.run('correct', names, [own, ...head, ...entries]))
      part.forEach((event, index) => {
        kept.append({ entry: String(ids[index]), event, ended: '', callId: '' })
      })
    }
    this.usageLog.nudge()
  }

  async read(limits: readonly Limit[]): Promise<LimitState[]> {
    if (limits.length === 0) return []
    const { keys, scripts } = this.#parts
    const plan = encodePlan(
      limits.map((limit) => ({ limit, amount: 0 })),
      keys,
    )
    const reply = await this.#seeded(limits, (generation, seeds) =>
      scripts.run(
        'read',
        [keys.generation(), keys.holdings()],
        [generation, plan, encodeSeeds(seeds), keys.holding('')],
      ),
    )
    return readStates(reply, 1)
  }

  async health(): Promise<{ ok: boolean; detail: string }> {
    try {
      await command(() => this.#parts.redis.call('ping'))
      return { ok: true, detail: `redis, ${this.#parts.durability}` }
    } catch {
      return { ok: false, detail: 'redis does not answer' }
    }
  }

  async close(): Promise<void> {
    await this.#parts.slices.close()
    await this.#parts.generation.close()
    await this.usageLog.close()
  }

  /** Runs a script; when it does not know a period, asks what was used and runs it again with the answer. */
  async #seeded(
    limits: readonly Limit[],
    run: (generation: string, seeds: ReadonlyMap<number, KnownSeed>) => Promise<unknown>,
  ): Promise<readonly unknown[]> {
    const until = performance.now() + seedMaxMs
    let asked = ''
    let seeds: ReadonlyMap<number, KnownSeed> = new Map()
    for (let tries = 0; tries < seedMaxTries; tries++) {
      const reply = await this.#parts.generation.run(true, (generation) => {
        // What was asked in another generation says nothing of this one.
        if (generation !== asked) seeds = new Map()
        asked = generation
        return run(generation, seeds)
      })
      if (String(reply[0]) !== 'unseeded') return reply
      const left = until - performance.now()
      if (left <= 0) break
      seeds = await this.#ask(limits, reply.slice(1).map(String), asked, left)
    }
    throw unknownYet()
  }

  /** Seeds by the index of their limits, of pairs of index and version. */
  async #ask(
    limits: readonly Limit[],
    unknown: readonly string[],
    generation: string,
    ms: number,
  ): Promise<Map<number, KnownSeed>> {
    const seeds = new Map<number, KnownSeed>()
    const asking: Promise<void>[] = []
    for (let at = 0; at + 1 < unknown.length; at += 2) {
      const [index, version = ''] = [Number(unknown[at]), unknown[at + 1]]
      const limit = limits[index]
      if (limit?.kind !== 'period') continue
      const answer = this.#parts.seeds.ask(limit, version, generation, ms)
      asking.push(answer.then((used) => void seeds.set(index, { used, version })))
    }
    await Promise.all(asking)
    return seeds
  }

  /** Settles an open reservation; without an event it is released. */
  #settleOpen({ admission, actual, answer }: Settlement, event?: UsageEvent): Promise<readonly unknown[]> {
    const { keys, generation } = this.#parts
    const { id, claim } = admission
    const json = event === undefined ? '' : encodeEvent(event)
    const counters = event === undefined ? '' : this.#counterNames.of(event)
    const claimed = [claim === undefined ? '' : keys.claim(claim.key), ...this.#claimArguments(admission, answer)]
    const args = [id, json, ...claimed, actual.join(' ')]
    return generation.run(false, (own) => traced('settle', () => this.#settlements.add(own, args, counters)))
  }

  /** Settles a call that was recorded as abandoned ('a') or is not known (''); false when that is so no more. */
  async #settleLate(
    { admission, actual, answer }: Settlement,
    state: 'a' | '',
    events: readonly UsageEvent[],
  ): Promise<boolean> {
    const { keys, scripts, generation, settledTtlMs } = this.#parts
    const { id, costs, claim } = admission
    const counters = new Set(events.flatMap(periodKeysOf))
    for (const { limit } of costs) if (limit.kind === 'period') counters.add(limit.key)
    const names = [
      keys.generation(),
      keys.reservation(id),
      keys.usage(),
      ...[...counters].map((key) => keys.limit(key)),
    ]
    if (claim !== undefined) names.push(keys.claim(claim.key))
    const args = [
      id,
      state,
      String(settledTtlMs),
      ...this.#claimArguments(admission, answer),
      String(events.length),
      ...events.map(encodeEvent),
      ...actual.map(String),
    ]
    const [outcome, ...ids] = await generation.run(false, (own) => scripts.run('late', names, [own, ...args]))
    if (outcome !== 'settled') return false
    this.#ended(id, events, ids.map(String))
    return true
  }

  /** Fingerprint, how long the answer is kept, and the answer; all '' where there is none. */
  #claimArguments({ claim }: Admission, answer: Uint8Array | undefined): ScriptArgument[] {
    if (claim === undefined) return ['', '', '']
    if (answer === undefined) return [claim.fingerprint, '', '']
    const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength)
    return [claim.fingerprint, String(this.#parts.answerTtlMs), bytes]
  }

  #ended(id: string, events: readonly UsageEvent[], entries: readonly string[]): void {
    const { kept } = this.#parts
    kept.closed(id)
    events.forEach((event, index) => {
      kept.append({ entry: entries[index] ?? '0-0', event, ended: 's', callId: id })
    })
    this.usageLog.nudge()
  }

  #release(admission: Admission): void {
    if (this.#unreleased.size < maxUnreleased) this.#unreleased.set(admission.id, admission)
    void this.#releaseOne(admission).catch(() => undefined)
  }

  /** Gives back what an admission of unknown outcome took, if it took anything. */
  async #releaseOne(admission: Admission): Promise<void> {
    const settlement = { admission, actual: admission.costs.map(() => 0), event: admission.ifAbandoned }
    const [outcome, detail] = await this.#settleOpen(settlement)
    if (outcome === 'late') {
      const abandoned = decodeKnown(detail)
      const nothing: UsageEvent = { ...abandoned, tokens: noTokens, costNanos: 0, errorReason: 'LIMITS_UNAVAILABLE' }
      await this.#settleLate(settlement, 'a', correctedBy(abandoned, nothing))
    }
    this.#unreleased.delete(admission.id)
  }

  async #releaseAll(): Promise<void> {
    await this.#parts.slices.tidy().catch(() => undefined)
    if (this.#unreleased.size === 0) return
    await Promise.allSettled([...this.#unreleased.values()].map((admission) => this.#releaseOne(admission)))
    if (this.#unreleased.size > 0)
      this.#parts.log.warn({ count: this.#unreleased.size }, 'admissions of unknown outcome')
  }
}

function limitsOf({ costs }: Admission): Limit[] {
  return costs.map((cost) => cost.limit)
}

/** What takes the record of an abandoned call back, and what books it right. */
function correctedBy(abandoned: UsageEvent, right: UsageEvent): UsageEvent[] {
  return correctionOf(abandoned, right, correctionIds(abandoned.id))
}

/** Triples of index, use and threshold. */
function readCrossed(costs: Admission['costs'], reply: readonly string[]): Settled['crossed'][number][] {
  const crossed: Settled['crossed'][number][] = []
  for (let at = 0; at + 2 < reply.length; at += 3) {
    const limit = costs[Number(reply[at])]?.limit
    if (limit?.kind !== 'period') continue
    crossed.push({ limit, used: Number(reply[at + 1]), threshold: reply[at + 2] === '80' ? 80 : 100 })
  }
  return crossed
}

/** The event that a sweep recorded, which this store wrote itself. */
function decodeKnown(json: unknown): UsageEvent {
  const event = decodeEvent(String(json))
  if (event === undefined) throw new TollgateError('INTERNAL', 'an abandoned reservation holds no usage event')
  return event
}
