import pino from 'pino'
import { expect } from 'vitest'
import { type RedisServer, type RedisServerOptions, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { admission, drain, FakeLedger, unknownCall } from './conformance-support.ts'
import type { Admission, Limit, LimitCost, Limits } from './limits.ts'
import { RedisKeys } from './redis-keys.ts'
import { createRedisLimits, type RedisLimits, type RedisLimitsOptions } from './redis-limits.ts'

const log = pino({ level: 'silent' })

/** One test's Redis, ledger and processes that share limits; {@link RedisScene.close} ends all of them. */
export class RedisScene {
  readonly ledger = new FakeLedger()
  readonly keys = new RedisKeys()
  readonly server: RedisServer
  readonly #ended: (() => Promise<unknown>)[]

  private constructor(server: RedisServer) {
    this.server = server
    this.#ended = [() => server.stop()]
  }

  static async start(options: RedisServerOptions = {}): Promise<RedisScene> {
    return new RedisScene(await startRedisServer(options))
  }

  async close(): Promise<void> {
    for (const end of this.#ended.splice(0)) await end()
  }

  async connect(): Promise<RedisClient> {
    const client = await connectRedis({ url: this.server.url, log, commandTimeoutMs: 500 })
    this.#ended.unshift(async () => client.disconnect())
    return client
  }

  /** Limits of a process with a connection of its own, unless one is given. */
  async process(instanceId: string, changes: Partial<RedisLimitsOptions> = {}): Promise<RedisLimits> {
    const redis = changes.redis ?? (await this.connect())
    const { seed } = this.ledger
    const options = { instanceId, seed, log, reclaimIdleMs: 500, graceMs: 300, ...changes, redis }
    const limits = await createRedisLimits(options)
    this.#ended.unshift(() => limits.close())
    return limits
  }
}

/** A new call, which must be admitted. */
export async function admitted(
  limits: Limits,
  costs: readonly LimitCost[],
  changes: Partial<Admission> = {},
): Promise<Admission> {
  const call = admission(costs, changes)
  expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
  return call
}

/** Records events of calls without limits; their ids. */
export async function settleSome(limits: Limits, count: number): Promise<string[]> {
  const ids: string[] = []
  for (let index = 0; index < count; index++) {
    const call = unknownCall()
    await limits.settle(call)
    ids.push(call.event.id)
  }
  return ids
}

export async function remaining(limits: Limits, ...of: Limit[]): Promise<number[]> {
  return (await limits.read(of)).map((state) => state.remaining)
}

/** Ids of what comes out of the usage log, sorted; the ledger has it then. */
export async function drainedIds({ usageLog }: Limits, ledger: FakeLedger): Promise<string[]> {
  return (await drain(usageLog, ledger)).map((event) => event.id).sort()
}
