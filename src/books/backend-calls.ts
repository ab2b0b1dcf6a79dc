import { attemptIdOf, callOfAttempt } from '../metering/attempt-id.ts'
import type { RecordedAttempt } from '../metering/ledger-audit.ts'
import { type TokenParts, totalTokens } from '../metering/usage-event.ts'
import type { PracticeRecord } from '../practice/log.ts'
import type { PracticeUsage } from '../practice/usage.ts'
import type { Finding } from './books.ts'

/** What backends say they did, by attempt. */
export type BackendCalls = ReadonlyMap<string, BackendCall>

export interface BackendCall {
  readonly attemptId: string
  /** UTC month "YYYY-MM" in which the backend wrote its line. */
  readonly month: string
  /** How often the attempt arrived. */
  readonly times: number
  /** What the answer reported; undefined when it reported nothing. */
  readonly tokens: TokenParts | undefined
}

/** What is known of an attempt: its record, that it is open, or that its record was not read. */
export type KnownAttempt = RecordedAttempt | 'open' | 'elsewhere'

/** Joins the logs of several backends; lines without an attempt id are calls that no gate made. */
export function backendCalls(logs: readonly (readonly PracticeRecord[])[]): BackendCalls {
  const calls = new Map<string, BackendCall>()
  const counted = new Set<string>()
  logs.forEach((records, log) => {
    for (const { attemptId, seq, time, usage } of records) {
      if (attemptId === null) continue
      // A caller that left during the answer adds a second line with the same number.
      const call = `${attemptId} ${log} ${seq}`
      const before = calls.get(attemptId)
      calls.set(attemptId, {
        attemptId,
        month: before?.month ?? time.slice(0, 7),
        times: (before?.times ?? 0) + (counted.has(call) ? 0 : 1),
        tokens: before?.tokens ?? (usage === null ? undefined : partsOf(usage)),
      })
      counted.add(call)
    }
  })
  return calls
}

/**
 * Every call that reached a backend must be known, by any of its attempts; a record that claims what the backend reported must name the same
 * tokens, part by part; a call that succeeded must have taken over what was reported. A call whose caller did not wait
 * for its answer has a record that claims nothing, which is no difference.
 */
export function compareBackends(
  calls: BackendCalls,
  known: ReadonlyMap<string, KnownAttempt>,
  month: string | undefined,
): Finding[] {
  const findings: Finding[] = []
  // Whoever died in a call's second attempt left what it knew of the first one.
  const knownCalls = new Set([...known.keys()].map(callOfAttempt))
  for (const call of calls.values()) {
    const scope = { consumerId: '', serviceId: '', month: call.month, id: call.attemptId }
    const expected = call.tokens === undefined ? 0 : totalTokens(call.tokens)
    const isAsked = month === undefined || call.month === month
    if (!knownCalls.has(callOfAttempt(call.attemptId)) && isAsked) {
      const detail = 'the backend was called; no record, event or open reservation'
      findings.push({ ...scope, kind: 'lost', expected, found: 0, detail })
    }
    if (call.times > 1 && isAsked) {
      const detail = 'calls: the attempt reached a backend more than once'
      findings.push({ ...scope, kind: 'called_again', expected: 1, found: call.times, detail })
    }
  }
  for (const attempt of known.values()) {
    if (typeof attempt === 'string' || (month !== undefined && attempt.month !== month)) continue
    const { id, consumerId, serviceId, usageSource, succeeded } = attempt
    // The record of a call's last attempt has the id of the first one.
    const sentId = attemptIdOf(id, attempt.attempt)
    const scope = { consumerId, serviceId, month: attempt.month, id }
    const reported = calls.get(sentId)?.tokens
    const found = totalTokens(attempt.tokens)
    if (usageSource === 'provider' && reported === undefined) {
      const detail = 'the record claims reported usage; the log has none for it'
      findings.push({ ...scope, kind: 'phantom', expected: 0, found, detail })
    } else if (reported !== undefined && (usageSource === 'provider' || succeeded)) {
      if (usageSource === 'provider' && parts.every((part) => attempt.tokens[part] === reported[part])) continue
      const detail = `the backend said ${describe(reported)}; recorded (${usageSource}) ${describe(attempt.tokens)}`
      findings.push({ ...scope, kind: 'tokens', expected: totalTokens(reported), found, detail })
    }
  }
  return findings
}

const parts = ['input', 'cachedInput', 'cacheWriteInput', 'output', 'reasoningOutput'] as const

/** Disjoint, as records hold them: cached tokens are part of the prompt, reasoning of the completion. */
function partsOf({ promptTokens, completionTokens, cachedTokens, reasoningTokens }: PracticeUsage): TokenParts {
  return {
    input: promptTokens - cachedTokens,
    cachedInput: cachedTokens,
    cacheWriteInput: 0,
    output: completionTokens - reasoningTokens,
    reasoningOutput: reasoningTokens,
  }
}

function describe(tokens: TokenParts): string {
  return parts.map((part) => tokens[part]).join('/')
}
