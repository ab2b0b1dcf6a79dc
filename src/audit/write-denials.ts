import type { Sql } from '../storage/postgres.ts'
import { appendEntries } from './append-audit.ts'
import type { IdentifiedEntry } from './audit-record.ts'

/** Appends denials to the audit log in one transaction; with `again`, only those that are not in it. */
export function writeDenials(sql: Sql, entries: readonly IdentifiedEntry[], again: boolean): Promise<void> {
  return sql.begin(async (tx) => {
    const written = again ? await selectWritten(tx, entries) : new Set<string>()
    const missing = entries.filter(({ id }) => !written.has(id))
    if (missing.length > 0) await appendEntries(tx, missing)
  })
}

/** Index audit_records_id_key. */
async function selectWritten(tx: Parameters<typeof appendEntries>[0], entries: readonly IdentifiedEntry[]) {
  const ids = entries.map(({ id }) => id)
  const rows = await tx<{ id: string }[]>`select id from audit_records where id = any(${ids}::uuid[])`
  return new Set(rows.map(({ id }) => id))
}
