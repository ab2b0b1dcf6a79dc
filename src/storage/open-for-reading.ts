import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { startEmbeddedPostgres } from './embedded-postgres.ts'
import { lockFolder } from './folder-lock.ts'
import { connectPostgres, describeError, type Sql, type StorageLog } from './postgres.ts'

/** What undoes what was opened; run last to first. */
export type Closers = (() => Promise<unknown>)[]

/** Makes this process the only user of a data folder. Throws when there is none, or a gate runs on it; `settings` name what to set instead. */
export async function lockDataDir(dataDir: string, settings: string, closers: Closers): Promise<void> {
  if (!existsSync(dataDir)) {
    throw new Error(`${dataDir} does not exist: set TOLLGATE_DATA_DIR, or ${settings}, as for the gate`)
  }
  const unlock = await lockFolder(dataDir).catch((error: unknown) => {
    throw new Error(`${describeError(error)}. Embedded stores can be read while the gate is stopped: stop it first`)
  })
  closers.push(unlock)
}

export interface ReadingOptions {
  /** Undefined: the embedded Postgres of `dataDir`, which must be locked. */
  readonly url: string | undefined
  readonly dataDir: string
  /** As in pg_stat_activity. */
  readonly applicationName: string
  readonly statementTimeoutMs: number
  readonly log: StorageLog
}

/** The Postgres of a deployment on one connection, for a command that reads. */
export async function openPostgresForReading(options: ReadingOptions, closers: Closers): Promise<Sql> {
  const { url, dataDir, log, applicationName, statementTimeoutMs } = options
  const embedded =
    url === undefined ? await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), log }) : undefined
  if (embedded !== undefined) closers.push(() => embedded.stop())
  const target = embedded ?? { url: url ?? '' }
  const sql = connectPostgres({ ...target, log, maxConnections: 1, statementTimeoutMs, applicationName })
  closers.push(() => sql.end(2_000))
  return sql
}
