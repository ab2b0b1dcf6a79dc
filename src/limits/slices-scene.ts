import { setImmediate as turn } from 'node:timers/promises'
import pino from 'pino'
import { expect } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import type { RedisServer, RedisServerOptions } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import {
  admission,
  bucket,
  concurrency,
  drain,
  type FakeLedger,
  period,
  settlement,
  uuid,
} from './conformance-support.ts'
import type { Admission, BucketLimit, Limit } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import type { RedisKeys } from './redis-keys.ts'
import type { RedisLimits } from './redis-limits.ts'
import { RedisScene, remaining } from './redis-scene.ts'
import { asArray } from './redis-scripts.ts'

const log = pino({ level: 'silent' })

/** One test's Redis, and replicas that take slices of its limits. */
export class SlicesScene {
  readonly redis: RedisClient
  readonly #scene: RedisScene
  readonly #clients: RedisClient[] = []

  private constructor(scene: RedisScene, redis: RedisClient) {
    this.#scene = scene
    this.redis = redis
  }

  static async start(options: RedisServerOptions = { appendonly: false }): Promise<SlicesScene> {
    const scene = await RedisScene.start(options)
    return new SlicesScene(scene, await scene.connect())
  }

  get server(): RedisServer {
    return this.#scene.server
  }

  get keys(): RedisKeys {
    return this.#scene.keys
  }

  get ledger(): FakeLedger {
    return this.#scene.ledger
  }

  async close(): Promise<void> {
    await this.#scene.close()
    for (const client of this.#clients.splice(0)) client.disconnect()
  }

  async replicas(count: number): Promise<RedisLimits[]> {
    return Promise.all(Array.from({ length: count }, async (_, index) => this.replica(`p${index}`, this.server.port)))
  }

  /** With a connection of its own. */
  async replica(instanceId: string, port: number, commandTimeoutMs = 10_000): Promise<RedisLimits> {
    // On a busy machine, an answer may take its time.
    const redis = await connectRedis({ url: `redis://127.0.0.1:${port}`, log, commandTimeoutMs })
    this.#clients.push(redis)
    return this.#scene.process(instanceId, { redis, slicePercent: 50, sliceLeaseMs: 2_000 })
  }

  /** Whether nothing is held for any replica. */
  async nothingIsHeld(): Promise<boolean> {
    return asArray(await this.redis.call('keys', this.keys.holding('*'))).length === 0
  }

  /** Resolves when what replicas were silent about for too long is recorded or back, and only so many calls are open. */
  async swept(by: readonly RedisLimits[], open = 0): Promise<void> {
    await eventually(async () => {
      for (const { usageLog } of by) await usageLog.sweep()
      return (await this.nothingIsHeld()) && (await readRedisLimits(this.redis)).reservations.length === open
    })
  }

  /** All that was used is counted and recorded once, and nothing is open or held. */
  async mustRest(load: Load, one: RedisLimits): Promise<void> {
    await eventually(() => this.nothingIsHeld())
    const { counters, reservations } = await readRedisLimits(this.redis)
    expect(reservations).toEqual([])
    const all = counters?.filter(({ key }) => key === load.month.key)
    expect(all).toEqual([{ key: load.month.key, used: load.used, held: 0 }])
    expect(await remaining(one, load.calls)).toEqual([load.calls.capacity])
    const events = (await drain(one.usageLog, this.ledger)).map(({ id }) => id)
    expect(new Set(events)).toEqual(load.settled)
    expect(events).toHaveLength(load.settled.size)
  }
}

/** What callers see of calls, beside what limits allow. */
export class Load {
  readonly month: Limit
  readonly calls: Limit
  readonly rate: BucketLimit
  readonly settled = new Set<string>()
  used = 0
  refused = 0
  /** Tokens of the smallest call that was refused. */
  tooMuch = Number.POSITIVE_INFINITY
  /** Taken from the bucket: how much, from when and until when that may have been. */
  readonly #taken: { readonly amount: number; readonly from: number; readonly to: number }[] = []
  #held = 0
  #open = 0

  constructor(capacity: number, calls: number, rate: number) {
    this.month = period({ capacity, scope: { kind: 'organization', id: uuid(), serviceId: undefined } })
    this.calls = concurrency(calls)
    this.rate = bucket({ capacity: rate, refill: rate })
  }

  get limits(): Limit[] {
    return [this.month, this.calls, this.rate]
  }

  /** A call of these tokens that stays open for so many turns, and uses what it reserved or less. */
  async call(by: RedisLimits, amount: number, turns: number, actual = amount): Promise<void> {
    const next = admission([
      { limit: this.month, amount },
      { limit: this.calls, amount: 1 },
      { limit: this.rate, amount: 1 },
    ])
    const from = performance.now()
    const { outcome } = await by.admit(next)
    if (outcome === 'refused') {
      this.refused += 1
      this.tooMuch = Math.min(this.tooMuch, amount)
    }
    if (outcome !== 'admitted') return
    this.#taken.push({ amount: 1, from, to: performance.now() })
    this.#held += amount
    this.#open += 1
    expect(this.used + this.#held).toBeLessThanOrEqual(this.month.capacity)
    expect(this.#open).toBeLessThanOrEqual(this.calls.capacity)
    for (let passed = 0; passed < turns; passed++) await turn()
    await this.settle(by, next, actual)
  }

  async settle(by: RedisLimits, call: Admission, actual: number): Promise<void> {
    const [{ amount } = { amount: 0 }] = call.costs
    this.#held -= amount
    this.#open -= 1
    this.used += actual
    await by.settle(settlement(call, [actual, 1, 1]))
    this.settled.add(call.ifAbandoned.id)
  }

  /** In no time is more taken from the bucket than it has when it is full, and what it refills in that time. */
  bucketHeld(): void {
    const byEnd = this.#taken.toSorted((a, b) => a.to - b.to)
    for (const { from: begin } of this.#taken) {
      let sum = 0
      for (const { amount, from, to } of byEnd) {
        if (from < begin) continue
        sum += amount
        const most = this.rate.capacity + (this.rate.refill * (to - begin)) / this.rate.windowMs
        if (sum > most + 1) throw new Error(`${sum} of ${most} in ${to - begin} ms`)
      }
    }
  }
}

export function callWith(limit: Limit, amount: number): Admission {
  return admission([{ limit, amount }])
}

export function callOf({ limits }: Load): Admission {
  return admission(limits.map((limit) => ({ limit, amount: 1 })))
}

/** Makes calls until the process admitted some from slices. */
export async function withSlices(limits: RedisLimits, load: Load): Promise<void> {
  await eventually(async () => {
    await Promise.all(Array.from({ length: 4 }, () => load.call(limits, 1, 0)))
    return limits.sliceSample().admitted > 0
  })
}
