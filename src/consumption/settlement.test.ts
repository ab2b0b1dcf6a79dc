import { describe, expect, test } from 'vitest'
import { admission, settlement } from '../limits/conformance-support.ts'
import type { Settled, Settlement } from '../limits/limits.ts'
import { createSettler, type Wait } from './settlement.ts'

const call = settlement(admission([]), [])
const done: Settled = { crossed: [] }

/** A settler whose limits fail so many times, on a clock that begins at 0 and goes on with each pause. */
function failing(failures: number) {
  let nowMs = 0
  const asked: Settlement[] = []
  /** When that was. */
  const times: number[] = []
  const kept: boolean[] = []
  const settle = async (settlement: Settlement): Promise<Settled> => {
    asked.push(settlement)
    times.push(nowMs)
    if (asked.length <= failures) throw new Error(`failure ${asked.length}`)
    return done
  }
  const wait: Wait = async (ms, _value, { ref } = { ref: true }) => {
    nowMs += ms
    kept.push(ref)
  }
  /** `kept` says of each pause whether it keeps the process alive. */
  return { settler: createSettler({ settle }, () => nowMs, wait), asked, times, kept }
}

describe('while the caller waits', () => {
  test('what succeeds is not tried again', async () => {
    const { settler, times } = failing(0)
    expect(await settler.settle(call)).toBe(done)
    expect(times).toEqual([0])
  })

  test.each([1, 2, 3, 4])(
    'what failed %i times is tried again after growing pauses, and succeeds',
    async (failures) => {
      const { settler, asked, times, kept } = failing(failures)
      expect(await settler.settle(call)).toBe(done)
      expect(times).toEqual([0, 100, 300, 700, 1_500].slice(0, failures + 1))
      expect(asked).toEqual(times.map(() => call))
      expect(kept).not.toContain(false)
    },
  )

  test('what fails five times is given up with the last error', async () => {
    const { settler, times } = failing(Number.POSITIVE_INFINITY)
    await expect(settler.settle(call)).rejects.toThrow('failure 5')
    expect(times).toEqual([0, 100, 300, 700, 1_500])
  })
})

describe('after the caller was told', () => {
  test('it is tried every half second until it succeeds, and keeps no process alive', async () => {
    const { settler, asked, times, kept } = failing(3)
    expect(await settler.settleLate(call, 60_000)).toBe(done)
    expect(times).toEqual([500, 1_000, 1_500, 2_000])
    expect(asked).toEqual(times.map(() => call))
    expect(kept).not.toContain(true)
  })

  test('it goes on until the time is over, and ends without a result', async () => {
    const { settler, times } = failing(Number.POSITIVE_INFINITY)
    expect(await settler.settleLate(call, 30_000)).toBeUndefined()
    expect(times).toHaveLength(60)
    expect(times.at(-1)).toBe(30_000)
  })

  test('it does not begin when the time is over', async () => {
    const { settler, times } = failing(0)
    expect(await settler.settleLate(call, 0)).toBeUndefined()
    expect(times).toEqual([])
  })

  test('ten thousand are tried at once and no more, until one of them ends', async () => {
    const pauses = Promise.withResolvers<void>()
    let settled = 0
    const settle = async (): Promise<Settled> => {
      settled += 1
      return done
    }
    const settler = createSettler(
      { settle },
      () => 0,
      () => pauses.promise,
    )
    const running = Array.from({ length: 10_000 }, () => settler.settleLate(call, 1))
    expect(await settler.settleLate(call, 1)).toBeUndefined()
    pauses.resolve()
    await Promise.all(running)
    expect(settled).toBe(10_000)
    expect(await settler.settleLate(call, 1)).toBe(done)
  })
})
