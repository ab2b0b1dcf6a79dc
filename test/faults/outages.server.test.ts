/** What callers see while one store is away, and what the ledger holds afterwards. */
import { expect, test } from 'vitest'
import { runFaults } from './fault-run.ts'
import { complaint } from './report.ts'
import { awayModeVariable, flushAll, postgresAway, redisRestart, type Scenario } from './scenarios.ts'

const seed = 1
const timeout = 240_000

async function expectProof(scenario: Scenario, env: Readonly<Record<string, string>> = {}): Promise<void> {
  const { wrong, folder } = await runFaults({ seed, scenario, env })
  expect(wrong, `${complaint(wrong)}\nkept: ${folder}`).toEqual([])
}

test('answers every call while Postgres is away, and the ledger catches up', { timeout }, () =>
  expectProof(postgresAway(8_000)),
)

test('refuses calls while Redis is away, loses nothing of it, and recovers by itself', { timeout }, () =>
  expectProof(redisRestart(900, 'closed')),
)

test.each(['open', 'local'] as const)('goes on while Redis is away in mode %s, and books it all', { timeout }, (mode) =>
  expectProof(redisRestart(900, mode), { [awayModeVariable]: mode }),
)

test('keeps every record and counter when Redis loses all its data', { timeout }, () => expectProof(flushAll(900)))
