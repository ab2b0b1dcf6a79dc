import type { FaultRunResult } from './fault-run.ts'
import { usedOf } from './oracles.ts'
import { growthBytes } from './scenarios.ts'

/** The figures of a run, for people. */
export function summary(result: FaultRunResult): string {
  const { calls, rows, books, findings, samples, loadMs, restMs } = result
  const answers = calls.flatMap(({ answers }) => answers)
  const tries = calls.reduce((sum, call) => sum + call.tries, 0)
  const asked = calls.reduce((sum, call) => sum + Math.max(1, call.answers.length), 0)
  const backlogs = samples.flatMap(({ backlog }) => backlog ?? [])
  const lines: [string, string][] = [
    ['calls', `${calls.length}, answered ${calls.filter((call) => call.answers.length > 0).length}`],
    ['tries again', `${tries - asked}; failed for ${list(result.failedTries)}`],
    ['repeats', `${asked - calls.length}, answered from store ${answers.filter((answer) => answer.isReplayed).length}`],
    ['faults', `${sum(result.faults)}: ${list(result.faults)}`],
    ['answered during', list(result.answeredDuring)],
    ['records', `${rows.length}: ${list(countBy(rows.map(({ status }) => status)))}`],
    ['budgets', `${budgets(result)}; ${result.refused} calls refused`],
    [
      'from slices',
      `${Math.max(0, ...samples.map(({ sliceAdmissions }) => sliceAdmissions))} calls in one life of the gateways`,
    ],
    ['memory', `a gateway grew by ${mebibytes(growthBytes(samples))}, to ${mebibytes(mostRss(samples))} at most`],
    ['backlog', `${Math.max(0, ...backlogs)} events at most, ${backlogs.at(-1) ?? 'unknown'} at last`],
    ['in time', course(samples).join('; ')],
    ['lost', String(findings.lost.length)],
    ['double', String(findings.double.length)],
    ['passed', String(findings.passed.length)],
    [
      'difference',
      `${books.amount} by the books (exit code ${books.exitCode}), ${findings.different.length} by oracles`,
    ],
    ['seconds', `${(loadMs / 1_000).toFixed(1)} under load, ${(restMs / 1_000).toFixed(1)} to rest`],
  ]
  return lines.map(([name, text]) => `${name.padEnd(16)}${text}`).join('\n')
}

function budgets({ budgets, rows }: FaultRunResult): string {
  return budgets.map((budget) => `${usedOf(budget, rows)} of ${budget.amount} ${budget.unit}`).join(', ')
}

const mostPoints = 8

/** Seconds, backlog and memory, at a few moments from the first to the last. */
function course(samples: FaultRunResult['samples']): string[] {
  const points = Math.min(mostPoints, samples.length)
  const chosen = Array.from({ length: points }, (_, point) =>
    samples.at(Math.round((point * (samples.length - 1)) / Math.max(1, points - 1))),
  )
  return chosen.flatMap((sample) => {
    if (sample === undefined) return []
    const { atMs, backlog, rssBytes } = sample
    return `${Math.round(atMs / 1_000)} s ${backlog ?? '?'} events ${rssBytes.map(mebibytes).join(' + ')}`
  })
}

const mostLines = 20

/** What is wrong, as much of it as a person reads. */
export function complaint(wrong: readonly string[]): string {
  const more = wrong.length - mostLines
  return [...wrong.slice(0, mostLines), ...(more > 0 ? [`and ${more} more`] : [])].join('\n')
}

function list(counts: ReadonlyMap<string, number>): string {
  const sorted = [...counts].sort(([a], [b]) => (a < b ? -1 : 1))
  return sorted.map(([name, count]) => `${name === '' ? 'a broken connection' : name} ${count}`).join(', ') || 'none'
}

function countBy(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
  return counts
}

function sum(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((total, count) => total + count, 0)
}

function mostRss(samples: FaultRunResult['samples']): number {
  return Math.max(0, ...samples.flatMap(({ rssBytes }) => rssBytes))
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`
}
