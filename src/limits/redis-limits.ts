import type { Logger } from 'pino'
import type { RedisClient } from '../storage/redis.ts'
import type { SlicesSample } from '../telemetry/metric-sources.ts'
import { encodeEvent } from './event-codec.ts'
import { GroupCommit } from './group-commit.ts'
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
import { encodePlan, encodeSeeds, readStates } from './redis-arguments.ts'
import { admitAll } from './redis-batches.ts'
import { checkDurability } from './redis-durability.ts'
import { RedisGeneration } from './redis-generation.ts'
import { RedisKept } from './redis-kept.ts'
import { RedisKeys } from './redis-keys.ts'
import { command, RedisScripts, traced, wasNotSent } from './redis-scripts.ts'
import { RedisSeeds } from './redis-seeds.ts'
import { RedisSettlements } from './redis-settlements.ts'
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
    seeds: new RedisSeeds({ redis, stream: keys.usage(), generation, seed: options.seed }),
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
/** Events in one script of a correction. */
const correctionBatch = 100

/** Made by {@link createRedisLimits}. */
export class RedisLimits implements Limits {
  readonly usageLog: RedisUsageLog
  readonly #parts: Parts
  #asked = 0
  readonly #admissions: GroupCommit
  readonly #settlements: RedisSettlements

  constructor(parts: Parts) {
    this.#parts = parts
    this.usageLog = parts.usageLog
    this.#admissions = new GroupCommit((batch) => admitAll(parts, batch))
    this.#settlements = new RedisSettlements({ ...parts, appended: () => this.usageLog.nudge() })
    parts.usageLog.beforeSweep = () => this.#settlements.releaseAll()
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
      this.#settlements.release(admission)
      throw error
    }
  }

  async #admitShared(admission: Admission): Promise<AdmissionResult> {
    const { keys, kept } = this.#parts
    const { id, costs, claim } = admission
    const event = encodeEvent(admission.ifAbandoned)
    const claimed = claim === undefined ? noClaim : [keys.claim(claim.key), claim.fingerprint]
    const facts = [id, String(admission.leaseMs), encodePlan(costs, keys), event, ...claimed]
    const reply = await this.#parts.seeds.known(limitsOf(admission), async (generation, seeds) => {
      try {
        return await traced('admit', () => this.#admissions.add(generation, [...facts, encodeSeeds(seeds)]))
      } catch (error) {
        if (!wasNotSent(error)) this.#settlements.release(admission)
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

  settle(settlement: Settlement): Promise<Settled> {
    return this.#settlements.settle(settlement)
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
    const reply = await this.#parts.seeds.known(limits, (generation, seeds) =>
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
}

function limitsOf({ costs }: Admission): Limit[] {
  return costs.map((cost) => cost.limit)
}
