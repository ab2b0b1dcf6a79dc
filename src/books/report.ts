import type { Audit } from './audit.ts'
import type { Comparison, Finding, FindingKind } from './books.ts'

/** What the exit code of the command says. */
export type Verdict = 'balanced' | 'different' | 'moving'

export function verdictOf(audit: Audit): Verdict {
  if (audit.differences.length > 0) return 'different'
  return audit.moving.length > 0 ? 'moving' : 'balanced'
}

/** One JSON document with every scope, counter and finding. */
export function auditJson(audit: Audit, notes: readonly string[]): string {
  const { scopes, counters, differences, moving, readings, unscoped } = audit
  const totals = totalsOf(audit)
  const sides = { totals, scopes, counters }
  const document = { verdict: verdictOf(audit), readings, ...sides, differences, moving, unscoped, notes }
  return `${JSON.stringify(document, undefined, 2)}\n`
}

/** For people: the sums, then a table of what differs. */
export function auditText(audit: Audit, notes: readonly string[]): string {
  const { scopes, counters, differences, moving, readings, unscoped } = audit
  const totals = totalsOf(audit)
  const lines = [
    `Consumers by service and month: ${scopes.length}; records: ${totals.records}; read ${readings === 1 ? 'once' : `${readings} times`}`,
    `Tokens: ledger ${totals.ledger}, rollup ${totals.rollup}, on their way ${totals.onTheWay}, quarantine ${totals.quarantine}`,
    `Counters: ${counters.length}, ${totals.unknown} of them unknown`,
    ...(unscoped === 0 ? [] : [`Quarantine also holds ${unscoped} that no sum can take in.`]),
    ...notes,
    '',
  ]
  if (differences.length > 0) lines.push(`${count(differences)} in the books:`, ...table(differences), '')
  if (moving.length > 0) {
    lines.push(`Still moving after ${readings} readings; run it again when fewer calls run:`, ...table(moving), '')
  }
  if (differences.length === 0 && moving.length === 0) lines.push('The books balance.', '')
  return lines.join('\n')
}

const meanings: Readonly<Record<FindingKind, string>> = {
  rollup: 'rollup is not the sum of the ledger',
  counter: 'counter is not what was used',
  held: 'counter holds what nobody reserved',
  repeated: 'event is recorded twice',
  dropped: 'event was dropped on its way',
  unreadable: 'usage log cannot be understood',
  lost: 'call left no record',
  phantom: 'record without a call',
  tokens: 'record and backend disagree',
  called_again: 'backend was called twice',
}

function count(findings: readonly Finding[]): string {
  return findings.length === 1 ? '1 difference' : `${findings.length} differences`
}

/** Rows that a person would read; --json has them all. */
const mostRows = 200

function table(findings: readonly Finding[]): string[] {
  const head = ['what', 'consumer', 'service', 'month', 'id', 'expected', 'found', 'difference', 'detail']
  const rows = findings.slice(0, mostRows).map((finding) => {
    const { kind, consumerId, serviceId, month, id, expected, found, detail } = finding
    const difference = `${found > expected ? '+' : ''}${found - expected}`
    return [meanings[kind], consumerId, serviceId, month, id, String(expected), String(found), difference, detail]
  })
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)))
  const print = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  const more = findings.length - rows.length
  return [...[head, ...rows].map(print), ...(more > 0 ? [`and ${more} more: --json has them all`] : [])]
}

type Totals = Record<'records' | 'ledger' | 'rollup' | 'onTheWay' | 'quarantine' | 'unknown', number>

function totalsOf({ scopes, counters }: Comparison): Totals {
  const unknown = counters.filter(({ used }) => used === undefined).length
  const totals = { records: 0, ledger: 0, rollup: 0, onTheWay: 0, quarantine: 0, unknown }
  for (const scope of scopes) {
    totals.records += scope.records
    totals.ledger += scope.ledger
    totals.rollup += scope.rollup
    totals.onTheWay += scope.onTheWay
    totals.quarantine += scope.quarantine
  }
  return totals
}
