import { randomInt } from 'node:crypto'
import { newId } from '../ids.ts'
import type { Transaction } from '../storage/postgres.ts'
import { type AuditEntry, type AuditRecord, auditHash, type IdentifiedEntry } from './audit-record.ts'
import { cleanEntry } from './audit-text.ts'

/**
 * Appends an entry to a chain of the audit log. It is there when the transaction commits, with what it tells of, or not at
 * all. The chain is held until then: one that nobody holds is taken, and only when all are held is one waited for.
 */
export function appendAudit(tx: Transaction, entry: AuditEntry): Promise<void> {
  return appendEntries(tx, [{ ...entry, id: newId(), createdAtMs: Date.now() }])
}

/** Appends at least one entry, and 1,000 at most, to one chain, in their order; else as {@link appendAudit}. */
export async function appendEntries(tx: Transaction, entries: readonly IdentifiedEntry[]): Promise<void> {
  const head = await takeChain(tx)
  let { length, hash } = head
  const rows = entries.map((entry) => {
    const record = { ...cleanEntry(entry), chain: head.chain, sequence: length + 1, previousHash: hash }
    length = record.sequence
    hash = auditHash(record)
    return rowOf(record, hash)
  })
  await tx`insert into audit_records ${tx(rows)}`
  await tx`update audit_chains set length = ${length}, hash = ${hash} where chain = ${head.chain}`
}

function rowOf(record: AuditRecord, hash: string) {
  const { chain, sequence, id, kind, action, actor, resource, reason, count, address, before, after } = record
  return {
    chain,
    sequence,
    id,
    created_at: new Date(record.createdAtMs),
    kind,
    action,
    actor,
    resource,
    organization_id: record.organizationId,
    reason,
    count,
    request_id: record.requestId,
    address,
    user_agent: record.userAgent,
    before,
    after,
    previous_hash: record.previousHash,
    hash,
  }
}

interface Chain {
  readonly chain: number
  readonly length: number
  readonly hash: string
}

async function takeChain(tx: Transaction): Promise<Chain> {
  const first = randomInt(chains)
  const [free] = await tx<Chain[]>`
    select chain, length, hash from audit_chains
    order by (chain + ${first}::int) % ${chains}::int limit 1 for update skip locked`
  if (free !== undefined) return free
  const [waited] = await tx<Chain[]>`select chain, length, hash from audit_chains where chain = ${first} for update`
  if (waited === undefined) throw new Error('audit_chains has lost a row')
  return waited
}

/** As many as 0014_changes.sql made. */
export const chains = 16
