import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { startCutProxy } from '../../test/support/cut-proxy.ts'
import { eventually } from '../../test/support/eventually.ts'
import { admission, bucket, drain, outcomeOf, period, settlement } from './conformance-support.ts'
import type { Limit } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import { remaining } from './redis-scene.ts'
import { asArray } from './redis-scripts.ts'
import { callWith, Load, SlicesScene } from './slices-scene.ts'

let scene: SlicesScene

beforeEach(async () => {
  scene = await SlicesScene.start()
}, 60_000)
afterEach(() => scene.close(), 60_000)

/** A process that makes calls with these limits, and what it says of them. */
async function spawnCalls(limits: readonly Limit[]) {
  const script = new URL('./slices-process.ts', import.meta.url).pathname
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-slices-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const file = join(folder, 'calls')
  const child = spawn(process.execPath, [script, scene.server.url, JSON.stringify(limits), file], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const said = async () => {
    const lines = (await readFile(file, 'utf8').catch(() => '')).trim().split('\n')
    const calls = lines.filter((line) => line.includes(' ')).map((line) => line.split(' '))
    return {
      admitted: calls.map(([id = '']) => id),
      bySlice: Math.max(0, ...calls.map(([, count]) => Number(count))),
      isRefused: lines.includes('refused'),
    }
  }
  return { child, said }
}

describe('a replica that is killed with slices', () => {
  it('leaves one record of each of its calls, and nothing held, and no unit is there twice', async () => {
    // With an append-only file Redis is behind what is written to it, which is what a kill could lose.
    await scene.close()
    scene = await SlicesScene.start({})
    const [one] = await scene.replicas(1)
    if (one === undefined) throw new Error('no process')
    // More than the processes can leave open, however fast they are.
    const load = new Load(1_000_000, 1_000_000, 1_000_000)
    // What returns too much would be hidden where nothing else is held.
    const open = admission([
      { limit: load.month, amount: 500_000 },
      { limit: load.calls, amount: 500_000 },
    ])
    await one.admit(open)
    const admitted: string[] = []
    for (let kill = 1; kill <= 4; kill++) {
      const { child, said } = await spawnCalls(load.limits)
      await eventually(async () => (await said()).bySlice > 800)
      expect(((await readRedisLimits(scene.redis)).slices ?? []).length).toBeGreaterThan(0)
      const ended = once(child, 'close')
      child.kill('SIGKILL')
      await ended
      admitted.push(...(await said()).admitted)
    }
    await scene.swept([one], 1)
    const events = (await drain(one.usageLog, scene.ledger)).map(({ id }) => id)
    expect(new Set(events).size).toBe(events.length)
    const recorded = new Set(events)
    expect(admitted.filter((id) => !recorded.has(id))).toEqual([])
    const { counters } = await readRedisLimits(scene.redis)
    expect(counters?.filter(({ key }) => key === load.month.key)).toEqual([
      { key: load.month.key, used: events.length, held: 500_000 },
    ])
    expect(await remaining(one, load.month, load.calls)).toEqual([500_000 - events.length, 500_000])
  }, 120_000)
})

describe('a replica that is stopped for longer than its holding lives', () => {
  it('spends nothing of it when it goes on', async () => {
    const [one] = await scene.replicas(1)
    if (one === undefined) throw new Error('no process')
    const load = new Load(1_000_000, 100_000, 1_000_000)
    const { child, said } = await spawnCalls([load.month])
    await eventually(async () => (await said()).bySlice > 300)
    child.kill('SIGSTOP')
    await scene.swept([one])
    // What is left is the other replica's now.
    const [left = 0] = await remaining(one, load.month)
    expect(await one.admit(admission([{ limit: load.month, amount: left }]))).toMatchObject({ outcome: 'admitted' })
    child.kill('SIGCONT')
    await eventually(async () => (await said()).isRefused)
    expect((await said()).admitted.length + left).toBeLessThanOrEqual(1_000_000)
  }, 60_000)
})

describe('a clock of Redis that jumps beyond the end of a holding', () => {
  it('lets through one run of calls at most, and then nothing of the holding is spent', async () => {
    const [one, two] = await scene.replicas(2)
    if (one === undefined || two === undefined) throw new Error('no process')
    const month = period({ capacity: 1_000_000 })
    const burst = () => Promise.all(Array.from({ length: 150 }, () => two.admit(callWith(month, 1))))
    let late: Awaited<ReturnType<typeof burst>> = []
    await eventually(async () => {
      while (two.sliceSample().units <= 140) await burst()
      // As if it had ended: the other replica gives it back, and takes all that is left.
      const [holder = ''] = asArray(await scene.redis.call('zrange', scene.keys.holdings(), 0, -1)).map(String)
      await scene.redis.call('zadd', scene.keys.holdings(), 1, holder)
      await one.usageLog.sweep()
      // Else its replica renewed it just then.
      const isGone = (await scene.redis.call('zscore', scene.keys.holdings(), holder)) === null
      const [used = 0, held = 0] = String(await scene.redis.call('get', scene.keys.limit(month.key)))
        .split(' ')
        .map(Number)
      const rest = callWith(month, month.capacity - used - held)
      const { outcome } = await one.admit(rest)
      // Too slow: it was not in use any more.
      const isSpendable = isGone && two.sliceSample().units > 140
      if (isSpendable && outcome === 'admitted') late = await burst()
      else if (outcome === 'admitted') await one.settle(settlement(rest, [0]))
      return late.length > 0
    })
    const admitted = late.filter(({ outcome }) => outcome === 'admitted').length
    expect(admitted).toBeLessThanOrEqual(64)
    // What was spent beyond the limit is in the counter all the same.
    await eventually(async () => (await remaining(one, month))[0] === -admitted)
  }, 60_000)
})

describe('a Redis that loses its data while slices are out', () => {
  it('loses no call, and no limit is passed', async () => {
    const all = await scene.replicas(2)
    const load = new Load(100_000, 1_000, 50_000)
    let done = 0
    const loads = all.flatMap((by) =>
      Array.from({ length: 15 }, async (_, worker) => {
        for (let round = 0; round < 120; round++) {
          await load.call(by, 1 + (round % 3), worker % 5)
          done += 1
        }
      }),
    )
    for (const at of [700, 1_500, 2_400]) {
      await eventually(() => done > at)
      await scene.redis.call('flushall')
    }
    await Promise.all(loads)
    const [one] = all
    if (one === undefined) throw new Error('no process')
    expect(all.reduce((sum, limits) => sum + limits.sliceSample().admitted, 0)).toBeGreaterThan(100)
    expect(await remaining(one, load.month)).toEqual([100_000 - load.used])
    await scene.mustRest(load, one)
  }, 60_000)
})

describe('a connection that is cut while slices are out', () => {
  it.each(['cut', 'stall'] as const)(
    'leaves one record of each call, and nothing held (%s)',
    async (fault) => {
      const proxy = await startCutProxy({ upstream: () => ({ host: '127.0.0.1', port: scene.server.port }) })
      onTestFinished(() => proxy.close())
      const [other] = await scene.replicas(1)
      const limits = await scene.replica('cut', proxy.port, 300)
      if (other === undefined) throw new Error('no process')
      const load = new Load(1_000_000, 10_000, 100_000)
      const slow = bucket({ capacity: 1_000_000, refill: 1, windowMs: 60_000 })
      const admitted: string[] = []
      let isOver = false
      const loads = Array.from({ length: 20 }, async (_, worker) => {
        while (!isOver) {
          const call = admission([...load.limits, slow].map((limit) => ({ limit, amount: 1 })))
          if ((await outcomeOf(limits, call)) !== 'admitted') {
            await turn()
            continue
          }
          admitted.push(call.ifAbandoned.id)
          for (let passed = 0; passed < worker; passed++) await turn()
          await eventually(async () => (await limits.settle(settlement(call, [1, 1, 1, 1]))) !== undefined)
        }
      })
      for (const count of [800, 1_600]) {
        await eventually(() => limits.sliceSample().admitted > count)
        proxy[fault]()
        const before = performance.now()
        await eventually(() => performance.now() > before + 600)
        proxy.heal()
      }
      await eventually(() => limits.sliceSample().admitted > 2_400)
      isOver = true
      await Promise.all(loads)
      await scene.swept([limits, other])
      const events = await drain(other.usageLog, scene.ledger)
      await drain(limits.usageLog, scene.ledger)
      expect(new Set(scene.ledger.ids)).toEqual(new Set(admitted))
      expect(events.length).toBeGreaterThan(0)
      expect(await remaining(other, load.month, load.calls)).toEqual([1_000_000 - admitted.length, 10_000])
      const [rest = 0] = await remaining(other, slow)
      // It refills by one in this time, or two.
      expect(rest).toBeLessThanOrEqual(1_000_000 - admitted.length + 2)
    },
    60_000,
  )
})
