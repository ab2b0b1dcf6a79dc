import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { admission, settlement } from './conformance-support.ts'
import { callOf, callWith, Load, SlicesScene, withSlices } from './slices-scene.ts'

let scene: SlicesScene

beforeEach(async () => {
  scene = await SlicesScene.start()
}, 60_000)
afterEach(() => scene.close(), 60_000)

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
    await scene.redis.call('flushall')
    await run(program)
  }
}, 240_000)

async function run({ processes, capacity, calls, rate, workers, rounds }: Program): Promise<void> {
  const all = await scene.replicas(processes)
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
  if (one !== undefined) await scene.mustRest(load, one)
  for (const limits of all) await limits.close()
}

describe('near its edge', () => {
  it('a limit is spent to the last unit, and not beyond', async () => {
    const [one, two] = await scene.replicas(2)
    const load = new Load(8_000, 1_000, 50_000)
    await Promise.all(
      [one, two].flatMap((by) =>
        Array.from({ length: 20 }, async () => {
          while (by !== undefined && load.refused < 40) await load.call(by, 1, 1)
        }),
      ),
    )
    // What another replica holds is back in a moment.
    await eventually(() => scene.nothingIsHeld())
    const refused = load.refused
    while (one !== undefined && load.refused === refused) await load.call(one, 1, 0)
    expect(load.used).toBe(8_000)
    expect((one?.sliceSample().admitted ?? 0) + (two?.sliceSample().admitted ?? 0)).toBeGreaterThan(400)
    if (one !== undefined) await scene.mustRest(load, one)
  }, 60_000)
})

it('a replica that is alone refuses no call that the limit has room for', async () => {
  const [one] = await scene.replicas(1)
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
  const [one] = await scene.replicas(1)
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
    const [one, two] = await scene.replicas(2)
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
    await scene.mustRest(load, one)
  },
  60_000,
)

it('no slice is taken of counters that are used now and then', async () => {
  const [one] = await scene.replicas(1)
  const loads = Array.from({ length: 100 }, () => new Load(1_000_000, 1_000, 100_000))
  for (let round = 0; round < 7; round++) await Promise.all(loads.map((load) => one?.admit(callOf(load))))
  expect(one?.sliceSample()).toMatchObject({ admitted: 0, taken: 0, units: 0 })
}, 60_000)

it('a limit that is lowered while slices of it are out admits nothing from then on', async () => {
  const [one] = await scene.replicas(1)
  const load = new Load(1_000_000, 10_000, 100_000)
  if (one === undefined) throw new Error('no process')
  await withSlices(one, load)
  const lowered = { ...load.month, capacity: 1 } as const
  const results = await Promise.all(
    Array.from({ length: 100 }, () => one.admit(admission([{ limit: lowered, amount: 1 }]))),
  )
  expect(results.filter(({ outcome }) => outcome !== 'refused')).toEqual([])
  await scene.mustRest(load, one)
}, 60_000)
