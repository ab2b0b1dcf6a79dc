import { beforeEach, expect, test } from 'vitest'
import { createRetryBudget, type RetryBudget } from './retry-budget.ts'

let nowMs: number
let budget: RetryBudget

beforeEach(() => {
  nowMs = 1_800_000_000_000
  budget = createRetryBudget(() => nowMs)
})

/** Retries that are let pass when every one of so many calls a second asks for two. */
function storm(seconds: number, callsPerSecond: number): number {
  let retries = 0
  for (let i = 0; i < seconds * callsPerSecond; i += 1) {
    nowMs += 1_000 / callsPerSecond
    budget.deposit('s')
    for (let j = 0; j < 2; j += 1) retries += Number(budget.withdraw('s'))
  }
  return retries
}

/** Retries that are let pass at one moment, of very many. */
function withdrawals(): number {
  return Array.from({ length: 5_000 }, () => budget.withdraw('s')).filter(Boolean).length
}

test('a storm gets a fifth of the calls and ten a second', () => {
  storm(20, 1_000)
  const retries = storm(30, 1_000)
  expect(retries / 30).toBeGreaterThan(200)
  expect(retries / 30).toBeLessThanOrEqual(211)
})

test('a service with few calls may retry all of them', () => {
  expect(storm(30, 4)).toBe(2 * 30 * 4)
})

test('what was not used expires', () => {
  for (let i = 0; i < 10_000; i += 1) budget.deposit('s')
  nowMs += 11_000
  expect(withdrawals()).toBe(100)
  nowMs += 11_000
  expect(budget.withdraw('s')).toBe(true)
})

test('services do not share a budget', () => {
  withdrawals()
  expect(budget.withdraw('other')).toBe(true)
})
