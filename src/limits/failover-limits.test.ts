import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { limitsConformance } from './conformance.ts'
import { costs } from './conformance-scene.ts'
import {
  admission,
  bucket,
  claim,
  concurrency,
  FakeLedger,
  period,
  settlement,
  unknownCall,
  usageEvent,
} from './conformance-support.ts'
import { createFailoverLimits, type FailoverLimits, type FailoverOptions } from './failover-limits.ts'
import { Reachable, startDrain } from './failover-support.ts'
import type { Admission, Limit, LimitCost, Limits } from './limits.ts'
import { createLocalLimits } from './local-limits.ts'

const log = pino({ level: 'silent' })
const closers: (() => Promise<unknown>)[] = []
let ledger: FakeLedger
let store: Limits
let storeDrain: { stop(): Promise<void> }

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-away-'))
  closers.unshift(() => rm(folder, { recursive: true, force: true }))
  return folder
}

interface Replica {
  readonly limits: FailoverLimits
  /** Its way to the store of all. */
  readonly link: Reachable
  readonly folder: string
  /** Stops carrying local usage to the ledger. */
  stopDrain(): Promise<void>
}

async function start(changes: Partial<FailoverOptions> = {}, folder?: string): Promise<Replica> {
  const own = folder ?? (await newFolder())
  const link = new Reachable(store)
  const limits = await createFailoverLimits({
    primary: link,
    openLocal: (seed) => createLocalLimits({ folder: join(own, 'usage'), seed, log }),
    folder: own,
    mode: 'local',
    replicas: () => 1,
    seed: ledger.seed,
    log,
    probeEveryMs: 5,
    ...changes,
  })
  closers.unshift(() => limits.close())
  const drain = startDrain(limits.localUsageLog, ledger)
  closers.unshift(() => drain.stop())
  return { limits, link, folder: own, stopDrain: () => drain.stop() }
}

/** The folder as a process leaves it that dies now. */
async function crash({ folder }: Replica): Promise<string> {
  const copy = await newFolder()
  await cp(folder, copy, { recursive: true })
  await rm(join(copy, 'usage/lock'))
  return copy
}

async function admitted(limits: Limits, cost: readonly LimitCost[], changes: Partial<Admission> = {}) {
  const call = admission(cost, changes)
  expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
  return call
}

/** How often the cost is admitted until it is refused. */
async function admitAll(limits: Limits, cost: readonly LimitCost[]): Promise<Admission[]> {
  const calls: Admission[] = []
  for (;;) {
    const call = admission(cost)
    if ((await limits.admit(call)).outcome !== 'admitted') return calls
    calls.push(call)
  }
}

async function back(...replicas: Replica[]): Promise<void> {
  for (const { link } of replicas) link.state = 'here'
  for (const { limits } of replicas) await eventually(() => limits.state().mode === 'redis')
}

async function remaining(limits: Limits, ...of: Limit[]): Promise<number[]> {
  return (await limits.read(of)).map((state) => state.remaining)
}

beforeEach(async () => {
  ledger = new FakeLedger()
  const folder = await newFolder()
  const opened = await createLocalLimits({ folder, seed: ledger.seed, log })
  store = opened
  closers.unshift(() => opened.close())
  storeDrain = startDrain(opened.usageLog, ledger)
  closers.unshift(() => storeDrain.stop())
})

afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

limitsConformance('failover, while the shared store is here', async (seed) => {
  const folder = await newFolder()
  const shared = await createLocalLimits({ folder: join(folder, 'shared'), seed, log })
  const limits = await createFailoverLimits({
    primary: shared,
    openLocal: (ownSeed) => createLocalLimits({ folder: join(folder, 'own'), seed: ownSeed, log }),
    folder,
    mode: 'local',
    replicas: () => 1,
    seed,
    log,
  })
  return {
    limits,
    other: limits,
    async close() {
      await limits.close()
      await shared.close()
    },
  }
})

describe.each(['open', 'local'] as const)('mode %s: while the shared store is away', (mode) => {
  it('calls go on and are recorded, and when it is back its counters are what the ledger says', async () => {
    const replica = await start({ mode })
    const { limits, link } = replica
    const [month, requests] = [period({ capacity: 1_000 }), bucket({ capacity: 100 })]
    await limits.settle(settlement(await admitted(limits, costs([month, 100], [requests, 1])), [80, 1]))
    link.state = 'away'
    const calls = await Promise.all(
      Array.from({ length: 20 }, () => admitted(limits, costs([month, 10], [requests, 1]))),
    )
    expect(limits.state()).toEqual({ mode, admitted: { redis: 1, open: 0, local: 0, [mode]: 20 } })
    for (const call of calls) await limits.settle(settlement(call, [7, 1]))
    await back(replica)
    expect(await remaining(limits, month)).toEqual([1_000 - 80 - 20 * 7])
    expect(await remaining(store, month)).toEqual([1_000 - 80 - 20 * 7])
  })

  it('nobody asks it for anything but its health after the first failure', async () => {
    const { limits, link } = await start({ mode })
    const [month, calls] = [period({ capacity: 1_000 }), concurrency(10)]
    const before = await admitted(limits, costs([month, 10]))
    link.state = 'away'
    await admitted(limits, costs([month, 10], [calls, 1]))
    expect(link.missed).toBe(1)
    await limits.settle(settlement(await admitted(limits, costs([month, 10], [calls, 1])), [5, 1]))
    await limits.settle(settlement(before, [1]))
    await remaining(limits, month, calls)
    expect(link.missed).toBe(1)
  })

  it('a call that it admitted is answered, and is recorded and counted once when it is back', async () => {
    const replica = await start({ mode })
    const month = period({ capacity: 1_000 })
    const call = await admitted(replica.limits, costs([month, 100]))
    replica.link.state = 'away'
    await replica.limits.settle(settlement(call, [60]))
    await replica.limits.settle(settlement(call, [60]))
    expect(await ledger.seed(month, [])).toBe(0)
    await back(replica)
    expect(await remaining(store, month)).toEqual([940])
    await replica.limits.settle(settlement(call, [60]))
    await eventually(async () => (await store.usageLog.backlog()) === 0)
    expect(await ledger.seed(month, [])).toBe(60)
    expect(await remaining(store, month)).toEqual([940])
  })

  it('a call whose lease ends there is corrected to what it used', async () => {
    const replica = await start({ mode })
    const month = period({ capacity: 1_000 })
    const call = await admitted(replica.limits, costs([month, 100]), { leaseMs: 1 })
    replica.link.state = 'away'
    await replica.limits.settle(settlement(call, [60]))
    await eventually(async () => (await store.usageLog.sweep()) === 1)
    await eventually(async () => (await ledger.seed(month, [])) === 100)
    await back(replica)
    await eventually(async () => (await ledger.seed(month, [])) === 60)
    expect(await remaining(store, month)).toEqual([940])
  })

  it('a local call that ends after it is back is booked all the same', async () => {
    const replica = await start({ mode })
    const month = period({ capacity: 1_000 })
    expect(await remaining(replica.limits, month)).toEqual([1_000])
    replica.link.state = 'away'
    const call = await admitted(replica.limits, costs([month, 100]))
    await back(replica)
    await replica.limits.settle(settlement(call, [60]))
    await eventually(async () => (await remaining(store, month))[0] === 940)
    await replica.limits.settle(settlement(call, [60]))
    expect(await ledger.seed(month, [])).toBe(60)
  })

  it('a call whose answer it lost fails, and the next one is admitted', async () => {
    const { limits, link } = await start({ mode })
    const month = period({ capacity: 1_000 })
    link.state = 'lost'
    await expect(limits.admit(admission(costs([month, 1])))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await admitted(limits, costs([month, 1]))
    expect(link.missed).toBe(1)
  })

  it('health says so and stays ok, and it ends by itself', async () => {
    const replica = await start({ mode })
    expect(await replica.limits.health()).not.toHaveProperty('isDegraded')
    replica.link.state = 'away'
    const detail = expect.stringMatching(mode === 'open' ? /no limits/ : /1\/1 of each limit/)
    expect(await replica.limits.health()).toMatchObject({ ok: true, isDegraded: true, detail })
    expect(replica.limits.state().mode).toBe(mode)
    await back(replica)
    expect(await replica.limits.health()).not.toHaveProperty('isDegraded')
  })

  it('a counter that is doubted follows the ledger when it is back', async () => {
    const replica = await start({ mode })
    const month = period({ capacity: 1_000 })
    expect(await remaining(replica.limits, month)).toEqual([1_000])
    replica.link.state = 'away'
    ledger.usedBefore.set(month.key, 300)
    await replica.limits.correct({ events: [], counters: [month.key] })
    const event = { events: [usageEvent()], counters: [] }
    await expect(replica.limits.correct(event)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await back(replica)
    expect(await remaining(store, month)).toEqual([700])
  })

  it('a ledger that cannot answer is no outage', async () => {
    const { limits } = await start({ mode })
    ledger.answer = () => Promise.reject(new Error('down'))
    const call = admission(costs([period({ capacity: 1_000 }), 1]))
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    expect(limits.state().mode).toBe('redis')
  })

  it('repetitions of a call with a claim get its answer from the process that made it', async () => {
    const { limits, link } = await start({ mode })
    link.state = 'away'
    const own = claim()
    const call = await admitted(limits, costs([bucket({ capacity: 9 }), 1]), { claim: own })
    expect(await limits.admit(admission([], { claim: own }))).toEqual({ outcome: 'running' })
    await limits.settle({ ...settlement(call, [1]), answer: Uint8Array.of(7) })
    const repetition = await limits.admit(admission([], { claim: own }))
    expect(repetition).toEqual({ outcome: 'answered', answer: Uint8Array.of(7) })
  })

  it('nothing is lost or booked twice when the process dies meanwhile', async () => {
    const replica = await start({ mode })
    const { limits, link } = replica
    const [month, other] = [period({ capacity: 1_000 }), period({ capacity: 1_000 })]
    expect(await remaining(limits, other)).toEqual([1_000])
    const [first, settledLate] = [
      await admitted(limits, costs([month, 100])),
      await admitted(limits, costs([month, 100])),
    ]
    await limits.settle(settlement(first, [50]))
    link.state = 'away'
    await limits.settle({ ...settlement(settledLate, [60]), answer: Uint8Array.of(1) })
    const [booked, unbooked] = [
      await admitted(limits, costs([other, 100])),
      await admitted(limits, costs([month, 100])),
    ]
    // Recorded as abandoned by the next process.
    await admitted(limits, costs([month, 100]))
    await limits.settle(settlement(booked, [10]))
    await eventually(async () => (await limits.localUsageLog.backlog()) === 0)
    await replica.stopDrain()
    await limits.settle(settlement(unbooked, [5]))
    const next = await start({ mode }, await crash(replica))
    await eventually(async () => (await next.limits.localUsageLog.backlog()) === 0)
    await eventually(async () => (await ledger.seed(month, [])) === 50 + 60 + 5 + 100)
    await eventually(async () => (await remaining(store, month))[0] === 1_000 - 215)
    expect(await ledger.seed(other, [])).toBe(10)
    expect(await remaining(store, other)).toEqual([990])
  })
})

describe('mode open: while the shared store is away', () => {
  it('limits refuse nothing, and say what the ledger says', async () => {
    const { limits, link } = await start({ mode: 'open' })
    const [month, calls] = [period({ capacity: 100 }), concurrency(1)]
    ledger.usedBefore.set(month.key, 70)
    link.state = 'away'
    for (let call = 0; call < 5; call++) await admitted(limits, costs([month, 100], [calls, 1]))
    expect(await remaining(limits, month, calls)).toEqual([30, 1])
  })
})

describe('mode local: while the shared store is away', () => {
  it('a replica admits its share of each limit, and no more', async () => {
    const { limits, link } = await start({ replicas: () => 3 })
    const [month, requests, calls] = [period({ capacity: 1_000 }), bucket({ capacity: 12 }), concurrency(7)]
    ledger.usedBefore.set(month.key, 400)
    link.state = 'away'
    expect(await admitAll(limits, costs([month, 10]))).toHaveLength(20)
    expect(await admitAll(limits, costs([requests, 1]))).toHaveLength(4)
    expect(await admitAll(limits, costs([calls, 1]))).toHaveLength(2)
  })

  it('replicas admit together what is left, and no more, whatever they had open or just used', async () => {
    const replicas = [await start({ replicas: () => 2 }), await start({ replicas: () => 2 })]
    const [one, two] = replicas.map(({ limits }) => limits)
    if (one === undefined || two === undefined) throw new Error('two replicas were started')
    const [month, calls] = [period({ capacity: 1_000 }), concurrency(6)]
    const cost = costs([month, 10], [calls, 1])
    await one.settle(settlement(await admitted(one, cost), [90, 1]))
    await two.settle(settlement(await admitted(two, cost), [20, 1]))
    const open = [await admitted(one, cost), await admitted(one, cost), await admitted(two, cost)]
    for (const { link } of replicas) link.state = 'away'
    const local = [await admitAll(one, cost), await admitAll(two, cost)]
    expect(local.map((calls) => calls.length)).toEqual([1, 2])
    for (const call of local[0] ?? []) await one.settle(settlement(call, [10, 1]))
    for (const call of local[1] ?? []) await two.settle(settlement(call, [10, 1]))
    for (const call of open.slice(0, 2)) await one.settle(settlement(call, [15, 1]))
    for (const call of open.slice(2)) await two.settle(settlement(call, [10, 1]))
    let used = 90 + 20 + 40 + 30
    for (const limits of [one, two]) {
      for (const call of await admitAll(limits, costs([month, 10]))) {
        used += 10
        await limits.settle(settlement(call, [10]))
      }
    }
    expect(used).toBeLessThanOrEqual(1_000)
    expect(used).toBeGreaterThan(1_000 - 20)
    await back(...replicas)
    await eventually(async () => (await ledger.seed(month, [])) === used)
    await eventually(async () => (await remaining(store, month, calls))[0] === 1_000 - used)
    expect(await remaining(store, calls)).toEqual([6])
  })

  it('a replica charges to its share what it used last, also when the ledger does not have it yet', async () => {
    const { limits, link } = await start({ replicas: () => 2 })
    await storeDrain.stop()
    const month = period({ capacity: 1_000 })
    await limits.settle(settlement(await admitted(limits, costs([month, 10])), [200]))
    link.state = 'away'
    expect(await admitAll(limits, costs([month, 10]))).toHaveLength(30)
  })

  it('the next outage shares what is left then', async () => {
    const replica = await start({ replicas: () => 2 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    const cost = costs([month, 10])
    link.state = 'away'
    const first = await admitAll(limits, cost)
    expect(first).toHaveLength(50)
    for (const call of first) await limits.settle(settlement(call, [10]))
    await back(replica)
    await limits.settle(settlement(await admitted(limits, cost), [100]))
    await eventually(async () => (await ledger.seed(month, [])) === 600)
    link.state = 'away'
    expect(await admitAll(limits, cost)).toHaveLength(20)
  })

  it('a share does not grow by asking the ledger again', async () => {
    const { limits, link } = await start({ replicas: () => 2 })
    const month = period({ capacity: 1_000 })
    link.state = 'away'
    const call = await admitted(limits, costs([month, 400]), { leaseMs: 1 })
    await eventually(async () => (await limits.localUsageLog.sweep()) === 1)
    // Corrects what was recorded when the lease ended: the counter is not known any more.
    await limits.settle(settlement(call, [300]))
    await eventually(async () => (await ledger.seed(month, [])) === 300)
    expect(await admitAll(limits, costs([month, 10]))).toHaveLength(20)
  })

  it('a replica that others did not count admits nothing', async () => {
    const { limits, link } = await start({ replicas: () => 0 })
    link.state = 'away'
    const call = admission(costs([bucket({ capacity: 9 }), 1]))
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
  })

  it('nothing is admitted on a month that the ledger cannot tell', async () => {
    const { limits, link } = await start()
    link.state = 'away'
    ledger.answer = () => Promise.reject(new Error('down'))
    const call = admission(costs([period({ capacity: 1_000 }), 1]))
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    ledger.answer = async (used) => used
    expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
  })
})

describe('the end of an outage', () => {
  /** Resolves when the replica has found the store again: what that admitted settles there, not here. */
  async function ending({ limits, link }: Replica): Promise<void> {
    link.state = 'here'
    await eventually(async () => {
      const { answered } = link
      await limits.settle(unknownCall())
      return link.answered > answered
    })
  }

  it('waits until the ledger has what was used meanwhile', async () => {
    const replica = await start({ bookWithinMs: 60_000 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    expect(await remaining(limits, month)).toEqual([1_000])
    await replica.stopDrain()
    link.state = 'away'
    await limits.settle(settlement(await admitted(limits, costs([month, 100])), [100]))
    await ending(replica)
    expect(limits.state().mode).toBe('local')
    const drain = startDrain(limits.localUsageLog, ledger)
    await eventually(() => limits.state().mode === 'redis')
    expect(await remaining(store, month)).toEqual([900])
    await drain.stop()
  })

  it('does not wait for the ledger for ever, and what is booked later is counted then', async () => {
    const replica = await start({ bookWithinMs: 50 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    expect(await remaining(limits, month)).toEqual([1_000])
    await replica.stopDrain()
    link.state = 'away'
    await limits.settle(settlement(await admitted(limits, costs([month, 100])), [100]))
    await back(replica)
    expect(await remaining(store, month)).toEqual([1_000])
    const drain = startDrain(limits.localUsageLog, ledger)
    await eventually(async () => (await remaining(store, month))[0] === 900)
    await drain.stop()
  })

  it('is none when the store goes away again before all is booked', async () => {
    const replica = await start({ bookWithinMs: 60_000 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    await replica.stopDrain()
    link.state = 'away'
    await limits.settle(settlement(await admitted(limits, costs([month, 100])), [100]))
    await ending(replica)
    const shared = [await admitted(store, costs([month, 10])), await admitted(store, costs([month, 10]))]
    const { missed } = link
    link.state = 'away'
    for (const call of shared) await limits.settle(settlement(call, [10]))
    await admitted(limits, costs([month, 1]))
    expect(link.missed).toBe(missed + 1)
    expect(limits.state().mode).toBe('local')
  })
})
