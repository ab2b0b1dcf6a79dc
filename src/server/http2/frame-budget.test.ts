import { expect, test } from 'vitest'
import { FrameBudget } from './frame-budget.ts'

/** A budget of 5 at once and 10 a second, its clock, and how often it can be spent now. */
function budget() {
  let nowMs = 0
  const frames = new FrameBudget(5, 10, () => nowMs)
  const pass = (ms: number): void => {
    nowMs += ms
  }
  const left = (): number => {
    let spent = 0
    while (spent < 1_000 && frames.spend()) spent += 1
    // What was refused is owed, and here given back.
    frames.earn(1)
    return spent
  }
  return { frames, pass, left }
}

test('allows so many at once, and so many a second from then on', () => {
  const { pass, left } = budget()
  expect(left()).toBe(5)
  expect(left()).toBe(0)
  pass(300)
  expect(left()).toBe(3)
})

test('allows what is earned', () => {
  const { frames, left } = budget()
  expect(left()).toBe(5)
  frames.earn(2)
  expect(left()).toBe(2)
})

test('keeps no more than what may come at once, however it was come by', () => {
  const { frames, pass, left } = budget()
  frames.earn(1_000)
  expect(left()).toBe(5)
  pass(3_600_000)
  expect(left()).toBe(5)
})
