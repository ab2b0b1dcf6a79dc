import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { reasons, TollgateError } from '../errors.ts'
import { leastAttemptMs, maxAttempts, nextAttempt, parseRetryAfter, pauseCeilingMs } from './retry-policy.ts'
import { type Failure, failureOf, type RetryRow, type RetryRule, retryTable } from './retry-table.ts'

const failures = Object.keys(retryTable) as Failure[]
const failed = { failure: 'reset', mode: 'unary', number: 1, retryAfterMs: undefined, remainingMs: 60_000 } as const

describe('the table', () => {
  const cells: Readonly<Record<RetryRule, string>> = { any: 'any endpoint', other: 'another endpoint', never: 'no' }

  test('is printed in docs/routing.md, row by row', () => {
    const docs = readFileSync(new URL('../../docs/routing.md', import.meta.url), 'utf8')
    const printed = docs.split('\n').filter((line) => /^\| `\w+` \| (yes|no) \|/.test(line))
    const rows = Object.entries<RetryRow>(retryTable).map(([failure, row]) => {
      const sent = row.sent ? 'yes' : 'no'
      return `| \`${failure}\` | ${sent} | ${cells[row.unary]} | ${cells[row.stream]} | ${row.meaning} | ${row.why} |`
    })
    expect(printed).toEqual(rows)
  })

  test.each(failures.flatMap((failure) => (['unary', 'stream'] as const).map((mode) => [failure, mode] as const)))(
    'decides for %s of %s',
    (failure, mode) => {
      const rule: RetryRule = retryTable[failure][mode]
      const retry = nextAttempt({ ...failed, failure, mode }, Math.random)
      expect(retry?.where).toBe(rule === 'never' ? undefined : rule)
      expect(retry?.sameDelayMs === undefined).toBe(rule !== 'any')
    },
  )

  test('repeats nothing where it may be computed twice by a backend that is only slow', () => {
    for (const failure of failures) {
      if (!failure.endsWith('_timeout') || !retryTable[failure].sent) continue
      expect(nextAttempt({ ...failed, failure }, Math.random)?.sameDelayMs, failure).toBeUndefined()
    }
  })

  test('knows every error of a backend, and takes what it does not know for a failure of the gate', () => {
    for (const [reason, { retryable }] of Object.entries(reasons)) {
      if (!reason.startsWith('BACKEND_')) continue
      const failure = failureOf(new TollgateError(reason as keyof typeof reasons, ''))
      expect(failure, reason).not.toBe('internal')
      // What callers may try again is never what the gate itself would not.
      if (retryable) expect(retryTable[failure].unary, reason).not.toBe('never')
    }
    expect(failureOf(new TollgateError('BACKEND_FAILED', '', { metadata: { failure: 'busy' } }))).toBe('busy')
    expect(failureOf(new TollgateError('BACKEND_FAILED', '', { metadata: { failure: 'toString' } }))).toBe(
      'server_error',
    )
    expect(failureOf(new TollgateError('BACKEND_FAILED', '', { metadata: { backendError: 'rate_limit' } }))).toBe(
      'busy',
    )
    expect(failureOf(new Error('bug'))).toBe('internal')
  })
})

describe('the next attempt', () => {
  test('comes at most twice', () => {
    expect(maxAttempts).toBe(3)
    expect([1, 2, 3].map((number) => nextAttempt({ ...failed, number }, Math.random) !== undefined)).toEqual([
      true,
      true,
      false,
    ])
  })

  test('waits for anything from nothing to a ceiling that doubles from 100 ms', () => {
    const delays = (random: number) => [1, 2].map((number) => nextAttempt({ ...failed, number }, () => random)?.delayMs)
    expect([1, 2, 3, 4, 5, 6, 7].map(pauseCeilingMs)).toEqual([100, 200, 400, 800, 1_600, 2_000, 2_000])
    expect(delays(0)).toEqual([0, 0])
    expect(delays(0.5)).toEqual([50, 100])
    expect(delays(1 - 2 ** -40).map((ms) => Math.round(ms ?? 0))).toEqual([100, 200])
  })

  test('never begins without a sensible rest of the deadline', () => {
    fc.assert(
      fc.property(
        fc.record({
          failure: fc.constantFrom(...failures),
          mode: fc.constantFrom('unary' as const, 'stream' as const),
          number: fc.integer({ min: 1, max: 4 }),
          retryAfterMs: fc.option(fc.nat(5_000), { nil: undefined }),
          remainingMs: fc.integer({ min: -1_000, max: 5_000 }),
        }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (attempt, random) => {
          const retry = nextAttempt(attempt, () => random)
          for (const delayMs of [retry?.delayMs, retry?.sameDelayMs]) {
            if (delayMs === undefined) continue
            expect(delayMs).toBeGreaterThanOrEqual(0)
            expect(attempt.remainingMs - delayMs).toBeGreaterThanOrEqual(leastAttemptMs)
          }
          expect(retry?.sameDelayMs ?? Number.POSITIVE_INFINITY).toBeGreaterThanOrEqual(attempt.retryAfterMs ?? 0)
        },
      ),
      { numRuns: 2_000 },
    )
  })

  test('honours Retry-After at the same endpoint, and is none there when that lies beyond the deadline', () => {
    const busy = { ...failed, failure: 'busy', retryAfterMs: 7_000 } as const
    expect(nextAttempt(busy, () => 0.5)).toMatchObject({ sameDelayMs: 7_050, delayMs: 50 })
    expect(nextAttempt({ ...busy, remainingMs: 7_260 }, () => 0.5)).toMatchObject({ sameDelayMs: 7_010 })
    expect(nextAttempt({ ...busy, remainingMs: 7_200 }, () => 0.5)).toEqual({
      where: 'any',
      delayMs: 50,
      sameDelayMs: undefined,
    })
  })
})

test.each([
  ['7', 7_000],
  ['0', 0],
  ['Fri, 13 Feb 2026 12:00:03 GMT', 3_000],
  ['Fri, 13 Feb 2026 11:00:00 GMT', 0],
  ['-1', undefined],
  ['1.5', undefined],
  ['99999999', undefined],
  ['soon', undefined],
  ['', undefined],
  [undefined, undefined],
  [['1', '2'], undefined],
])('reads Retry-After: %j', (value, ms) => {
  expect(parseRetryAfter(value, Date.parse('2026-02-13T12:00:00Z'))).toBe(ms)
})
