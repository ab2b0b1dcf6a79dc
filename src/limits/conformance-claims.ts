import { describe, expect, it } from 'vitest'
import { costs, type Scene } from './conformance-scene.ts'
import { admission, bucket, claim, concurrency, period } from './conformance-support.ts'
import type { AdmissionResult, Claim, LimitCost, Limits } from './limits.ts'

/** One call at a time holds a claim, and its answer is everybody's. */
export function claimConformance(scene: () => Scene): void {
  /** Another call with this claim. */
  const again = (held: Claim, cost: readonly LimitCost[] = [], limits: Limits = scene().limits) =>
    limits.admit(admission(cost, { claim: held }))

  const answered = (...bytes: number[]): AdmissionResult => ({ outcome: 'answered', answer: Uint8Array.from(bytes) })

  describe('a claim', () => {
    it('is held by one call: another waits, another with other content is a mismatch, and neither takes anything', async () => {
      const held = claim()
      const [month, calls] = [period({ capacity: 100 }), concurrency(5)]
      const cost = costs([month, 10], [calls, 1])
      const call = admission(cost, { claim: held })
      expect(await scene().limits.admit(call)).toMatchObject({ outcome: 'admitted' })
      expect(await again(held, cost)).toEqual({ outcome: 'running' })
      expect(await again(held, cost, scene().other)).toEqual({ outcome: 'running' })
      expect(await again({ ...held, fingerprint: 'b' }, cost)).toEqual({ outcome: 'mismatch' })
      expect(await scene().limits.admit(call)).toMatchObject({ outcome: 'admitted' })
      expect(await scene().remaining(month, calls)).toEqual([90, 4])
      expect(await again(claim(), cost)).toMatchObject({ outcome: 'admitted' })
    })

    it('is won by exactly one of many calls that come at once', async () => {
      const [held, month] = [claim(), period({ capacity: 100 })]
      const results = await Promise.all(Array.from({ length: 50 }, () => again(held, costs([month, 1]))))
      const outcomes = results.map((result) => result.outcome)
      expect(outcomes.filter((outcome) => outcome === 'admitted')).toHaveLength(1)
      expect(outcomes.filter((outcome) => outcome === 'running')).toHaveLength(49)
      expect(await scene().remaining(month)).toEqual([99])
    })

    it('keeps the answer for every other call with the same content, and takes nothing for it', async () => {
      const [held, month, calls] = [claim(), period({ capacity: 10 }), concurrency(1)]
      const cost = costs([month, 10], [calls, 1])
      const call = await scene().admitted(cost, { claim: held })
      await scene().settle(call, [10, 1], Uint8Array.of(1, 2, 3))
      // Also of a month that is used up.
      expect(await again(held, cost)).toEqual(answered(1, 2, 3))
      expect(await again(held, cost, scene().other)).toEqual(answered(1, 2, 3))
      expect(await again({ ...held, fingerprint: 'b' }, cost)).toEqual({ outcome: 'mismatch' })
      expect(await scene().remaining(month, calls)).toEqual([0, 1])
      expect(await scene().drain()).toHaveLength(1)
      expect(await again(held, cost)).toEqual(answered(1, 2, 3))
    })

    it('keeps the first answer when the call is settled again', async () => {
      const held = claim()
      const call = await scene().admitted([], { claim: held })
      await scene().settle(call, [], Uint8Array.of(1))
      await scene().settle(call, [], Uint8Array.of(2))
      await scene().settle(call, [])
      expect(await again(held)).toEqual(answered(1))
    })

    it.each<[string, Uint8Array]>([
      ['no bytes', new Uint8Array()],
      ['every byte', Uint8Array.from({ length: 1_024 }, (_, index) => index)],
      ['a mebibyte', Uint8Array.from({ length: 1_048_576 }, (_, index) => (index * 31) >> 3)],
    ])('gives back an answer of %s byte by byte', async (_, bytes) => {
      const held = claim()
      const call = await scene().admitted([], { claim: held })
      await scene().settle(call, [], bytes)
      const result = await again(held)
      expect(result.outcome === 'answered' && Buffer.from(result.answer).equals(bytes)).toBe(true)
    })

    it('is given up by a call that was settled without an answer: the next is a new call', async () => {
      const held = claim()
      const call = await scene().admitted([], { claim: held })
      await scene().settle(call, [])
      expect(await again({ ...held, fingerprint: 'b' })).toMatchObject({ outcome: 'admitted' })
      expect(await again(held)).toEqual({ outcome: 'mismatch' })
    })

    it('is not taken by a call that is refused, or that nobody can decide on', async () => {
      const [held, month] = [claim(), period({ capacity: 10 })]
      expect(await again(held, costs([bucket({ capacity: 1 }), 2]))).toMatchObject({ outcome: 'refused' })
      const { answer } = scene().ledger
      scene().ledger.answer = async () => Number.NaN
      await expect(again(held, costs([month, 1]))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
      scene().ledger.answer = answer
      expect(await again(held, costs([month, 1]))).toMatchObject({ outcome: 'admitted' })
    })

    it('is free again when the lease ran out, and a late settlement takes it from nobody', async () => {
      const held = claim()
      const [first, second] = [
        await scene().abandoned([], { claim: held }),
        await scene().abandoned([], { claim: held }),
      ]
      const third = await scene().admitted([], { claim: held })
      await scene().settle(first, [], Uint8Array.of(1))
      await scene().settle(second, [])
      expect(await again(held)).toEqual({ outcome: 'running' })
      await scene().settle(third, [], Uint8Array.of(3))
      expect(await again(held)).toEqual(answered(3))
    })
  })
}
