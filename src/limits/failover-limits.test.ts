import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { costs } from './conformance-scene.ts'
import { admission, bucket, claim, concurrency, period, settlement, usageEvent } from './conformance-support.ts'
import { admitted, back, FailoverScene, remaining } from './failover-scene.ts'

let scene: FailoverScene

beforeEach(async () => {
  scene = await FailoverScene.open()
})
afterEach(() => scene.close())

describe.each(['open', 'local'] as const)('mode %s: while the shared store is away', (mode) => {
  it('calls go on and are recorded, and when it is back its counters are what the ledger says', async () => {
    const replica = await scene.start({ mode })
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
    expect(await remaining(scene.store, month)).toEqual([1_000 - 80 - 20 * 7])
  })

  it('nobody asks it for anything but its health after the first failure', async () => {
    const { limits, link } = await scene.start({ mode })
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
    const replica = await scene.start({ mode })
    const month = period({ capacity: 1_000 })
    const call = await admitted(replica.limits, costs([month, 100]))
    replica.link.state = 'away'
    await replica.limits.settle(settlement(call, [60]))
    await replica.limits.settle(settlement(call, [60]))
    expect(await scene.ledger.seed(month, [])).toBe(0)
    await back(replica)
    expect(await remaining(scene.store, month)).toEqual([940])
    await replica.limits.settle(settlement(call, [60]))
    await eventually(async () => (await scene.store.usageLog.backlog()) === 0)
    expect(await scene.ledger.seed(month, [])).toBe(60)
    expect(await remaining(scene.store, month)).toEqual([940])
  })

  it('a call whose lease ends there is corrected to what it used', async () => {
    const replica = await scene.start({ mode })
    const month = period({ capacity: 1_000 })
    const call = await admitted(replica.limits, costs([month, 100]), { leaseMs: 1 })
    replica.link.state = 'away'
    await replica.limits.settle(settlement(call, [60]))
    await eventually(async () => (await scene.store.usageLog.sweep()) === 1)
    await eventually(async () => (await scene.ledger.seed(month, [])) === 100)
    await back(replica)
    await eventually(async () => (await scene.ledger.seed(month, [])) === 60)
    expect(await remaining(scene.store, month)).toEqual([940])
  })

  it('a local call that ends after it is back is booked all the same', async () => {
    const replica = await scene.start({ mode })
    const month = period({ capacity: 1_000 })
    expect(await remaining(replica.limits, month)).toEqual([1_000])
    replica.link.state = 'away'
    const call = await admitted(replica.limits, costs([month, 100]))
    await back(replica)
    await replica.limits.settle(settlement(call, [60]))
    await eventually(async () => (await remaining(scene.store, month))[0] === 940)
    await replica.limits.settle(settlement(call, [60]))
    expect(await scene.ledger.seed(month, [])).toBe(60)
  })

  it('a call whose answer it lost fails, and the next one is admitted', async () => {
    const { limits, link } = await scene.start({ mode })
    const month = period({ capacity: 1_000 })
    link.state = 'lost'
    await expect(limits.admit(admission(costs([month, 1])))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await admitted(limits, costs([month, 1]))
    expect(link.missed).toBe(1)
  })

  it('health says so and stays ok, and it ends by itself', async () => {
    const replica = await scene.start({ mode })
    expect(await replica.limits.health()).not.toHaveProperty('isDegraded')
    replica.link.state = 'away'
    const detail = expect.stringMatching(mode === 'open' ? /no limits/ : /1\/1 of each limit/)
    expect(await replica.limits.health()).toMatchObject({ ok: true, isDegraded: true, detail })
    expect(replica.limits.state().mode).toBe(mode)
    await back(replica)
    expect(await replica.limits.health()).not.toHaveProperty('isDegraded')
  })

  it('a counter that is doubted follows the ledger when it is back', async () => {
    const replica = await scene.start({ mode })
    const month = period({ capacity: 1_000 })
    expect(await remaining(replica.limits, month)).toEqual([1_000])
    replica.link.state = 'away'
    scene.ledger.usedBefore.set(month.key, 300)
    await replica.limits.correct({ events: [], counters: [month.key] })
    const event = { events: [usageEvent()], counters: [] }
    await expect(replica.limits.correct(event)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await back(replica)
    expect(await remaining(scene.store, month)).toEqual([700])
  })

  it('a ledger that cannot answer is no outage', async () => {
    const { limits } = await scene.start({ mode })
    scene.ledger.answer = () => Promise.reject(new Error('down'))
    const call = admission(costs([period({ capacity: 1_000 }), 1]))
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    expect(limits.state().mode).toBe('redis')
  })

  it('repetitions of a call with a claim get its answer from the process that made it', async () => {
    const { limits, link } = await scene.start({ mode })
    link.state = 'away'
    const own = claim()
    const call = await admitted(limits, costs([bucket({ capacity: 9 }), 1]), { claim: own })
    expect(await limits.admit(admission([], { claim: own }))).toEqual({ outcome: 'running' })
    await limits.settle({ ...settlement(call, [1]), answer: Uint8Array.of(7) })
    const repetition = await limits.admit(admission([], { claim: own }))
    expect(repetition).toEqual({ outcome: 'answered', answer: Uint8Array.of(7) })
  })

  it('nothing is lost or booked twice when the process dies meanwhile', async () => {
    const replica = await scene.start({ mode })
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
    const next = await scene.start({ mode }, await scene.crash(replica))
    await eventually(async () => (await next.limits.localUsageLog.backlog()) === 0)
    await eventually(async () => (await scene.ledger.seed(month, [])) === 50 + 60 + 5 + 100)
    await eventually(async () => (await remaining(scene.store, month))[0] === 1_000 - 215)
    expect(await scene.ledger.seed(other, [])).toBe(10)
    expect(await remaining(scene.store, other)).toEqual([990])
  })
})

describe('mode open: while the shared store is away', () => {
  it('limits refuse nothing, and say what the ledger says', async () => {
    const { limits, link } = await scene.start({ mode: 'open' })
    const [month, calls] = [period({ capacity: 100 }), concurrency(1)]
    scene.ledger.usedBefore.set(month.key, 70)
    link.state = 'away'
    for (let call = 0; call < 5; call++) await admitted(limits, costs([month, 100], [calls, 1]))
    expect(await remaining(limits, month, calls)).toEqual([30, 1])
  })
})
