import type { Sql } from '../storage/postgres.ts'
import { chains as chainCount } from './append-audit.ts'
import { ChainCheck, type ChainFinding, type ChainHead } from './check-chain.ts'
import { readChain, readChainsInUse, readHeads } from './read-chains.ts'

export interface AuditVerdict {
  readonly records: number
  /** Heads as they are now, of use as anchors only when nothing was found. */
  readonly heads: readonly ChainHead[]
  /** The first {@link mostFindings}, in the order of chains and sequences. */
  readonly findings: readonly ChainFinding[]
  /** All of them. */
  readonly findingCount: number
}

/** Findings that are kept. */
export const mostFindings = 1_000

/**
 * Reads the audit log as it is at one moment, while others write on, and checks every chain, a page of records in memory at a
 * time. `anchors` are heads of an earlier time. `onProgress` is told how many of how many records were read.
 */
export function verifyAudit(
  sql: Sql,
  anchors: readonly ChainHead[],
  onProgress: (done: number, total: number) => void = () => {},
): Promise<AuditVerdict> {
  return sql.begin(async (tx) => {
    const heads = await readHeads(tx)
    const total = heads.reduce((sum, { length }) => sum + length, 0)
    const findings: ChainFinding[] = []
    let findingCount = 0
    let records = 0
    const note = (finding: ChainFinding): void => {
      findingCount += 1
      if (findings.length < mostFindings) findings.push(finding)
    }
    for (const chain of chainsOf(await readChainsInUse(tx), heads, anchors)) {
      const of = (ends: readonly ChainHead[]) => ends.find((end) => end.chain === chain)
      const check = new ChainCheck(chain, of(heads), of(anchors), note)
      for await (const page of readChain(tx, chain)) {
        for (const stored of page) check.next(stored)
        records += page.length
        onProgress(records, total)
      }
      check.end()
    }
    return { records, heads, findings, findingCount }
  }, 'isolation level repeatable read read only')
}

/** Every chain that is there, was there, or must be there. */
function chainsOf(used: readonly number[], ...ends: readonly (readonly ChainHead[])[]): number[] {
  const made = Array.from({ length: chainCount }, (_, chain) => chain)
  const known = new Set([...made, ...used, ...ends.flat().map(({ chain }) => chain)])
  return [...known].sort((a, b) => a - b)
}
