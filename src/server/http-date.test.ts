import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { httpDate } from './http-date.ts'
import { CommonLines } from './http1/answer-text.ts'

const startMs = Date.UTC(2031, 0, 5, 23, 59, 57)

beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'], now: startMs }))
afterEach(() => void vi.useRealTimers())

test('is the moment as HTTP writes it, in whole seconds', () => {
  vi.setSystemTime(Date.UTC(2031, 10, 6, 8, 49, 7, 999))
  expect(httpDate()).toBe('Thu, 06 Nov 2031 08:49:07 GMT')
})

describe('goes on with the time', () => {
  const expected = (afterMs: number): string => new Date(startMs + afterMs).toUTCString()
  const moments = [0, 999, 1_000, 1_999, 2_000, 3_000, 90_000_000, 4_000]

  test('in its text', () => {
    for (const afterMs of moments) {
      vi.setSystemTime(startMs + afterMs)
      expect(httpDate()).toBe(expected(afterMs))
    }
  })

  test('in the lines of answers over HTTP/1.1', () => {
    const lines = new CommonLines(30_000)
    for (const afterMs of moments) {
      vi.setSystemTime(startMs + afterMs)
      const date = `Date: ${expected(afterMs)}\r\n`
      expect(lines.date).toBe(date)
      expect(lines.kept).toBe(`${date}Connection: keep-alive\r\nKeep-Alive: timeout=30\r\n`)
      expect(lines.closing).toBe(`${date}Connection: close\r\n`)
    }
  })
})
