import { expect, test } from 'vitest'
import { restartPauseMs } from './restart-pause.ts'

test('the pause before a dead worker is replaced is short, doubles, and stays below ten seconds', () => {
  expect([0, 1, 2, 3].map(restartPauseMs)).toEqual([100, 200, 400, 800])
  expect([7, 50, 5_000].map(restartPauseMs)).toEqual([10_000, 10_000, 10_000])
})
