import type { Transaction } from '../storage/postgres.ts'
import { type AuditRow, recordOf } from './audit-store.ts'
import type { ChainHead, StoredRecord } from './check-chain.ts'

/** The head of each chain, in their order. */
export function readHeads(tx: Transaction): Promise<readonly ChainHead[]> {
  return Promise.resolve(tx<ChainHead[]>`select chain, length, hash from audit_chains order by chain`)
}

/** Chains that have records, found by a look into the primary key for each. */
export async function readChainsInUse(tx: Transaction): Promise<readonly number[]> {
  const rows = await tx<{ chain: number }[]>`
    with recursive used as (
      select min(chain)::int as chain from audit_records
      union all
      select (select min(chain) from audit_records where chain > used.chain)::int from used where used.chain is not null
    )
    select chain from used where chain is not null`
  return rows.map(({ chain }) => chain)
}

/** Records of a chain in the order of their sequences, a page at a time, whatever their sequences are. */
export async function* readChain(tx: Transaction, chain: number): AsyncGenerator<readonly StoredRecord[]> {
  let after: AuditRow | undefined
  for (;;) {
    // The primary key gives the order; ids decide only where somebody took it away.
    const rows: readonly AuditRow[] = await tx<AuditRow[]>`
      select * from audit_records where chain = ${chain}
        ${after === undefined ? tx`` : tx`and sequence >= ${after.sequence} and (sequence, id) > (${after.sequence}, ${after.id}::uuid)`}
      order by sequence, id limit ${pageSize}`
    if (rows.length > 0) yield rows.map((row) => ({ record: recordOf(row), hash: row.hash }))
    if (rows.length < pageSize) return
    after = rows.at(-1)
  }
}

const pageSize = 2_000
