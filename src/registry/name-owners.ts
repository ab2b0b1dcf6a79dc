import type { Transaction } from '../storage/postgres.ts'

/** Whose a name is: the organizations of its services, undefined for the operator's; none for a name that is free. */
export type NameOwners = readonly (string | undefined)[]

/**
 * The owners of a name, which nobody else takes or shares out until the transaction ends. A name is worth stealing: whoever
 * registers the newest version of it gets the calls to it.
 */
export async function lockName(tx: Transaction, name: string): Promise<NameOwners> {
  await tx`select pg_advisory_xact_lock(hashtextextended(${`service name ${name}`}, 0))`
  const rows = await tx<{ organization_id: string | null }[]>`
    select distinct organization_id from services where name = ${name}`
  return rows.map(({ organization_id }) => organization_id ?? undefined)
}
