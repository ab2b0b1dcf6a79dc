import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { consumerRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { newId } from '../ids.ts'
import { allowed, builtinViolation, type Decision, denied, type PolicyViolation } from './decision.ts'
import { selectDecisions } from './decision-store.ts'
import { noRequest } from './facts.ts'
import { factsOf } from './policy-engine.ts'
import { createPolicyRecorder } from './policy-recorder.ts'
import { startPolicyRetention } from './policy-retention.ts'

const dayMs = 86_400_000
const nowMs = Date.UTC(2026, 10, 21)
const parties = { consumer: consumerRecord(), service: serviceRecord() }
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgresServer()
})
afterAll(() => server?.stop())
beforeEach(async () => {
  await server.sql`truncate policy_decisions, policy_violations`
})

function recorder(decisionsPerSecond: number, now: () => number) {
  return createPolicyRecorder({
    sql: server.sql,
    log: silentLog,
    newId: () => newId(now()),
    now,
    decisionsPerSecond,
    onViolation: () => {},
    onDropped: () => {},
  })
}

function told(decision: Decision, atMs: number) {
  const facts = () => factsOf(parties, noRequest, '', atMs)
  return { ...parties, requestId: newId(), keyId: '', decision, facts, seconds: 0 }
}

const broken: PolicyViolation = {
  policyId: newId(),
  policyName: 'p',
  policyVersion: 3,
  severity: 'critical',
  message: 'm',
  outcome: 'denied',
}

async function countOf(table: 'policy_decisions' | 'policy_violations'): Promise<number> {
  const [row] = await server.sql<{ count: number }[]>`select count(*) from ${server.sql(table)}`
  return Number(row?.count)
}

test('of the calls of a second as many decisions are kept as are asked for, and every violation', async () => {
  let at = nowMs
  const policies = recorder(3, () => at)
  for (let second = 0; second < 2; second++) {
    at = nowMs + second * 1_000
    for (let i = 0; i < 10; i++) policies.decided(told(denied([broken]), at))
  }
  await policies.close()
  expect(await countOf('policy_decisions')).toBe(6)
  expect(await countOf('policy_violations')).toBe(20)
})

test('what a built-in rule refuses is a violation, and no decision that another policy could change', async () => {
  const policies = recorder(10, () => nowMs)
  policies.decided(told(denied([builtinViolation('grants', 'no')]), nowMs))
  policies.decided(told(allowed, nowMs))
  await policies.close()
  expect(await selectDecisions(server.sql, undefined, 10)).toMatchObject([{ allowed: true, deniedBy: [] }])
  expect(await countOf('policy_violations')).toBe(1)
})

test.each([
  ['those that are older are deleted', 3, 2, [2, 1]],
  ['with 0, violations are kept for ever', 0, 1, [4, 0]],
])('after the days that records are kept, %s', async (_what, violationDays, decisionDays, left) => {
  for (let day = 1; day <= 4; day++) {
    const at = nowMs - day * dayMs + 1
    const policies = recorder(10, () => at)
    policies.decided(told(denied([broken]), at))
    await policies.close()
  }
  const retention = startPolicyRetention({
    sql: server.sql,
    log: silentLog,
    violationDays,
    decisionDays,
    now: () => nowMs + dayMs,
  })
  await eventually(async () => (await countOf('policy_decisions')) === left[1])
  await retention.stop()
  expect([await countOf('policy_violations'), await countOf('policy_decisions')]).toEqual(left)
})
