/** `tollgate audit verify`: opens the database of a deployment for reading, checks the audit log, and says what was found. */
import type { Config } from '../config.ts'
import { type Closers, lockDataDir, openPostgresForReading } from '../storage/open-for-reading.ts'
import { describeError, errorCode, type Sql } from '../storage/postgres.ts'
import { createLogger } from '../telemetry/log.ts'
import { type Anchors, readAnchors, writeAnchors } from './heads-file.ts'
import { type AuditVerdict, verifyAudit } from './verify-audit.ts'
import { verdictJson, verdictText } from './verify-report.ts'

export interface VerifyOptions {
  /** File of heads: compared with when it is there, written when nothing was found. */
  readonly heads?: string
  readonly json?: boolean
}

/** Where the command writes: the report, and how far it is. */
export interface VerifyOutput {
  report(text: string): void
  progress(text: string): void
}

/**
 * Checks the audit log, writes the report, and returns the exit code: 0 when it is whole, 1 when it was tampered with. Throws
 * an Error whose text says what could not be read and what to do.
 */
export async function runVerify(config: Config, options: VerifyOptions, output: VerifyOutput): Promise<number> {
  const closers: Closers = []
  try {
    const anchors = options.heads === undefined ? undefined : await readAnchors(options.heads)
    const at = new Date().toISOString()
    const verdict = await ask(await openDatabase(config, closers), anchors, reporter(output))
    const notes = notesOf(options, anchors)
    const isWhole = verdict.findingCount === 0
    if (isWhole && options.heads !== undefined) await writeAnchors(options.heads, { at, heads: verdict.heads })
    output.report((options.json === true ? verdictJson : verdictText)(verdict, anchors, notes))
    return isWhole ? 0 : 1
  } finally {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer()
  }
}

async function openDatabase(config: Config, closers: Closers): Promise<Sql> {
  const { dataDir, database } = config
  if (database.url === undefined) await lockDataDir(dataDir, 'DATABASE_URL', closers)
  const log = createLogger({ level: 'silent' })
  const applicationName = 'tollgate audit'
  return openPostgresForReading({ url: database.url, dataDir, log, applicationName, statementTimeoutMs }, closers)
}

/** For one page of records. */
const statementTimeoutMs = 60_000

async function ask(
  sql: Sql,
  anchors: Anchors | undefined,
  onProgress: (done: number, total: number) => void,
): Promise<AuditVerdict> {
  try {
    return await verifyAudit(sql, anchors?.heads ?? [], onProgress)
  } catch (error) {
    // undefined_table
    const remedy =
      errorCode(error) === '42P01'
        ? 'This database has no audit log: check DATABASE_URL, or run "tollgate migrate"'
        : 'Check DATABASE_URL and the server, then run it again'
    throw new Error(`Postgres could not be read: ${describeError(error)}. ${remedy}`)
  }
}

function notesOf({ heads }: VerifyOptions, anchors: Anchors | undefined): string[] {
  if (anchors !== undefined) return []
  const unseen = 'a log that was rewritten from some record to its end would look whole'
  if (heads === undefined) return [`Not compared with heads of an earlier time (--heads): ${unseen}.`]
  return [`${heads} was not there: only from now on it shows what was rewritten. Until then, ${unseen}.`]
}

/** Says how far it is every two seconds. */
function reporter({ progress }: VerifyOutput): (done: number, total: number) => void {
  let nextMs = performance.now() + reportEveryMs
  return (done, total) => {
    if (performance.now() < nextMs) return
    nextMs = performance.now() + reportEveryMs
    progress(`${done} of ${total} records\n`)
  }
}

const reportEveryMs = 2_000
