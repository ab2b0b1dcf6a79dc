import type { SnapshotSource } from '../registry/snapshot.ts'
import type { Sql } from '../storage/postgres.ts'

/** What the services of organizations, projects, consumers and users need. */
export interface IdentityServiceOptions {
  readonly sql: Sql
  /** UUIDv7, lower case. */
  readonly newId: () => string
  /** When given, a write answers only after this process's snapshot holds it. */
  readonly snapshots?: Pick<SnapshotSource, 'refresh'>
}
