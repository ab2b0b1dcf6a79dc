import { expect, test } from 'vitest'
import type { PracticeRecord } from '../../src/practice/log.ts'
import { planCall } from './call-plan.ts'
import type { Answer } from './gateway-client.ts'
import type { LedgerRow } from './ledger-rows.ts'
import type { FinishedCall } from './load.ts'
import { type Evidence, judge } from './oracles.ts'
import type { Budget } from './tenants.ts'

const plan = planCall({ seed: 1, tenants: 1, budgets: 1, gateways: 1, backendFaults: false }, 0)
const answer: Answer = {
  requestId: 'r1',
  totalTokens: 30,
  costNanos: 9,
  isEstimated: false,
  digest: 'd',
  isReplayed: false,
}
const call: FinishedCall = { plan, tries: 1, answers: [answer], failure: undefined }
const row: LedgerRow = {
  id: 'a1',
  requestId: 'r1',
  consumerId: 'c1',
  key: plan.key,
  status: 'succeeded',
  attempt: 1,
  source: 'provider',
  tokens: 30,
  costNanos: 9,
}
const line: PracticeRecord = {
  seq: 1,
  time: '2026-11-30T00:00:00.000Z',
  requestId: 'r1',
  attemptId: 'a1',
  path: '/v1/chat/completions',
  model: 'practice',
  stream: false,
  outcome: 'served',
  usage: { promptTokens: 20, completionTokens: 10, cachedTokens: 5, reasoningTokens: 0 },
  deliveredTokens: 10,
}
const failure = { reason: 'INTERNAL', message: 'internal error', requestId: 'r1' }
const refusal = { reason: 'QUOTA_EXCEEDED', message: 'no tokens left', requestId: 'r1' }
const budget: Budget = { consumerId: 'c1', unit: 'tokens', amount: 110 }
const nothing = { lost: [], double: [], different: [], passed: [], failed: [] }
const whole: Evidence = {
  calls: [call],
  rows: [row],
  backend: [line],
  quarantine: [],
  budgets: [budget],
  keysAreKept: true,
}
const abandoned = { ...row, status: 'abandoned', source: 'estimated', tokens: 80, costNanos: 90 }

const cases: readonly [what: string, changes: Partial<Evidence>, kind: string, says: RegExp][] = [
  ['an answer without a record', { rows: [], backend: [] }, 'lost', /r1 .* no record/],
  ['a served attempt without a record', { calls: [], rows: [] }, 'lost', /attempt a1 was served/],
  ['an attempt with two records', { rows: [row, { ...row, status: 'failed' }] }, 'double', /a1 is recorded twice/],
  ['a call that succeeded twice', { rows: [row, { ...row, id: 'a2' }] }, 'double', /r1 succeeded twice/],
  ['an answer with other tokens', { rows: [{ ...row, tokens: 31 }] }, 'different', /recorded as .* 31 tokens/],
  ['an answer with another cost', { rows: [{ ...row, costNanos: 8 }] }, 'different', /recorded as .* 8 nanos/],
  ['an answer that counts as abandoned', { rows: [abandoned] }, 'different', /recorded as abandoned/],
  ['an answer of another call', { rows: [{ ...row, key: 'other' }] }, 'different', /recorded for other/],
  ['a charge for nothing', { calls: [], backend: [] }, 'different', /a1 .* was not served and costs/],
  [
    'sums that differ',
    { calls: [], backend: [{ ...line, usage: null }] },
    'different',
    /30 reported tokens, the backend's log 0/,
  ],
  ['an event that the ledger refused', { quarantine: ['a1 refused'] }, 'different', /in quarantine: a1 refused/],
  [
    'a budget of money that was passed',
    { budgets: [{ ...budget, unit: 'nanos', amount: 8 }] },
    'passed',
    /c1 used 9 nanos of 8/,
  ],
  ['a quota that was passed', { budgets: [{ ...budget, amount: 29 }] }, 'passed', /c1 used 30 tokens of 29/],
  ['a refused call with a record', { calls: [{ ...call, failure: refusal }] }, 'passed', /r1 .* was refused/],
  ['an error that nobody asked for', { calls: [{ ...call, answers: [], failure }] }, 'failed', /internal error/],
  [
    'a key with two answers',
    { calls: [{ ...call, answers: [answer, { ...answer, digest: 'e' }] }] },
    'double',
    /was answered as r1 d and as r1 e/,
  ],
  [
    'a key that is charged twice',
    { rows: [row, { ...row, id: 'a2', requestId: 'r2' }], backend: [line, { ...line, attemptId: 'a2' }] },
    'double',
    /is charged twice/,
  ],
]

test('nothing is found where everybody says the same', () => {
  expect(judge(whole)).toEqual(nothing)
})

test('a call that a budget refuses is none that failed', () => {
  const refused = { ...call, answers: [], failure: { ...refusal, requestId: 'r9' } }
  expect(judge({ ...whole, calls: [call, refused] }).failed).toEqual([])
  const unlimited = { ...refused, plan: { ...plan, isBudgeted: false } }
  expect(judge({ ...whole, calls: [unlimited] }).failed).toHaveLength(1)
})

test('the same answer again is no second one, and a call that was given up may be abandoned', () => {
  const again = { ...call, answers: [answer, { ...answer, isReplayed: true }] }
  const rows = [row, { ...abandoned, id: 'a2', requestId: 'r2' }]
  expect(judge({ ...whole, calls: [again], rows })).toEqual(nothing)
})

test.each(cases)('finds %s', (_, changes, kind, says) => {
  const found = Object.entries(judge({ ...whole, ...changes })).map(([name, lines]) => [name, lines.join('\n')])
  expect(found).toContainEqual([kind, expect.stringMatching(says)])
})
