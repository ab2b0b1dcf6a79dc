import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { admit, type Slot, seed } from './buckets.ts'
import { bucket, concurrency, period } from './conformance-support.ts'
import { periodShare, shareOf } from './share.ts'

const replicas = fc.integer({ min: 1, max: 200 })
const capacities = fc.oneof(fc.nat(20), fc.integer({ min: 0, max: 8e15 }))

describe('the shares of a bucket or concurrency', () => {
  it('add up to no more than the limit, or to one for each replica', () => {
    fc.assert(
      fc.property(
        replicas,
        fc.integer({ min: 1, max: 1e8 }),
        fc.integer({ min: 1, max: 1e6 }),
        (n, capacity, refill) => {
          const share = shareOf(bucket({ capacity, refill }), n)
          if (share.kind !== 'bucket') throw new Error('a bucket became something else')
          expect(share.capacity * n).toBeLessThanOrEqual(Math.max(capacity, n))
          expect(share.refill * n).toBeLessThanOrEqual(Math.max(refill, n))
          expect(Math.min(share.capacity, share.refill)).toBeGreaterThanOrEqual(1)
        },
      ),
    )
  })

  it('count the calls that a replica has open in the shared store', () => {
    expect(shareOf(concurrency(10), 2).capacity).toBe(5)
    expect(shareOf(concurrency(10), 2, 3).capacity).toBe(2)
    expect(shareOf(concurrency(10), 2, 30).capacity).toBe(0)
    expect(shareOf(concurrency(1), 3).capacity).toBe(1)
  })
})

describe('the shares of a period', () => {
  /** What a replica can take in steps of `step`, until it is refused. */
  function taken(limit: ReturnType<typeof period>, start: number, step: number): number {
    const slots = new Map<string, Slot>()
    seed(slots, limit, start, 0)
    for (let total = 0; ; total += step) {
      if (admit(slots, [{ limit, amount: step }], 0).kind !== 'admitted') return total
    }
  }

  it('admit no more together than is left, whatever each replica knows alone', () => {
    const each = fc.record({ own: fc.nat(50), open: fc.nat(50), spentBefore: fc.nat(100) })
    fc.assert(
      fc.property(fc.array(each, { minLength: 1, maxLength: 8 }), fc.nat(2_000), fc.nat(300), (all, capacity, used) => {
        const limit = period({ capacity })
        const share = Math.floor((capacity - used) / all.length)
        fc.pre(all.every(({ own, open }) => own + open <= share))
        let total = used
        let ledger = used
        for (const { own, open, spentBefore } of all) {
          // The share of a replica that asks later is smaller by what others booked meanwhile.
          const localShare = periodShare(limit, all.length, { ledger, own }, open)
          const local = taken(localShare, ledger + own, 1)
          total += own + open + local
          ledger += Math.min(local, spentBefore)
        }
        expect(total).toBeLessThanOrEqual(Math.max(capacity, used))
      }),
    )
  })

  it('exceed what is left by no more than replicas have of their own beyond their share', () => {
    const each = fc.record({ own: fc.nat(500), open: fc.nat(500) })
    fc.assert(
      fc.property(
        fc.array(each, { minLength: 1, maxLength: 8 }),
        fc.nat(2_000),
        fc.nat(3_000),
        (all, capacity, used) => {
          const limit = period({ capacity })
          const share = Math.max(0, Math.floor((capacity - used) / all.length))
          let total = used
          let beyond = 0
          for (const { own, open } of all) {
            const localShare = periodShare(limit, all.length, { ledger: used, own }, open)
            total += own + open + taken(localShare, used + own, 1)
            beyond += Math.max(0, own + open - share)
          }
          expect(total).toBeLessThanOrEqual(Math.max(capacity, used) + beyond)
        },
      ),
    )
  })

  it('stay exact integers within the range of limits, and leave nothing over but the rest of the division', () => {
    fc.assert(
      fc.property(replicas, capacities, capacities, (n, capacity, ledger) => {
        const share = periodShare(period({ capacity }), n, { ledger, own: 0 }, 0)
        expect(Number.isSafeInteger(share.capacity)).toBe(true)
        if (capacity > ledger) expect(capacity - ledger - (share.capacity - ledger) * n).toBeLessThan(n)
      }),
    )
  })

  it('of a limit of 0 refuse everything', () => {
    const limit = periodShare(period({ capacity: 0 }), 2, { ledger: 10, own: 0 }, 0)
    expect(taken(limit, 10, 1)).toBe(0)
    expect(limit.capacity).toBe(0)
  })

  it('give back what open calls turn out not to use', () => {
    const limit = period({ capacity: 100 })
    expect(taken(periodShare(limit, 2, { ledger: 0, own: 0 }, 40), 0, 1)).toBe(10)
    expect(taken(periodShare(limit, 2, { ledger: 0, own: 0 }, 5), 0, 1)).toBe(45)
  })
})
