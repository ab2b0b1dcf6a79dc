import type { ChainFinding } from './check-chain.ts'
import type { Anchors } from './heads-file.ts'
import type { AuditVerdict } from './verify-audit.ts'

/** One JSON document with every finding that was kept, and the heads. */
export function verdictJson(verdict: AuditVerdict, anchors: Anchors | undefined, notes: readonly string[]): string {
  const { findingCount, records, findings, heads } = verdict
  const document = {
    verdict: findingCount === 0 ? 'whole' : 'tampered',
    records,
    findingCount,
    findings,
    comparedWith: anchors === undefined ? null : anchors.at,
    heads,
    notes,
  }
  return `${JSON.stringify(document, undefined, 2)}\n`
}

/** For people: what was read, and a line for each finding. */
export function verdictText(verdict: AuditVerdict, anchors: Anchors | undefined, notes: readonly string[]): string {
  const { findingCount, records, findings, heads } = verdict
  const lines = [`Records: ${records} in ${heads.length} chains`, ...notes, '']
  if (findingCount === 0) {
    const since =
      anchors === undefined || anchors.at === '' ? '' : `, and nothing was rewritten that was there at ${anchors.at}`
    lines.push(`The audit log is whole${since}.`)
  } else {
    lines.push(`${findingCount === 1 ? '1 finding' : `${findingCount} findings`}: the audit log was tampered with.`)
    lines.push(...findings.slice(0, mostLines).map(lineOf))
    if (findingCount > mostLines) lines.push(`… and ${findingCount - mostLines} more`)
  }
  return `${lines.join('\n')}\n`
}

/** Lines that a person would read; --json has more. */
const mostLines = 100

function lineOf({ kind, chain, sequence, id, detail }: ChainFinding): string {
  return `  ${kind}: chain ${chain}, record ${sequence}${id === '' ? '' : ` (${id})`}: ${detail}`
}
