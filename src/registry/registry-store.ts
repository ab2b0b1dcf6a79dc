import { selectConsumerRecords } from '../identity/consumer-store.ts'
import { selectOrganizationRecords } from '../identity/organization-store.ts'
import { selectProjectRecords } from '../identity/project-store.ts'
import type { UserRecord } from '../identity/user-record.ts'
import { selectUserRecords } from '../identity/user-store.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import { selectLimitRules } from '../limits/limit-store.ts'
import type { PolicyRecord } from '../policy/policy-record.ts'
import { selectActivePolicies } from '../policy/policy-store.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { ConsumerRecord, OrganizationRecord, ProjectRecord, ServiceRecord } from './records.ts'
import { selectServices } from './service-store.ts'
import { selectSplits } from './split-store.ts'
import type { TrafficSplitRecord } from './traffic-split.ts'

/** All that snapshots hold, at one instant; control_version. */

export interface ControlVersion {
  /** Moves with every change of the control plane. */
  readonly version: number
  /** Moves with every change of what {@link Catalog} holds. */
  readonly catalogVersion: number
}

export async function selectControlVersion(sql: Sql | Transaction): Promise<ControlVersion> {
  const [row] = await sql<{ version: number; catalog_version: number }[]>`
    select version, catalog_version from control_version`
  if (row === undefined) throw new Error('control_version has lost its row')
  return { version: row.version, catalogVersion: row.catalog_version }
}

export interface Catalog extends ControlVersion {
  /** By id. */
  readonly services: readonly ServiceRecord[]
  readonly splits: readonly TrafficSplitRecord[]
  readonly organizations: readonly OrganizationRecord[]
  readonly projects: readonly ProjectRecord[]
  readonly consumers: readonly ConsumerRecord[]
  readonly users: readonly UserRecord[]
  readonly limitRules: readonly LimitRule[]
  readonly policies: readonly PolicyRecord[]
}

/** Everything at one instant: the versions belong exactly to the records. Prices in force are not chosen yet. */
export async function selectCatalog(sql: Sql): Promise<Catalog> {
  return sql.begin(async (tx) => {
    const versions = await selectControlVersion(tx)
    return {
      ...versions,
      services: await selectServices(tx),
      splits: await selectSplits(tx),
      organizations: await selectOrganizationRecords(tx),
      projects: await selectProjectRecords(tx),
      consumers: await selectConsumerRecords(tx),
      users: await selectUserRecords(tx),
      limitRules: await selectLimitRules(tx),
      policies: await selectActivePolicies(tx),
    }
  }, 'isolation level repeatable read read only')
}
