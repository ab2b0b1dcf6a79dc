import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import type { RedisClient } from '../storage/redis.ts'
import { admission, period } from './conformance-support.ts'
import type { Admission, Limits } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { drainedIds, RedisScene, remaining } from './redis-scene.ts'

let scene: RedisScene
let redis: RedisClient
let other: Limits

beforeEach(async () => {
  scene = await RedisScene.start({ appendonly: false })
  redis = await scene.connect()
  other = await scene.process('other', { redis })
}, 60_000)
afterEach(() => scene.close(), 60_000)

/** The way of one process to Redis. Of one call it loses the answer to the admission; while it is away, all that follows. */
class LosingRedis {
  readonly client: RedisClient
  isAway = false
  #isAdmitted = false

  constructor(redis: RedisClient, id: string) {
    const call = async (command: string, ...args: (string | Buffer | number)[]): Promise<unknown> => {
      if (!args.includes(id)) return redis.call(command, ...args)
      if (this.#isAdmitted && this.isAway) throw new Error('Command timed out')
      const reply = await redis.call(command, ...args)
      if (this.#isAdmitted) return reply
      this.#isAdmitted = true
      throw new Error('Command timed out')
    }
    this.client = new Proxy(redis, {
      get(target, name) {
        if (name === 'call') return call
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }
}

describe('an admission whose answer is lost', () => {
  const month = period({ capacity: 100 })

  /** Limits that were asked for the call, and were not told that it was admitted. */
  async function unheard(call: Admission, isAway: boolean): Promise<{ limits: Limits; way: LosingRedis }> {
    const way = new LosingRedis(await scene.connect(), call.id)
    way.isAway = isAway
    // Before, or the answer that is lost is that the counter is not known.
    expect(await remaining(other, month)).toEqual([100])
    const limits = await scene.process('one', { redis: way.client })
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    return { limits, way }
  }

  it('is given back without a record, before anybody sweeps', async () => {
    await unheard(admission([{ limit: month, amount: 40 }]), false)
    await eventually(async () => (await remaining(other, month))[0] === 100)
    expect((await readRedisLimits(redis)).reservations).toEqual([])
    expect(await other.usageLog.backlog()).toBe(0)
  })

  it('is given back with the next sweep when that failed', async () => {
    const { limits, way } = await unheard(admission([{ limit: month, amount: 40 }]), true)
    expect(await limits.usageLog.sweep()).toBe(0)
    expect(await remaining(other, month)).toEqual([60])
    way.isAway = false
    expect(await limits.usageLog.sweep()).toBe(0)
    expect(await remaining(other, month)).toEqual([100])
    expect((await readRedisLimits(redis)).reservations).toEqual([])
    expect(await other.usageLog.backlog()).toBe(0)
  })

  it('is taken back where another process recorded it as abandoned meanwhile', async () => {
    const call = admission([{ limit: month, amount: 40 }], { leaseMs: 1 })
    const { limits, way } = await unheard(call, true)
    await eventually(async () => (await other.usageLog.sweep()) === 1)
    expect(await remaining(other, month)).toEqual([60])
    way.isAway = false
    expect(await limits.usageLog.sweep()).toBe(0)
    expect(await remaining(other, month)).toEqual([100])
    const ids = await drainedIds(other, scene.ledger)
    expect(ids).toHaveLength(3)
    expect(ids).toContain(call.ifAbandoned.id)
    await other.correct({ events: [], counters: [month.key] })
    expect(await remaining(other, month)).toEqual([100])
  })
})
