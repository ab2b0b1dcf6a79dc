import { describe, expect, it } from 'vitest'
import { bucket, concurrency, period } from './conformance-support.ts'
import { isSliceable, lookEveryMs, Slice } from './slice.ts'

const state = { remaining: 500, resetAtMs: 7 }

/** Calls that come evenly for so many looks; what the last look asked. */
function busy(slice: Slice, calls: number, amount: number, looks: number, from = 0) {
  let move: ReturnType<Slice['look']>
  for (let look = 1; look <= looks; look++) {
    for (let call = 0; call < calls; call++) slice.note(amount)
    move = slice.look(from + look * lookEveryMs)
    if (look < looks && (move?.wanted ?? 0) > 0) slice.given(0, undefined, Number.NEGATIVE_INFINITY)
  }
  return move
}

/** Whether the store is asked for units when many calls come at once. */
function isOpen(slice: Slice, nowMs: number): boolean {
  return Array.from({ length: 10 }, () => slice.isWorthIt(nowMs)).includes(true)
}

describe('a slice', () => {
  it('is what calls take in the next moment, and asked for only when calls keep coming', () => {
    const slice = new Slice(period({ capacity: 1e6 }), 'p')
    expect(busy(slice, 1, 10, 1)).toBeUndefined()
    const move = busy(slice, 10, 10, 40)
    expect(move?.wanted).toBeGreaterThan(700)
    expect(move?.wanted).toBeLessThanOrEqual(800)
    expect(move?.least).toBeLessThanOrEqual(50)
  })

  it('is spent unit by unit, and says what is left by what the store said last', () => {
    const slice = new Slice(period({ capacity: 1e6 }), 'p')
    slice.given(100, state, 0)
    slice.spend(30)
    expect([slice.units, slice.state()]).toEqual([70, { remaining: 570, resetAtMs: 7 }])
    expect(slice.giveBack(0)).toBe(70)
    expect([slice.units, slice.state().remaining]).toEqual([0, 500])
  })

  it('goes back when no call came for a moment', () => {
    const slice = new Slice(concurrency(1_000), 'c')
    busy(slice, 10, 1, 20)
    slice.given(80, state, 0)
    const moves = Array.from({ length: 6 }, (_, look) => slice.look((21 + look) * lookEveryMs))
    expect(moves.reduce((sum, move) => sum + (move?.back ?? 0), 0)).toBe(80)
    expect([slice.units, slice.isIdle]).toEqual([0, true])
  })

  it('is not asked for again at once where there was nothing to have, and each time later', () => {
    const slice = new Slice(period({ capacity: 1e6 }), 'p')
    let now = 0
    const pauses: number[] = []
    for (let time = 0; time < 8; time++) {
      slice.given(0, undefined, now)
      const from = now
      while (!isOpen(slice, now)) now += 1
      pauses.push(now - from)
    }
    expect(pauses).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000])
    slice.given(5, state, now)
    slice.given(0, undefined, now)
    expect([isOpen(slice, now + 249), isOpen(slice, now + 250)]).toEqual([false, true])
  })

  it('is not asked for in the moment after it was given back', () => {
    const slice = new Slice(period({ capacity: 1e6 }), 'p')
    slice.giveBack(1_000)
    expect([isOpen(slice, 1_249), isOpen(slice, 1_250)]).toEqual([false, true])
  })

  it('is worth nothing of a limit that is used now and then', () => {
    const slice = new Slice(period({ capacity: 1e6 }), 'p')
    const every = (ms: number) => Array.from({ length: 100 }, (_, call) => slice.isWorthIt(call * ms))
    expect(every(40)).not.toContain(true)
    const busy = every(10)
    expect(busy.slice(0, 7)).not.toContain(true)
    expect(busy.slice(20)).not.toContain(false)
    expect(slice.isWorthIt(60_000)).toBe(false)
  })

  it('is not made of limits of which a share is worth nothing', () => {
    expect(isSliceable(concurrency(10), 1, 12)).toBe(false)
    expect(isSliceable(concurrency(100), 1, 12)).toBe(true)
    expect(isSliceable(bucket({ capacity: 20, refill: 10 }), 1, 12)).toBe(false)
    expect(isSliceable(bucket({ capacity: 2_000, refill: 1_000 }), 1, 12)).toBe(true)
    expect(isSliceable(period({ capacity: 100_000 }), 2_000, 12)).toBe(true)
    expect(isSliceable(period({ capacity: 100_000 }), 4_000, 12)).toBe(false)
  })
})
