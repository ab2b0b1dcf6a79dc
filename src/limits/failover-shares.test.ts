import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { costs } from './conformance-scene.ts'
import { admission, bucket, concurrency, period, settlement } from './conformance-support.ts'
import { admitAll, admitted, back, FailoverScene, remaining } from './failover-scene.ts'

let scene: FailoverScene

beforeEach(async () => {
  scene = await FailoverScene.open()
})
afterEach(() => scene.close())

describe('mode local: while the shared store is away', () => {
  it('a replica admits its share of each limit, and no more', async () => {
    const { limits, link } = await scene.start({ replicas: () => 3 })
    const [month, requests, calls] = [period({ capacity: 1_000 }), bucket({ capacity: 12 }), concurrency(7)]
    scene.ledger.usedBefore.set(month.key, 400)
    link.state = 'away'
    expect(await admitAll(limits, costs([month, 10]))).toHaveLength(20)
    expect(await admitAll(limits, costs([requests, 1]))).toHaveLength(4)
    expect(await admitAll(limits, costs([calls, 1]))).toHaveLength(2)
  })

  it('replicas admit together what is left, and no more, whatever they had open or just used', async () => {
    const replicas = [await scene.start({ replicas: () => 2 }), await scene.start({ replicas: () => 2 })]
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
    await eventually(async () => (await scene.ledger.seed(month, [])) === used)
    await eventually(async () => (await remaining(scene.store, month, calls))[0] === 1_000 - used)
    expect(await remaining(scene.store, calls)).toEqual([6])
  })

  it('a replica charges to its share what it used last, also when the ledger does not have it yet', async () => {
    const { limits, link } = await scene.start({ replicas: () => 2 })
    await scene.storeDrain.stop()
    const month = period({ capacity: 1_000 })
    await limits.settle(settlement(await admitted(limits, costs([month, 10])), [200]))
    link.state = 'away'
    expect(await admitAll(limits, costs([month, 10]))).toHaveLength(30)
  })

  it('the next outage shares what is left then', async () => {
    const replica = await scene.start({ replicas: () => 2 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    const cost = costs([month, 10])
    link.state = 'away'
    const first = await admitAll(limits, cost)
    expect(first).toHaveLength(50)
    for (const call of first) await limits.settle(settlement(call, [10]))
    await back(replica)
    await limits.settle(settlement(await admitted(limits, cost), [100]))
    await eventually(async () => (await scene.ledger.seed(month, [])) === 600)
    link.state = 'away'
    expect(await admitAll(limits, cost)).toHaveLength(20)
  })

  it('a share does not grow by asking the ledger again', async () => {
    const { limits, link } = await scene.start({ replicas: () => 2 })
    const month = period({ capacity: 1_000 })
    link.state = 'away'
    const call = await admitted(limits, costs([month, 400]), { leaseMs: 1 })
    await eventually(async () => (await limits.localUsageLog.sweep()) === 1)
    // Corrects what was recorded when the lease ended: the counter is not known any more.
    await limits.settle(settlement(call, [300]))
    await eventually(async () => (await scene.ledger.seed(month, [])) === 300)
    expect(await admitAll(limits, costs([month, 10]))).toHaveLength(20)
  })

  it('a replica that others did not count admits nothing', async () => {
    const { limits, link } = await scene.start({ replicas: () => 0 })
    link.state = 'away'
    const call = admission(costs([bucket({ capacity: 9 }), 1]))
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
  })

  it('nothing is admitted on a month that the ledger cannot tell', async () => {
    const { limits, link } = await scene.start()
    link.state = 'away'
    scene.ledger.answer = () => Promise.reject(new Error('down'))
    const call = admission(costs([period({ capacity: 1_000 }), 1]))
    await expect(limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    scene.ledger.answer = async (used) => used
    expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
  })
})
