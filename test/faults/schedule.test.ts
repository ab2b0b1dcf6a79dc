import { describe, expect, test } from 'vitest'
import { planCall } from './call-plan.ts'
import { type Fault, planSchedule, targets, targetsOf, withWorkerKills } from './schedule.ts'

const everything = targets.flatMap((target) =>
  ['kill', 'freeze', 'restart', 'cut', 'flap', 'stall'].map((action) => `${action} ${target}`),
)

describe('a schedule', () => {
  test('depends on its seed alone', () => {
    expect(planSchedule(7, 1_500)).toEqual(planSchedule(7, 1_500))
    expect(planSchedule(8, 1_500)).not.toEqual(planSchedule(7, 1_500))
  })

  test.each([1, 2, 3])('breaks everything in every way before it repeats anything, seed %i', (seed) => {
    const isPlain = (fault: Fault): boolean => targetsOf(fault).length === 1
    const schedule = planSchedule(seed, 20_000)
    const names = schedule.filter(isPlain).map(({ action, target }) => `${action} ${target}`)
    const actions = schedule.map(({ action }) => action)
    expect(actions).toEqual(expect.arrayContaining(['kill-writing', 'freeze-writing']))
    expect(names.slice(0, 30).sort()).toEqual(everything.toSorted())
    expect(names.slice(30, 60).sort()).toEqual(everything.toSorted())
  })

  test.each([1_500, 100_000])('begins and ends while there are %i calls, and every fault heals', (calls) => {
    const schedule = planSchedule(1, calls)
    const places = schedule.map(({ atCall }) => atCall)
    expect(places).toEqual(places.toSorted((a, b) => a - b))
    expect(Math.min(...places)).toBeGreaterThanOrEqual(calls * 0.02)
    expect(Math.max(...places)).toBeLessThan(calls * 0.96)
    expect(Math.max(...schedule.map(({ forMs }) => forMs))).toBeLessThanOrEqual(7_000)
  })

  test('kills workers of both gateways, beside all that it does without them, and in the same time', () => {
    const without = planSchedule(1, 3_000)
    const schedule = withWorkerKills(without, 3_000)
    const kills = schedule.filter(({ action }) => action === 'kill-worker')
    expect(schedule.filter((fault) => !kills.includes(fault))).toEqual(without)
    expect(new Set(kills.map(({ target }) => target))).toEqual(new Set(['gateway-a', 'gateway-b']))
    expect(schedule.map(({ atCall }) => atCall)).toEqual(schedule.map(({ atCall }) => atCall).toSorted((a, b) => a - b))
    expect(Math.max(...kills.map(({ atCall }) => atCall))).toBeLessThan(3_000 * 0.96)
  })
})

test('a call is planned by seed and number alone, in any order, with a key of its own', () => {
  const planner = { seed: 5, tenants: 4, budgets: 1, gateways: 2, backendFaults: true }
  const plan = (index: number) => {
    const { next, ...rest } = planCall(planner, index)
    return { ...rest, first: next() }
  }
  const plans = Array.from({ length: 1_000 }, (_, index) => plan(index))
  expect(plan(500)).toEqual(plans[500])
  expect(new Set(plans.map(({ key }) => key)).size).toBe(plans.length)
  for (const name of ['tenant', 'gateway', 'wire', 'endsWith', 'firstTimeoutMs', 'isRepeated', 'isBudgeted'] as const) {
    expect(new Set(plans.map((found) => found[name])).size, name).toBeGreaterThan(1)
  }
})

test('calls without a key are of a tenant without a budget and of one with it, in turn', () => {
  const planner = { seed: 5, tenants: 6, budgets: 2, gateways: 2, backendFaults: true, hasKeyless: true }
  const plans = Array.from({ length: 1_000 }, (_, index) => planCall(planner, index))
  const keyless = plans.filter(({ isKeyed }) => !isKeyed)
  expect(keyless).toHaveLength(700)
  expect(new Set(keyless.map(({ tenant, isBudgeted }) => `${tenant} ${isBudgeted}`))).toEqual(
    new Set(['0 false', '4 true']),
  )
})
