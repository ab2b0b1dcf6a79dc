import fc from 'fast-check'
import { expect, it } from 'vitest'
import { newId } from '../ids.ts'
import { RecentIds } from './recent-ids.ts'

it('remembers each id for its time, in whatever order they come, and no other', () => {
  const ids = Array.from({ length: 20 }, (_, index) => newId(1_000 + index))
  const steps = fc.array(fc.record({ add: fc.nat(ids.length - 1), passMs: fc.nat(4) }), { maxLength: 40 })
  fc.assert(
    fc.property(steps, (program) => {
      let nowMs = 0
      const recent = new RecentIds(() => nowMs, 10, 1_000)
      const addedAt = new Map<string, number>()
      for (const { add, passMs } of program) {
        nowMs += passMs
        const added = ids[add] ?? ''
        recent.add(added)
        addedAt.set(added, nowMs)
        for (const id of ids) {
          const atMs = addedAt.get(id)
          if (atMs === undefined) expect(recent.has(id)).toBe(false)
          else if (nowMs - atMs < 10) expect(recent.has(id)).toBe(true)
        }
      }
    }),
  )
})

it('remembers the last ones of more than it may, and forgets the first', () => {
  const recent = new RecentIds(() => 0, 10, 10_000)
  const ids = Array.from({ length: 30_000 }, (_, index) => newId(index))
  for (const id of ids) recent.add(id)
  expect(ids.slice(-10_000).every((id) => recent.has(id))).toBe(true)
  expect(ids.slice(0, 10_000).some((id) => recent.has(id))).toBe(false)
})
