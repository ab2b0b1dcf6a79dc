import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import type { RedisClient } from '../storage/redis.ts'
import { encodeEvent } from './event-codec.ts'
import type { Admission, AdmissionResult, Limit, LimitState, Limits, PeriodSeed, Settlement } from './limits.ts'
import { checkDurability } from './redis-durability.ts'
import { RedisKeys, shardOf } from './redis-keys.ts'
import { asArray, command, RedisScripts, wasNotSent } from './redis-scripts.ts'
import { RedisUsageLog } from './redis-usage-log.ts'
import { Seeds } from './seeds.ts'

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
  /** Idle time after which another reader takes over what a reader did not acknowledge. Default 5 seconds. */
  readonly reclaimIdleMs?: number
}

/**
 * {@link Limits} shared by all replicas, in Redis (or Valkey) from 6.2, alone or as a cluster: one script for an
 * admission, one for a settlement. Redis's clock is the clock.
 *
 * What it promises is what Redis keeps. With `appendfsync always` an acknowledged settlement survives a kill; with less,
 * the last moment may be lost, and {@link Limits.health} says so. After a loss of all data, calls that are in flight
 * settle with their event and without correcting a counter; period counters start again from the ledger.
 *
 * Settled ids are remembered for an hour, not longer, because at a thousand calls a second each hour is 3.6 million keys.
 * A repetition after that appends the event again, which the ledger absorbs by its id, and touches no counter.
 *
 * Every failure of Redis is LIMITS_UNAVAILABLE. Whether the script ran is then unknown: a settlement may be repeated;
 * an admission is released in the background, so that a call that never began is neither charged nor recorded.
 */
export async function createRedisLimits(options: RedisLimitsOptions): Promise<Limits> {
  const keys = new RedisKeys(options.keyPrefix)
  const scripts = await RedisScripts.load(options.redis)
  const durability = await checkDurability(options.redis, options.log)
  const usageLog = new RedisUsageLog({
    redis: options.redis,
    scripts,
    keys,
    log: options.log,
    instanceId: options.instanceId,
    reclaimIdleMs: options.reclaimIdleMs ?? 5_000,
    abandonedTtlMs: options.abandonedTtlMs ?? 86_400_000,
  })
  await usageLog.open()
  return new RedisLimits(options, keys, scripts, usageLog, durability)
}

/** Admissions with an unknown outcome that wait for their release; beyond it they are left to their lease. */
const maxUnreleased = 10_000

class RedisLimits implements Limits {
  readonly usageLog: RedisUsageLog
  readonly #redis: RedisClient
  readonly #log: Logger
  readonly #keys: RedisKeys
  readonly #scripts: RedisScripts
  readonly #seeds: Seeds
  readonly #settledTtl: string
  readonly #durability: string
  readonly #unreleased = new Map<string, Admission>()

  constructor(
    options: RedisLimitsOptions,
    keys: RedisKeys,
    scripts: RedisScripts,
    usageLog: RedisUsageLog,
    durability: string,
  ) {
    this.#redis = options.redis
    this.#log = options.log
    this.#keys = keys
    this.#scripts = scripts
    this.#seeds = new Seeds(options.seed)
    this.#settledTtl = String(options.settledTtlMs ?? 3_600_000)
    this.#durability = durability
    this.usageLog = usageLog
    usageLog.beforeSweep = () => this.#releaseAll()
  }

  async admit(admission: Admission): Promise<AdmissionResult> {
    const shard = shardOf(admission.organizationId)
    const limits = admission.costs.map((cost) => cost.limit)
    const limitKeys = limits.map((limit) => this.#keys.limit(admission.organizationId, limit.key))
    const keys = [this.#keys.reservation(shard, admission.id), this.#keys.leases(shard), ...limitKeys]
    const plan = admission.costs.map(({ limit, amount }, index) => [
      ...describeLimit(limit, limitKeys[index]),
      String(amount),
    ])
    const head = [admission.id, String(admission.leaseMs), JSON.stringify(plan), encodeEvent(admission.ifAbandoned)]
    const reply = await this.#seeded(admission.organizationId, limits, async (seeds) => {
      const rest = admission.costs.flatMap((cost, index) => [
        ...limitArgs(cost.limit),
        seeds[index] ?? '',
        String(cost.amount),
      ])
      try {
        return await this.#scripts.run('admit', keys, [...head, ...rest])
      } catch (error) {
        if (!wasNotSent(error)) this.#release(admission)
        throw error
      }
    })
    if (reply[0] === 'admitted') return { admitted: true, limits: readStates(reply, 1) }
    return {
      admitted: false,
      refusedBy: Number(reply[1]),
      retryAfterMs: Number(reply[2]),
      limits: readStates(reply, 3),
    }
  }

  async settle(settlement: Settlement): Promise<void> {
    await this.#settle(settlement.organizationId, settlement.id, encodeEvent(settlement.event), settlement.actual)
    this.usageLog.nudge(shardOf(settlement.organizationId))
  }

  async read(organizationId: string, limits: readonly Limit[]): Promise<LimitState[]> {
    if (limits.length === 0) return []
    const keys = limits.map((limit) => this.#keys.limit(organizationId, limit.key))
    const reply = await this.#seeded(organizationId, limits, (seeds) => {
      const args = limits.flatMap((limit, index) => [...limitArgs(limit), seeds[index] ?? ''])
      return this.#scripts.run('read', keys, args)
    })
    return readStates(reply, 1)
  }

  async health(): Promise<{ ok: boolean; detail: string }> {
    try {
      await command(() => this.#redis.call('ping'))
      return { ok: true, detail: `redis, ${this.#durability}` }
    } catch {
      return { ok: false, detail: 'redis does not answer' }
    }
  }

  async close(): Promise<void> {
    await this.usageLog.close()
  }

  /** Runs a script; when it does not know a period counter, asks the ledger and runs it again with the answer. */
  async #seeded(
    organizationId: string,
    limits: readonly Limit[],
    run: (seeds: readonly string[]) => Promise<unknown>,
  ): Promise<readonly unknown[]> {
    let seeds: string[] = []
    // Twice is the rule; a third time only when Redis loses its data between the two.
    for (let attempt = 0; attempt < 3; attempt++) {
      const reply = asArray(await run(seeds))
      if (reply[0] !== 'unseeded') return reply
      const unknown = new Set(reply.slice(1).map(Number))
      seeds = await Promise.all(
        limits.map(async (limit, index) =>
          limit.kind === 'period' && unknown.has(index) ? String(await this.#seeds.ask(organizationId, limit)) : '',
        ),
      )
    }
    throw new TollgateError('LIMITS_UNAVAILABLE', 'usage of the current period is not known yet')
  }

  async #settle(organizationId: string, id: string, event: string, actual: readonly number[]): Promise<void> {
    const shard = shardOf(organizationId)
    const keys = [this.#keys.reservation(shard, id), this.#keys.leases(shard), this.#keys.usage(shard)]
    await this.#scripts.run('settle', keys, [id, event, this.#settledTtl, ...actual.map(String)])
  }

  #release(admission: Admission): void {
    if (this.#unreleased.size < maxUnreleased) this.#unreleased.set(admission.id, admission)
    void this.#releaseOne(admission).catch(() => undefined)
  }

  async #releaseOne(admission: Admission): Promise<void> {
    const nothing = admission.costs.map(() => 0)
    await this.#settle(admission.organizationId, admission.id, '', nothing)
    this.#unreleased.delete(admission.id)
  }

  async #releaseAll(): Promise<void> {
    for (const admission of [...this.#unreleased.values()]) await this.#releaseOne(admission)
    if (this.#unreleased.size > 0) this.#log.warn({ count: this.#unreleased.size }, 'admissions of unknown outcome')
  }
}

/** Kind, capacity, and rate or end: the way every script takes a limit. */
function limitArgs(limit: Limit): [kind: string, capacity: string, rateOrEnd: string] {
  return limit.kind === 'bucket'
    ? ['b', String(limit.capacity), String(limit.refillPerSecond)]
    : ['p', String(limit.capacity), String(limit.endsAtMs)]
}

function describeLimit(limit: Limit, key = ''): string[] {
  const [kind, capacity, rateOrEnd] = limitArgs(limit)
  return [kind, key, capacity, rateOrEnd]
}

function readStates(reply: readonly unknown[], from: number): LimitState[] {
  const states: LimitState[] = []
  for (let index = from; index + 1 < reply.length; index += 2) {
    states.push({ remaining: Number(reply[index]), resetAtMs: Number(reply[index + 1]) })
  }
  return states
}
