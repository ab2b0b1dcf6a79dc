/**
 * The promise of the ledger, under everything that can break: two gateways, Redis, Postgres and the backend are killed,
 * stopped, restarted and cut off in mid-load, each in every way. `npm run faults` does the same for longer.
 */
import { describe, expect, test } from 'vitest'
import { runFaults } from './fault-run.ts'
import { complaint } from './report.ts'
import { seeded } from './scenarios.ts'
import { describeSchedule } from './schedule.ts'

const random = Number(process.env.TOLLGATE_TEST_SEED ?? Date.now() % 1_000_000_000)
const runs: readonly [seed: number, calls: number][] = [
  [4, 1_500],
  [random, 500],
]

describe.concurrent('nothing is lost, doubled or different, whatever breaks', () => {
  test.each(runs)('seed %i, %i calls', { timeout: 400_000 }, async (seed, calls) => {
    const scenario = seeded(seed, calls)
    const { wrong, folder, faults } = await runFaults({ seed, scenario })
    const text = [
      complaint(wrong),
      `again: npm run faults -- --seed ${seed} --calls ${calls}; kept: ${folder}`,
      ...describeSchedule(scenario.schedule),
    ]
    expect(wrong, text.join('\n')).toEqual([])
    expect(faults.size).toBe(32)
  })
})
