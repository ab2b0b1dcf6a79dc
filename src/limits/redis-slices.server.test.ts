import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { startCutProxy } from '../../test/support/cut-proxy.ts'
import { eventually } from '../../test/support/eventually.ts'
import { connectRedis, type RedisClient } from '../storage/redis.ts'
import { admission, bucket, concurrency, drain, period, settlement, uuid } from './conformance-support.ts'
import type { Admission, BucketLimit, Limit } from './limits.ts'
import { readRedisLimits } from './redis-audit.ts'
import type { RedisLimits } from './redis-limits.ts'
import { RedisScene, remaining } from './redis-scene.ts'
import { asArray } from './redis-scripts.ts'

const log = pino({ level: 'silent' })
let scene: RedisScene
let redis: RedisClient

/** On a busy machine, an answer may take its time. */
async function patient(port: number): Promise<RedisClient> {
  const client = await connectRedis({ url: `redis://127.0.0.1:${port}`, log, commandTimeoutMs: 10_000 })
  onTestFinished(() => client.disconnect())
  return client
}

async function start(count: number, slicePercent = 50): Promise<RedisLimits[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, index) =>
      scene.process(`p${index}`, { redis: await patient(scene.server.port), slicePercent, sliceLeaseMs: 2_000 }),
    ),
  )
}

beforeEach(async () => {
  scene = await RedisScene.start({ appendonly: false })
  redis = await scene.connect()
}, 60_000)
afterEach(() => scene.close(), 60_000)

/** What callers see of calls, beside what limits allow. */
class Load {
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

function callWith(limit: Limit, amount: number): Admission {
  return admission([{ limit, amount }])
}

function callOf({ limits }: Load): Admission {
  return admission(limits.map((limit) => ({ limit, amount: 1 })))
}

async function atRest(load: Load, one: RedisLimits): Promise<void> {
  await eventually(async () => asArray(await redis.call('keys', scene.keys.holding('*'))).length === 0)
  const { counters, reservations } = await readRedisLimits(redis)
  expect(reservations).toEqual([])
  const all = counters?.filter(({ key }) => key === load.month.key)
  expect(all).toEqual([{ key: load.month.key, used: load.used, held: 0 }])
  expect(await remaining(one, load.calls)).toEqual([load.calls.capacity])
  const events = (await drain(one.usageLog, scene.ledger)).map(({ id }) => id)
  expect(new Set(events)).toEqual(load.settled)
  expect(events).toHaveLength(load.settled.size)
}

interface Program {
  readonly processes: number
  readonly capacity: number
  readonly calls: number
  readonly rate: number
  readonly workers: readonly { readonly by: number; readonly amounts: readonly number[]; readonly turns: number }[]
  readonly rounds: number
}

const programs: fc.Arbitrary<Program> = fc.record({
  processes: fc.integer({ min: 1, max: 3 }),
  capacity: fc.integer({ min: 4_000, max: 40_000 }),
  calls: fc.integer({ min: 60, max: 300 }),
  rate: fc.integer({ min: 2_000, max: 20_000 }),
  workers: fc.array(
    fc.record({
      by: fc.nat(2),
      amounts: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 5 }),
      turns: fc.nat(6),
    }),
    { minLength: 1, maxLength: 40 },
  ),
  rounds: fc.integer({ min: 1, max: 60 }),
})

const { TOLLGATE_TEST_SEED: seed = String(Date.now() % 1_000_000_000), TOLLGATE_TEST_RUNS: runs = '10' } = process.env

it(`slices never admit more than the limits, and what is not spent returns, whatever comes where, seed ${seed}`, async () => {
  // Not shrunk: what happens when is not a matter of the program alone.
  for (const program of fc.sample(programs, { seed: Number(seed), numRuns: Number(runs) })) {
    await redis.call('flushall')
    await run(program)
  }
}, 240_000)

async function run({ processes, capacity, calls, rate, workers, rounds }: Program): Promise<void> {
  const all = await start(processes)
  const load = new Load(capacity, calls, rate)
  // Few programs make slices by themselves, because they are over too soon: each process has some when it begins.
  await Promise.all(all.map((limits) => withSlices(limits, load)))
  await Promise.all(
    workers.map(async ({ by, amounts, turns }, worker) => {
      const limits = all[by % all.length]
      for (let round = 0; round < rounds && limits !== undefined; round++) {
        const amount = amounts[round % amounts.length] ?? 0
        await load.call(limits, amount, turns, (round + worker) % 3 === 0 ? Math.trunc(amount / 2) : amount)
      }
    }),
  )
  load.bucketHeld()
  const [one] = all
  if (one !== undefined) await atRest(load, one)
  for (const limits of all) await limits.close()
}

/** Makes calls until the process admitted some from slices. */
async function withSlices(limits: RedisLimits, load: Load): Promise<void> {
  await eventually(async () => {
    await Promise.all(Array.from({ length: 4 }, () => load.call(limits, 1, 0)))
    return limits.sliceSample().admitted > 0
  })
}

describe('near its edge', () => {
  it('a limit is spent to the last unit, and not beyond', async () => {
    const [one, two] = await start(2)
    const load = new Load(8_000, 1_000, 50_000)
    await Promise.all(
      [one, two].flatMap((by) =>
        Array.from({ length: 20 }, async () => {
          while (by !== undefined && load.refused < 40) await load.call(by, 1, 1)
        }),
      ),
    )
    // What another replica holds is back in a moment.
    await eventually(async () => asArray(await redis.call('keys', scene.keys.holding('*'))).length === 0)
    const refused = load.refused
    while (one !== undefined && load.refused === refused) await load.call(one, 1, 0)
    expect(load.used).toBe(8_000)
    expect((one?.sliceSample().admitted ?? 0) + (two?.sliceSample().admitted ?? 0)).toBeGreaterThan(400)
    if (one !== undefined) await atRest(load, one)
  }, 60_000)
})

it('a replica that is alone refuses no call that the limit has room for', async () => {
  const [one] = await start(1)
  const load = new Load(20_000, 1_000, 50_000)
  if (one === undefined) throw new Error('no process')
  await Promise.all(
    Array.from({ length: 30 }, async (_, worker) => {
      for (let round = 0; load.refused === 0; round++) await load.call(one, 1 + ((worker + round) % 40), 1)
    }),
  )
  expect(one.sliceSample().admitted).toBeGreaterThan(100)
  expect(load.used + load.tooMuch).toBeGreaterThan(20_000)
}, 60_000)

it('a replica gives back what it holds before it refuses a call that there is room for', async () => {
  const [one] = await start(1)
  const load = new Load(100_000, 1_000, 50_000)
  if (one === undefined) throw new Error('no process')
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      while (one.sliceSample().units < 100) await load.call(one, 1, 1)
    }),
  )
  const rest = callWith(load.month, load.month.capacity - load.used)
  expect(await one.admit(rest)).toMatchObject({ outcome: 'admitted' })
}, 60_000)

it.each([
  ['that Redis has already', 1],
  ['that comes twice at once', 0],
])(
  'a call %s takes nothing again, beside calls of the same run that are new',
  async (_, known) => {
    const [one, two] = await start(2)
    if (one === undefined || two === undefined) throw new Error('no process')
    const load = new Load(1_000_000, 1_000, 100_000)
    await withSlices(one, load)
    await eventually(async () => {
      const calls = Array.from({ length: 9 }, () => callOf(load))
      await Promise.all(calls.slice(0, known).map((call) => two.admit(call)))
      const before = one.sliceSample().admitted
      const asked = [...calls, ...calls.slice(7 + 2 * known)]
      await Promise.all(asked.map((call) => one.admit(call)))
      for (const call of calls) {
        await one.settle(settlement(call, [1, 1, 1]))
        load.used += 1
        load.settled.add(call.ifAbandoned.id)
      }
      return one.sliceSample().admitted === before + asked.length
    })
    await atRest(load, one)
  },
  60_000,
)

it('no slice is taken of counters that are used now and then', async () => {
  const [one] = await start(1)
  const loads = Array.from({ length: 100 }, () => new Load(1_000_000, 1_000, 100_000))
  for (let round = 0; round < 7; round++) await Promise.all(loads.map((load) => one?.admit(callOf(load))))
  expect(one?.sliceSample()).toMatchObject({ admitted: 0, taken: 0, units: 0 })
}, 60_000)

it('a limit that is lowered while slices of it are out admits nothing from then on', async () => {
  const [one] = await start(1)
  const load = new Load(1_000_000, 10_000, 100_000)
  if (one === undefined) throw new Error('no process')
  await withSlices(one, load)
  const lowered = { ...load.month, capacity: 1 } as const
  const results = await Promise.all(
    Array.from({ length: 100 }, () => one.admit(admission([{ limit: lowered, amount: 1 }]))),
  )
  expect(results.filter(({ outcome }) => outcome !== 'refused')).toEqual([])
  await atRest(load, one)
}, 60_000)

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

/** Resolves when what replicas were silent about for too long is recorded or back, and only so many calls are open. */
async function swept(by: RedisLimits, open = 0): Promise<void> {
  await eventually(async () => {
    await by.usageLog.sweep()
    const left = asArray(await redis.call('keys', scene.keys.holding('*')))
    return left.length === 0 && (await readRedisLimits(redis)).reservations.length === open
  })
}

describe('a replica that is killed with slices', () => {
  it('leaves one record of each of its calls, and nothing held, and no unit is there twice', async () => {
    // With an append-only file Redis is behind what is written to it, which is what a kill could lose.
    await scene.close()
    scene = await RedisScene.start({})
    redis = await scene.connect()
    const [one] = await start(1)
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
      expect(((await readRedisLimits(redis)).slices ?? []).length).toBeGreaterThan(0)
      const ended = once(child, 'close')
      child.kill('SIGKILL')
      await ended
      admitted.push(...(await said()).admitted)
    }
    await swept(one, 1)
    const events = (await drain(one.usageLog, scene.ledger)).map(({ id }) => id)
    expect(new Set(events).size).toBe(events.length)
    const recorded = new Set(events)
    expect(admitted.filter((id) => !recorded.has(id))).toEqual([])
    const { counters } = await readRedisLimits(redis)
    expect(counters?.filter(({ key }) => key === load.month.key)).toEqual([
      { key: load.month.key, used: events.length, held: 500_000 },
    ])
    expect(await remaining(one, load.month, load.calls)).toEqual([500_000 - events.length, 500_000])
  }, 120_000)
})

describe('a replica that is stopped for longer than its holding lives', () => {
  it('spends nothing of it when it goes on', async () => {
    const [one] = await start(1)
    if (one === undefined) throw new Error('no process')
    const load = new Load(1_000_000, 100_000, 1_000_000)
    const { child, said } = await spawnCalls([load.month])
    await eventually(async () => (await said()).bySlice > 300)
    child.kill('SIGSTOP')
    await swept(one)
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
    const [one, two] = await start(2)
    if (one === undefined || two === undefined) throw new Error('no process')
    const month = period({ capacity: 1_000_000 })
    const burst = () => Promise.all(Array.from({ length: 150 }, () => two.admit(callWith(month, 1))))
    let late: Awaited<ReturnType<typeof burst>> = []
    await eventually(async () => {
      while (two.sliceSample().units <= 140) await burst()
      // As if it had ended: the other replica gives it back, and takes all that is left.
      const [holder = ''] = asArray(await redis.call('zrange', scene.keys.holdings(), 0, -1)).map(String)
      await redis.call('zadd', scene.keys.holdings(), 1, holder)
      await one.usageLog.sweep()
      // Else its replica renewed it just then.
      const isGone = (await redis.call('zscore', scene.keys.holdings(), holder)) === null
      const [used = 0, held = 0] = String(await redis.call('get', scene.keys.limit(month.key)))
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
    const all = await start(2)
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
      await redis.call('flushall')
    }
    await Promise.all(loads)
    const [one] = all
    if (one === undefined) throw new Error('no process')
    expect(all.reduce((sum, limits) => sum + limits.sliceSample().admitted, 0)).toBeGreaterThan(100)
    expect(await remaining(one, load.month)).toEqual([100_000 - load.used])
    await atRest(load, one)
  }, 60_000)
})

describe('a connection that is cut while slices are out', () => {
  it.each(['cut', 'stall'] as const)(
    'leaves one record of each call, and nothing held (%s)',
    async (fault) => {
      const proxy = await startCutProxy({ upstream: () => ({ host: '127.0.0.1', port: scene.server.port }) })
      onTestFinished(() => proxy.close())
      const client = await connectRedis({
        url: `redis://127.0.0.1:${proxy.port}`,
        log,
        commandTimeoutMs: 300,
      })
      onTestFinished(() => client.disconnect())
      const [other] = await start(1)
      const limits = await scene.process('cut', { redis: client, slicePercent: 50, sliceLeaseMs: 2_000 })
      if (other === undefined) throw new Error('no process')
      const load = new Load(1_000_000, 10_000, 100_000)
      const slow = bucket({ capacity: 1_000_000, refill: 1, windowMs: 60_000 })
      const admitted: string[] = []
      let isOver = false
      const loads = Array.from({ length: 20 }, async (_, worker) => {
        while (!isOver) {
          const call = admission([...load.limits, slow].map((limit) => ({ limit, amount: 1 })))
          const result = await limits.admit(call).catch(() => undefined)
          if (result?.outcome !== 'admitted') await turn()
          if (result?.outcome !== 'admitted') continue
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
      await eventually(async () => {
        await limits.usageLog.sweep()
        await other.usageLog.sweep()
        const left = asArray(await redis.call('keys', scene.keys.holding('*')))
        return left.length === 0 && (await readRedisLimits(redis)).reservations.length === 0
      })
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
