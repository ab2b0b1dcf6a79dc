import type { Sql, Transaction } from '../storage/postgres.ts'
import type { Share, TrafficSplitRecord } from './traffic-split.ts'

/** Statements on traffic splits. */

/** Those that are in force. */
export async function selectSplits(sql: Sql | Transaction): Promise<TrafficSplitRecord[]> {
  return sql<SplitRow[]>`select name, shares, sticky, revision from traffic_splits where shares <> '[]' order by name`
}

/** One split, also one without shares, which nobody else changes until the transaction ends. */
export async function lockSplit(tx: Transaction, name: string): Promise<TrafficSplitRecord | undefined> {
  const [row] = await tx<SplitRow[]>`
    select name, shares, sticky, revision from traffic_splits where name = ${name} for update`
  return row
}

export async function putSplit(tx: Transaction, split: TrafficSplitRecord): Promise<void> {
  const { name, shares, sticky, revision } = split
  await tx`
    insert into traffic_splits (name, shares, sticky, revision)
    values (${name}, ${tx.json(shares)}, ${sticky}, ${revision})
    on conflict (name) do update
    set shares = excluded.shares, sticky = excluded.sticky, revision = excluded.revision`
}

interface SplitRow {
  readonly name: string
  readonly shares: readonly Share[]
  readonly sticky: boolean
  readonly revision: number
}
