/** Decides, without doing anything, whether a failed attempt is followed by another one, when, and where. */
import { type Failure, type RetryRule, retryTable } from './retry-table.ts'

export interface FailedAttempt {
  readonly failure: Failure
  readonly mode: 'unary' | 'stream'
  /** Number of the attempt that failed, from 1. */
  readonly number: number
  /** What the backend asked to wait, in milliseconds; undefined when it did not. */
  readonly retryAfterMs: number | undefined
  /** Until the call's deadline, in milliseconds. */
  readonly remainingMs: number
}

export interface Retry {
  /** Where the next attempt may go. */
  readonly where: Exclude<RetryRule, 'never'>
  /** Pause before the next attempt at another endpoint. */
  readonly delayMs: number
  /** Pause before one at the same endpoint; undefined when it cannot begin soon enough. */
  readonly sameDelayMs: number | undefined
}

/** A call is tried this often at most. */
export const maxAttempts = 3

const firstPauseMs = 100
const longestPauseMs = 2_000

/** No attempt begins with less than this left of the call's deadline: it could only end in a timeout. */
export const leastAttemptMs = 250

/**
 * The next attempt after a failed one; undefined when there must be none: what went wrong forbids it, the attempts are used
 * up, or too little of the deadline is left.
 *
 * Pauses are drawn evenly from zero to a ceiling that doubles: "full jitter", which of the ways to spread retries does the
 * least work in the least time (AWS Architecture Blog, "Exponential Backoff And Jitter"). What is left of the deadline
 * shortens a pause. Retry-After (RFC 9110 §10.2.3) is a demand of one endpoint: at the same endpoint the attempt waits at
 * least so long, and is not made when that leaves too little of the deadline.
 *
 * @param random evenly from 0 (inclusive) to 1.
 */
export function nextAttempt(failed: FailedAttempt, random: () => number): Retry | undefined {
  const where: RetryRule = retryTable[failed.failure][failed.mode]
  const latestMs = failed.remainingMs - leastAttemptMs
  if (where === 'never' || failed.number >= maxAttempts || latestMs < 0) return undefined
  const pauseMs = random() * pauseCeilingMs(failed.number)
  const demandMs = failed.retryAfterMs ?? 0
  return {
    where,
    delayMs: Math.min(pauseMs, latestMs),
    sameDelayMs: where === 'other' || demandMs > latestMs ? undefined : Math.min(demandMs + pauseMs, latestMs),
  }
}

/** Longest pause after attempt `number`: 100 ms after the first, then twice as much each time, and never more than 2 s. */
export function pauseCeilingMs(number: number): number {
  return Math.min(longestPauseMs, firstPauseMs * 2 ** (number - 1))
}

/**
 * Retry-After in seconds or as an HTTP date (RFC 9110 §10.2.3), in milliseconds from now; undefined when absent or
 * unreadable.
 */
export function parseRetryAfter(value: string | readonly string[] | undefined, nowMs: number): number | undefined {
  if (typeof value !== 'string') return undefined
  if (/^\d{1,7}$/.test(value)) return Number(value) * 1000
  const atMs = /[a-z]/i.test(value) ? Date.parse(value) : Number.NaN
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs)
}
