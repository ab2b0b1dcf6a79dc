import { expect, test } from 'vitest'
import { limitHeaders } from './limit-headers.ts'

test('counts the reset in whole seconds from now, rounded up, and never shows a debt', () => {
  const headers = (remaining: number, resetAtMs: number) =>
    limitHeaders({ capacity: 20, remaining, resetAtMs }, 1_000_000).map(([, value]) => value)
  expect(headers(19.9, 1_000_001)).toEqual(['20', '19', '1'])
  expect(headers(0, 1_002_000)).toEqual(['20', '0', '2'])
  expect(headers(-5, 999_000)).toEqual(['20', '0', '0'])
})
