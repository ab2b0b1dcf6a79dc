import { randomInt } from 'node:crypto'
import { newId } from '../ids.ts'
import type { Transaction } from '../storage/postgres.ts'
import { type AuditEntry, auditHash } from './audit-record.ts'

/**
 * Appends an entry to a chain of the audit log. It is there when the transaction commits, with what it tells of, or not at
 * all. The chain is held until then: one that nobody holds is taken, and only when all are held is one waited for.
 */
export async function appendAudit(tx: Transaction, entry: AuditEntry): Promise<void> {
  const { chain, length, hash: previousHash } = await takeChain(tx)
  const record = { ...entry, chain, sequence: length + 1, previousHash, id: newId(), createdAtMs: Date.now() }
  const hash = auditHash(record)
  await tx`
    insert into audit_records (chain, sequence, id, created_at, kind, action, actor, resource, organization_id, reason,
      count, request_id, address, user_agent, before, after, previous_hash, hash)
    values (${chain}, ${record.sequence}, ${record.id}, ${new Date(record.createdAtMs)}, ${entry.kind}, ${entry.action},
      ${entry.actor}, ${entry.resource}, ${entry.organizationId}, ${entry.reason}, ${entry.count}, ${entry.requestId},
      ${entry.address}, ${entry.userAgent}, ${entry.before}, ${entry.after}, ${previousHash}, ${hash})`
  await tx`update audit_chains set length = ${record.sequence}, hash = ${hash} where chain = ${chain}`
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
const chains = 16
