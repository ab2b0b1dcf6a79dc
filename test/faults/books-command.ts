import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { at, list, number, parseJson, string } from '../support/json.ts'
import { spawnTollgate } from '../support/tollgate.ts'

/** What `tollgate books` says. */
export interface BooksReport {
  readonly exitCode: number
  /** One line a difference. */
  readonly differences: readonly string[]
  /** Sum of the differences, whatever their sign. */
  readonly amount: number
  /** What open reservations hold of the counters, and tokens of events that are not in the ledger. */
  readonly unfinished: number
}

/** Runs the command against the stores that `env` names. Throws with its output when it could not read them. */
export async function askBooks(env: Readonly<Record<string, string>>, backendLog: string): Promise<BooksReport> {
  const { child, output } = spawnTollgate(['books', '--json', '--backend-log', backendLog], env)
  const [code] = await once(child, 'close')
  const report = output().startsWith('{') ? parseJson(output()) : undefined
  if (report === undefined) throw new Error(`tollgate books ended with ${code}: ${output()}`)
  const findings = [...list(at(report, 'differences')), ...list(at(report, 'moving'))].map((finding) => ({
    name: ['kind', 'detail', 'consumerId', 'id'].map((field) => string(at(finding, field))).join(' '),
    expected: number(at(finding, 'expected')),
    found: number(at(finding, 'found')),
  }))
  const reserved = list(at(report, 'counters')).map((counter) => number(at(counter, 'reserved')))
  return {
    exitCode: Number(code),
    differences: findings.map(({ name, expected, found }) => `${name}: expected ${expected}, found ${found}`),
    amount: findings.reduce((sum, { expected, found }) => sum + Math.abs(found - expected), 0),
    unfinished: reserved.reduce((sum, units) => sum + units, number(at(report, 'totals', 'onTheWay'))),
  }
}

const pauseMs = 1_000

/**
 * Asks until nothing is on its way and the books balance, which takes until the last lease of a call that nobody ended
 * has run out; what the last answer says when `patienceMs` are over stands.
 */
export async function booksAtRest(
  env: Readonly<Record<string, string>>,
  backendLog: string,
  patienceMs: number,
  signal: AbortSignal,
): Promise<BooksReport> {
  for (const untilMs = Date.now() + patienceMs; ; await delay(pauseMs, undefined, { signal })) {
    const report = await askBooks(env, backendLog)
    if ((report.exitCode === 0 && report.unfinished === 0) || Date.now() > untilMs) return report
  }
}
