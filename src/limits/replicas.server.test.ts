import pino from 'pino'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type RedisServer, startRedisServer } from '../../test/support/redis-server.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { type Replicas, type ReplicasOptions, startReplicas } from './replicas.ts'

const log = pino({ level: 'silent' })
const started: Replicas[] = []
let server: RedisServer
let redis: RedisClient

beforeAll(async () => {
  server = await startRedisServer()
  redis = await connectRedis({ url: server.url, log, commandTimeoutMs: 200 })
}, 60_000)

afterEach(async () => {
  for (const replica of started.splice(0)) await replica.stop()
  await redis.call('flushall')
})

afterAll(async () => {
  redis.disconnect()
  await server.stop()
}, 60_000)

async function start(instanceId: string, changes: Partial<ReplicasOptions> = {}): Promise<Replicas> {
  const replica = await startReplicas({ redis, instanceId, everyMs: 20, leaseMs: 2_000, ...changes })
  started.push(replica)
  return replica
}

async function restart(): Promise<void> {
  await server.restart()
  await eventually(async () => (await redis.call('ping')) === 'PONG')
}

describe('replicas', () => {
  it('count each other, and one that leaves is counted no more', async () => {
    const [one, two] = [await start('one'), await start('two')]
    expect(two.count()).toBe(2)
    await eventually(() => one.count() === 2)
    await two.stop()
    await eventually(() => one.count() === 1)
  })

  it('count one that is silent until its lease is over', async () => {
    const one = await start('one')
    await start('silent', { everyMs: 3_600_000, leaseMs: 300 })
    await eventually(() => one.count() === 2)
    await eventually(() => one.count() === 1)
  })

  it('keep their count while Redis is away, and until all had the time to come back', async () => {
    const one = await start('one')
    await start('two', { everyMs: 3_600_000, leaseMs: 400 })
    await eventually(() => one.count() === 2)
    await server.kill9()
    await eventually(async () => (await redis.call('ping').catch(() => '')) === '')
    expect(one.count()).toBe(2)
    await restart()
    const answered = await eventually(async () => Number(await redis.call('zcard', 'tg:{replicas}')) === 1)
    expect(answered && one.count()).toBe(2)
    await eventually(() => one.count() === 1)
  }, 60_000)

  it('that were silent for longer than their lease before Redis went away count for nothing', async () => {
    let now = 0
    const frozen = await start('frozen', { clock: () => now })
    expect(frozen.count()).toBe(1)
    await server.kill9()
    now = 60_000
    await eventually(() => frozen.count() === 0)
    await restart()
    await eventually(() => frozen.count() === 1)
  }, 60_000)
})
