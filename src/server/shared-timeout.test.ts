import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { SharedTimeout } from './shared-timeout.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

function timeout(): { readonly passed: string[]; readonly shared: SharedTimeout<string> } {
  const passed: string[] = []
  const shared = new SharedTimeout<string>(100, (who) => passed.push(who))
  return { passed, shared }
}

test('each passes when its own time is up, on one timer', () => {
  const { passed, shared } = timeout()
  shared.start('a')
  vi.advanceTimersByTime(60)
  shared.start('b')
  shared.start('c')
  expect(vi.getTimerCount()).toBe(1)
  vi.advanceTimersByTime(39)
  expect(passed).toEqual([])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['a'])
  vi.advanceTimersByTime(59)
  expect(passed).toEqual(['a'])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['a', 'b', 'c'])
  expect(vi.getTimerCount()).toBe(0)
})

test('who gave up does not pass, and the others do as before', () => {
  const { passed, shared } = timeout()
  const waiting = shared.start('a')
  vi.advanceTimersByTime(50)
  shared.start('b')
  shared.stop(waiting)
  vi.advanceTimersByTime(99)
  expect(passed).toEqual([])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['b'])
})

test('no timer is left when nobody waits', () => {
  const { passed, shared } = timeout()
  const waiting = shared.start('a')
  shared.stop(waiting)
  shared.stop(waiting)
  expect(vi.getTimerCount()).toBe(0)
  shared.start('b')
  vi.advanceTimersByTime(100)
  expect(passed).toEqual(['b'])
})

test('who has passed gives up nothing', () => {
  const { passed, shared } = timeout()
  const waiting = shared.start('a')
  vi.advanceTimersByTime(100)
  shared.start('b')
  shared.stop(waiting)
  vi.advanceTimersByTime(100)
  expect(passed).toEqual(['a', 'b'])
})

test('who begins while others pass has its whole time, and those before it have no more', () => {
  const passed: string[] = []
  const shared = new SharedTimeout<string>(100, (who) => {
    passed.push(who)
    if (who === 'a') shared.start('again')
  })
  shared.start('a')
  vi.advanceTimersByTime(50)
  shared.start('b')
  vi.advanceTimersByTime(100)
  expect(passed).toEqual(['a', 'b'])
  vi.advanceTimersByTime(49)
  expect(passed).toEqual(['a', 'b'])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['a', 'b', 'again'])
})
