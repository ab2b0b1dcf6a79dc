/**
 * What must hold when everything has come to rest, by what callers were told, what the ledger says and what the backend
 * wrote down itself. Pure; each line of a finding is money lost, doubled or taken for nothing. `tollgate books` is asked
 * beside these: it compares the stores with each other.
 */
import { attemptIdOf, callOfAttempt } from '../../src/metering/attempt-id.ts'
import type { PracticeRecord } from '../../src/practice/log.ts'
import { isRefusal, mayEndWith } from './call-plan.ts'
import type { LedgerRow } from './ledger-rows.ts'
import type { FinishedCall } from './load.ts'
import type { Budget } from './tenants.ts'

export interface Evidence {
  readonly calls: readonly FinishedCall[]
  readonly rows: readonly LedgerRow[]
  readonly backend: readonly PracticeRecord[]
  /** Events that the ledger refused, each with the reason. */
  readonly quarantine: readonly string[]
  /** Those that must hold, to the last unit: their calls use no more than they reserve. */
  readonly budgets: readonly Budget[]
  /** Whether a key must be answered once, however often its call is asked. */
  readonly keysAreKept: boolean
}

export interface Findings {
  /** Answers and served attempts without their record. */
  readonly lost: readonly string[]
  /** Attempts, calls and keys that are recorded or answered more than once. */
  readonly double: readonly string[]
  /** Records that do not say what callers or backend say. */
  readonly different: readonly string[]
  /** Budgets that were passed, and refused calls that were made all the same. */
  readonly passed: readonly string[]
  /** Calls that ended as nobody asked for. */
  readonly failed: readonly string[]
}

export function judge(evidence: Evidence): Findings {
  return {
    lost: [...unrecorded(evidence), ...unpaid(evidence)],
    double: [...doubled(evidence), ...(evidence.keysAreKept ? answeredAgain(evidence) : [])],
    different: [
      ...misrecorded(evidence),
      ...overcharged(evidence),
      ...unequalSums(evidence),
      ...refusedEvents(evidence),
    ],
    passed: [...overspent(evidence), ...madeAllTheSame(evidence)],
    failed: failed(evidence),
  }
}

/** Answers without a record. */
function unrecorded({ calls, rows }: Evidence): string[] {
  const recorded = new Set(rows.map(({ requestId }) => requestId))
  return calls.flatMap(({ plan, answers }) =>
    answers.flatMap(({ requestId }) =>
      recorded.has(requestId) ? [] : [`${requestId} (call ${plan.key}) was answered and has no record`],
    ),
  )
}

/** Attempts that the backend worked for and nobody recorded. */
function unpaid({ rows, backend }: Evidence): string[] {
  // Of a call that a gate died in, the attempts before the last one have no record of their own.
  const recorded = new Set(rows.map(({ id }) => callOfAttempt(id)))
  const served = new Set(backend.flatMap(({ attemptId }) => attemptId ?? []))
  return [...served]
    .filter((id) => !recorded.has(callOfAttempt(id)))
    .map((id) => `attempt ${id} was served and has no record`)
}

/** Attempts with a second record, and calls with a second success. */
function doubled({ rows }: Evidence): string[] {
  const attempts = repeated(rows.map(({ id }) => id)).map((id) => `attempt ${id} is recorded twice`)
  const succeeded = rows.filter(({ status }) => status === 'succeeded')
  const calls = repeated(succeeded.map(({ requestId }) => requestId)).map((id) => `${id} succeeded twice`)
  return [...attempts, ...calls]
}

/** Keys with two answers, or with two calls that succeeded and are charged. */
function answeredAgain({ calls: all, rows }: Evidence): string[] {
  const calls = all.filter(({ plan }) => plan.isKeyed)
  const keyless = new Set(all.flatMap(({ plan }) => (plan.isKeyed ? [] : [plan.key])))
  const answers = calls.flatMap(({ plan, answers }) => {
    const different = new Set(answers.map(({ requestId, digest }) => `${requestId} ${digest}`))
    return different.size > 1 ? [`key ${plan.key} was answered as ${[...different].join(' and as ')}`] : []
  })
  const succeeded = rows.filter(({ status, key }) => status === 'succeeded' && key !== '' && !keyless.has(key))
  const charged = repeated(succeeded.map(({ key }) => key)).map((key) => `key ${key} is charged twice`)
  return [...answers, ...charged]
}

/** Answers whose record names other figures, another call, or no success. */
function misrecorded({ calls, rows }: Evidence): string[] {
  const records = new Map<string, LedgerRow>()
  for (const row of rows) {
    if (records.get(row.requestId)?.status !== 'succeeded') records.set(row.requestId, row)
  }
  return calls.flatMap(({ plan, answers }) =>
    answers.flatMap(({ requestId, totalTokens, costNanos, isEstimated }) => {
      const record = records.get(requestId)
      if (record === undefined) return []
      const { status, source, tokens, key } = record
      const told = `succeeded ${isEstimated ? 'estimated' : 'provider'} ${totalTokens} tokens ${costNanos} nanos`
      const kept = `${status} ${source} ${tokens} tokens ${record.costNanos} nanos`
      if (told !== kept) return [`${requestId} was answered as ${told} and recorded as ${kept}`]
      return key === plan.key ? [] : [`${requestId} was answered to ${plan.key} and recorded for ${key}`]
    }),
  )
}

/**
 * Attempts that cost something although they never reached the backend. Not the abandoned ones: when a gateway dies
 * between admission and its backend, nobody can know, and the reservation stands.
 */
function overcharged({ rows, backend }: Evidence): string[] {
  const served = new Set(backend.map(({ attemptId }) => attemptId))
  return rows.flatMap(({ id, attempt, status, costNanos }) =>
    costNanos === 0 || status === 'abandoned' || served.has(attemptIdOf(id, attempt))
      ? []
      : [`${id} (${status}) was not served and costs`],
  )
}

/** Tokens that records claim as reported, against what the backend says that it reported for these. */
function unequalSums({ rows, backend }: Evidence): string[] {
  const claimed = new Map<string, number>()
  for (const { id, attempt, source, tokens } of rows) {
    if (source === 'provider') claimed.set(attemptIdOf(id, attempt), tokens)
  }
  const reported = new Map<string, number>()
  for (const { attemptId, usage } of backend) {
    if (attemptId === null || usage === null || !claimed.has(attemptId)) continue
    reported.set(attemptId, usage.promptTokens + usage.completionTokens)
  }
  const [ledger, log] = [sum(claimed.values()), sum(reported.values())]
  return ledger === log ? [] : [`the ledger has ${ledger} reported tokens, the backend's log ${log}`]
}

/** Nothing that a gate writes is to be refused. */
function refusedEvents({ quarantine }: Evidence): string[] {
  return quarantine.map((event) => `in quarantine: ${event}`)
}

/** Consumers that used more than they may. */
function overspent({ rows, budgets }: Evidence): string[] {
  return budgets.flatMap((budget) => {
    const used = usedOf(budget, rows)
    return used <= budget.amount ? [] : [`${budget.consumerId} used ${used} ${budget.unit} of ${budget.amount}`]
  })
}

/** What the ledger says that a consumer used of its budget. */
export function usedOf({ consumerId, unit }: Budget, rows: readonly LedgerRow[]): number {
  const own = rows.filter((row) => row.consumerId === consumerId)
  return sum(own.map(({ tokens, costNanos }) => (unit === 'tokens' ? tokens : costNanos)))
}

/** A refused call took nothing and leaves no record. */
function madeAllTheSame({ calls, rows }: Evidence): string[] {
  const recorded = new Set(rows.map(({ requestId }) => requestId))
  return calls.flatMap(({ plan, failure }) =>
    isRefusal(plan, failure?.reason) && recorded.has(failure?.requestId ?? '')
      ? [`${failure?.requestId} (call ${plan.key}) was refused and has a record`]
      : [],
  )
}

/** Calls that did not end as their plan says: with an answer, the one error that it asks for, or a budget's refusal. */
function failed({ calls }: Evidence): string[] {
  return calls.flatMap(({ plan, tries, failure }) =>
    mayEndWith(plan, failure?.reason)
      ? []
      : [`call ${plan.key} (${plan.model}) ended after ${tries} tries with ${failure?.message ?? 'an answer'}`],
  )
}

function repeated(ids: readonly string[]): string[] {
  const seen = new Set<string>()
  return ids.filter((id) => seen.size === seen.add(id).size)
}

function sum(numbers: Iterable<number>): number {
  let total = 0
  for (const number of numbers) total += number
  return total
}
