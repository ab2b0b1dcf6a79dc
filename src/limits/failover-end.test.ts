import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { costs } from './conformance-scene.ts'
import { period, settlement, unknownCall } from './conformance-support.ts'
import { admitted, back, FailoverScene, type Replica, remaining } from './failover-scene.ts'

let scene: FailoverScene

beforeEach(async () => {
  scene = await FailoverScene.open()
})
afterEach(() => scene.close())

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
    const replica = await scene.start({ bookWithinMs: 60_000 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    expect(await remaining(limits, month)).toEqual([1_000])
    await replica.stopDrain()
    link.state = 'away'
    await limits.settle(settlement(await admitted(limits, costs([month, 100])), [100]))
    await ending(replica)
    expect(limits.state().mode).toBe('local')
    const drain = scene.drain(limits.localUsageLog)
    await eventually(() => limits.state().mode === 'redis')
    expect(await remaining(scene.store, month)).toEqual([900])
    await drain.stop()
  })

  it('does not wait for the ledger for ever, and what is booked later is counted then', async () => {
    const replica = await scene.start({ bookWithinMs: 50 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    expect(await remaining(limits, month)).toEqual([1_000])
    await replica.stopDrain()
    link.state = 'away'
    await limits.settle(settlement(await admitted(limits, costs([month, 100])), [100]))
    await back(replica)
    expect(await remaining(scene.store, month)).toEqual([1_000])
    const drain = scene.drain(limits.localUsageLog)
    await eventually(async () => (await remaining(scene.store, month))[0] === 900)
    await drain.stop()
  })

  it('is none when the store goes away again before all is booked', async () => {
    const replica = await scene.start({ bookWithinMs: 60_000 })
    const { limits, link } = replica
    const month = period({ capacity: 1_000 })
    await replica.stopDrain()
    link.state = 'away'
    await limits.settle(settlement(await admitted(limits, costs([month, 100])), [100]))
    await ending(replica)
    const shared = [await admitted(scene.store, costs([month, 10])), await admitted(scene.store, costs([month, 10]))]
    const { missed } = link
    link.state = 'away'
    for (const call of shared) await limits.settle(settlement(call, [10]))
    await admitted(limits, costs([month, 1]))
    expect(link.missed).toBe(missed + 1)
    expect(limits.state().mode).toBe('local')
  })
})
