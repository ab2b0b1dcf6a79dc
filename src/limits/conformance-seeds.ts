import { describe, expect, it } from 'vitest'
import { noTokens, type UsageEvent } from '../metering/usage-event.ts'
import { costs, type Scene } from './conformance-scene.ts'
import { admission, bucket, period, unknownCall, uuid } from './conformance-support.ts'
import type { PeriodLimit, UsageScope } from './limits.ts'

/** Period counters start from the ledger, exactly, whatever happens meanwhile. */
export function seedConformance(scene: () => Scene): void {
  /** Asks made for a limit. */
  const asked = (limit: PeriodLimit) => scene().ledger.asked.filter((question) => question.key === limit.key)

  /** Makes a counter unknown. */
  const forget = (limit: PeriodLimit) => scene().limits.correct({ events: [], counters: [limit.key] })

  /** Records an event that moves no known counter. */
  async function record(changes: Partial<UsageEvent>): Promise<string> {
    const call = unknownCall(changes)
    await scene().limits.settle(call)
    return call.event.id
  }

  describe('a period that is not known', () => {
    it('starts from what the ledger says was used, once', async () => {
      const month = period({ capacity: 1_000 })
      scene().ledger.usedBefore.set(month.key, 995)
      const cost = costs([month, 3])
      expect(await scene().limits.admit(admission(cost))).toMatchObject({ limits: [{ remaining: 2 }] })
      expect(await scene().limits.admit(admission(cost))).toMatchObject({ outcome: 'refused' })
      expect(asked(month)).toEqual([{ key: month.key, waiting: [] }])
    })

    it('refuses when all of it was used before, and is not asked for again', async () => {
      const month = period({ capacity: 1_000 })
      scene().ledger.usedBefore.set(month.key, 1_200)
      expect(await scene().remaining(bucket({ capacity: 3 }), month)).toEqual([3, -200])
      expect(await scene().limits.admit(admission(costs([month, 1])))).toMatchObject({ outcome: 'refused' })
      expect(asked(month)).toHaveLength(1)
    })

    it('never admits too much when its first calls come at once', async () => {
      const month = period({ capacity: 1_000 })
      scene().ledger.usedBefore.set(month.key, 995)
      const calls = Array.from({ length: 30 }, () => scene().limits.admit(admission(costs([month, 1]))))
      expect((await Promise.all(calls)).filter((result) => result.outcome === 'admitted')).toHaveLength(5)
      expect(await scene().remaining(month)).toEqual([0])
    })

    it.each<[string, (used: number) => Promise<number>]>([
      ['does not answer', () => Promise.reject(new Error('down'))],
      ['answers with no number', async () => Number.NaN],
    ])('is LIMITS_UNAVAILABLE, and nothing is taken, when the ledger %s', async (_, fault) => {
      const [requests, month] = [bucket({ capacity: 3 }), period({ capacity: 10 })]
      const { answer } = scene().ledger
      scene().ledger.answer = fault
      const call = admission(costs([requests, 3], [month, 1]))
      await expect(scene().limits.admit(call)).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
      await expect(scene().limits.read([month])).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
      expect(await scene().remaining(requests)).toEqual([3])
      scene().ledger.answer = answer
      expect(await scene().limits.admit(call)).toMatchObject({ outcome: 'admitted', limits: [{}, { remaining: 9 }] })
    })

    it('is asked for with the waiting events of its subject, service, month and currency, and no others', async () => {
      const [consumerId, serviceId] = [uuid(), uuid()]
      const scope: UsageScope = { kind: 'consumer', id: consumerId, serviceId: undefined }
      const all = period({ capacity: 1_000, scope })
      const ofService = period({ capacity: 1_000, scope: { ...scope, serviceId } })
      const money = period({ capacity: 1_000, scope, unit: 'nanos' })
      const tokens = { ...noTokens, input: 10, cachedInput: 20, output: 30 }
      const both = await record({ consumerId, serviceId, tokens, costNanos: 70 })
      const euro = await record({ consumerId, serviceId: uuid(), tokens, costNanos: 500, currency: 'EUR' })
      await record({ consumerId: uuid(), serviceId })
      await record({ consumerId, serviceId, startMs: all.endsAtMs })
      await record({ consumerId, serviceId, startMs: Date.UTC(2026, 0, 31) })
      expect(await scene().remaining(all, ofService, money)).toEqual([1_000 - 120, 1_000 - 60, 1_000 - 70])
      expect(asked(all)).toEqual([{ key: all.key, waiting: [both, euro].sort() }])
      expect(asked(ofService)).toEqual([{ key: ofService.key, waiting: [both] }])
      expect(asked(money)).toEqual([{ key: money.key, waiting: [both] }])
    })

    it('counts an event once before, while and after the ledger takes it', async () => {
      const month = period({ capacity: 1_000 })
      const id = await record({ consumerId: month.scope.id, tokens: { ...noTokens, input: 100 } })
      const batch = await scene().limits.usageLog.read(1, 5_000, AbortSignal.timeout(20_000))
      expect(batch.size).toBe(1)
      expect(await scene().remaining(month)).toEqual([900])
      scene().ledger.take(batch.events())
      await forget(month)
      expect(await scene().remaining(month)).toEqual([900])
      await batch.acknowledge()
      await forget(month)
      expect(await scene().remaining(month)).toEqual([900])
      expect(asked(month).map((question) => question.waiting)).toEqual([[id], [id], []])
    })

    it('is asked for again when a call of it settles before the answer came', async () => {
      const month = period({ capacity: 1_000 })
      const [early, open] = [await scene().admitted(costs([month, 50])), await scene().admitted(costs([month, 200]))]
      await forget(month)
      const { promise, resolve } = Promise.withResolvers<void>()
      scene().ledger.answer = async (used) => {
        await promise
        return used
      }
      const reading = scene().remaining(month)
      await expect.poll(() => asked(month).length).toBe(2)
      await scene().settle(early, [30])
      resolve()
      expect(await reading).toEqual([1_000 - 30 - 200])
      expect(asked(month).slice(1)).toEqual([
        { key: month.key, waiting: [] },
        { key: month.key, waiting: [early.ifAbandoned.id] },
      ])
      await scene().settle(open, [100])
      expect(await scene().remaining(month)).toEqual([1_000 - 130])
    })

    it('is asked for again when somebody doubts it before the answer came', async () => {
      const month = period({ capacity: 1_000 })
      const { promise, resolve } = Promise.withResolvers<void>()
      scene().ledger.answer = async (used) => {
        await promise
        return used
      }
      const reading = scene().remaining(month)
      await expect.poll(() => asked(month).length).toBe(1)
      scene().ledger.usedBefore.set(month.key, 300)
      await forget(month)
      resolve()
      expect(await reading).toEqual([700])
    })

    it('still knows what is held for open calls', async () => {
      const month = period({ capacity: 100 })
      const call = await scene().admitted(costs([month, 60]))
      await forget(month)
      expect(await scene().remaining(month)).toEqual([40])
      expect(await scene().limits.admit(admission(costs([month, 50])))).toMatchObject({ outcome: 'refused' })
      await forget(month)
      await scene().settle(call, [10])
      expect(await scene().remaining(month)).toEqual([90])
    })
  })
}
