import { beforeEach, expect, test } from 'vitest'
import { createEndpointLoads, type EndpointLoads } from './endpoint-loads.ts'

let nowMs: number
let loads: EndpointLoads

beforeEach(() => {
  nowMs = 1_000_000
  loads = createEndpointLoads(() => nowMs)
})

function sample(ms: number, isAnswer = true): void {
  loads.begin('e')
  loads.end('e', { ms, isAnswer })
}

test('counts attempts under way', () => {
  loads.begin('e')
  loads.begin('e')
  expect(loads.of('e').inFlight).toBe(2)
  loads.end('e', { ms: 1, isAnswer: true })
  expect(loads.of('e').inFlight).toBe(1)
  expect(loads.of('other').inFlight).toBe(0)
})

test('follows a worse sample at once and better ones slowly', () => {
  sample(100)
  sample(900)
  expect(loads.of('e').latencyMs).toBe(900)
  nowMs += 1_000
  sample(100)
  expect(loads.of('e').latencyMs).toBeCloseTo(900 * Math.exp(-0.1) + 100 * (1 - Math.exp(-0.1)))
})

test('forgets without samples, so that a slow endpoint is tried again', () => {
  sample(900)
  nowMs += 60_000
  expect(loads.of('e').latencyMs).toBeLessThan(5)
})

test('a fast failure makes no endpoint look fast, a slow one makes it look slow', () => {
  sample(1, false)
  expect(loads.of('e').latencyMs).toBeUndefined()
  sample(100)
  sample(1, false)
  expect(loads.of('e').latencyMs).toBe(100)
  sample(5_000, false)
  expect(loads.of('e').latencyMs).toBe(5_000)
})

test('rests as long as asked, and no longer than ten minutes', () => {
  loads.rest('e', 2_000)
  loads.rest('e', 1_000)
  nowMs += 1_999
  expect(loads.of('e').isResting).toBe(true)
  nowMs += 1
  expect(loads.of('e').isResting).toBe(false)
  loads.rest('e', 86_400_000)
  nowMs += 600_000
  expect(loads.of('e').isResting).toBe(false)
})
