/** What callers see while one store is away, and what the ledger holds afterwards. */
import { expect, test } from 'vitest'
import { runFaults } from './fault-run.ts'
import { complaint } from './report.ts'
import { flushAll, postgresAway, redisRestart, type Scenario } from './scenarios.ts'

const seed = 1
const timeout = 240_000

async function expectProof(scenario: Scenario): Promise<void> {
  const { wrong, folder } = await runFaults({ seed, scenario })
  expect(wrong, `${complaint(wrong)}\nkept: ${folder}`).toEqual([])
}

test('answers every call while Postgres is away, and the ledger catches up', { timeout }, () =>
  expectProof(postgresAway(8_000)),
)

test('refuses calls while Redis is away, loses nothing of it, and recovers by itself', { timeout }, () =>
  expectProof(redisRestart(900, 'closed')),
)

test('keeps every record and counter when Redis loses all its data', { timeout }, () => expectProof(flushAll(900)))
