import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { SharedTimeout } from './shared-timeout.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

interface Waiting {
  readonly id: string
}

const [a, b, c, again] = [{ id: 'a' }, { id: 'b' }, { id: 'c' }, { id: 'again' }]

function timeout(): { readonly passed: string[]; readonly shared: SharedTimeout<Waiting> } {
  const passed: string[] = []
  const shared = new SharedTimeout<Waiting>(100, (waiting) => {
    passed.push(waiting.id)
    shared.stop(waiting)
  })
  return { passed, shared }
}

test('each passes when its own time is up, on one timer', () => {
  const { passed, shared } = timeout()
  shared.start(a)
  vi.advanceTimersByTime(60)
  shared.start(b)
  shared.start(c)
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
  shared.start(a)
  vi.advanceTimersByTime(50)
  shared.start(b)
  shared.stop(a)
  vi.advanceTimersByTime(99)
  expect(passed).toEqual([])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['b'])
})

test('no timer is left when nobody waits', () => {
  const { passed, shared } = timeout()
  shared.start(a)
  shared.stop(a)
  shared.stop(a)
  expect(vi.getTimerCount()).toBe(0)
  shared.start(b)
  vi.advanceTimersByTime(100)
  expect(passed).toEqual(['b'])
})

test('who begins while others pass has its whole time', () => {
  const passed: string[] = []
  const shared = new SharedTimeout<Waiting>(100, (waiting) => {
    passed.push(waiting.id)
    if (waiting === a) shared.start(again)
  })
  shared.start(a)
  vi.advanceTimersByTime(199)
  expect(passed).toEqual(['a'])
  vi.advanceTimersByTime(1)
  expect(passed).toEqual(['a', 'again'])
})
