/** `tollgate books`: opens the stores of a deployment for reading, compares them, and says in words what failed. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from '../config.ts'
import type { LimitsReading } from '../limits/limits-reading.ts'
import { readLocalLimits } from '../limits/local-audit.ts'
import { readRedisLimits } from '../limits/redis-audit.ts'
import { type LedgerQuestion, type LedgerReading, readLedger } from '../metering/ledger-audit.ts'
import { readPracticeLog } from '../practice/log.ts'
import { lockDataDir, openPostgresForReading } from '../storage/open-for-reading.ts'
import { describeError, errorCode, type Sql } from '../storage/postgres.ts'
import { connectRedis } from '../storage/redis.ts'
import { createLogger } from '../telemetry/log.ts'
import { auditBooks } from './audit.ts'
import { type BackendCalls, backendCalls } from './backend-calls.ts'
import { type BookStores, readBooks } from './read-books.ts'
import { auditJson, auditText, type Verdict, verdictOf } from './report.ts'

export interface BooksOptions {
  /** Logs of practice backends; all that the gate calls, or records of the others' calls count as phantoms. */
  readonly backendLog?: readonly string[]
  /** UTC month "YYYY-MM"; default all. */
  readonly month?: string
  readonly json?: boolean
}

/** Exit codes of the command; what cannot be read is 2 as well. */
const exitCodes: Readonly<Record<Verdict, number>> = { balanced: 0, different: 1, moving: 2 }

/**
 * Compares the books, writes the report, and returns the exit code. Nothing is changed, except that embedded stores are
 * locked and the embedded Postgres is started for the time of the reading. Throws an Error whose text says what could
 * not be read and what to do.
 */
export async function runBooks(config: Config, options: BooksOptions, write: (text: string) => void): Promise<number> {
  const closers: (() => Promise<unknown>)[] = []
  try {
    const stores = await openStores(config, closers)
    const notes = [...stores.notes]
    if (options.month !== undefined) notes.push(`Only ${options.month}.`)
    const audit = await auditBooks({
      // Backends first: see readBooks.
      read: () => readBooks(stores, { month: options.month, backends: backendsOf(options) }),
      pause: () => delay(pauseMs),
      mostReadings,
    })
    write(options.json === true ? auditJson(audit, notes) : auditText(audit, notes))
    return exitCodes[verdictOf(audit)]
  } finally {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer()
  }
}

const mostReadings = 10
const pauseMs = 500
/** A whole ledger is summed up in one statement. */
const statementTimeoutMs = 900_000
/** A page waits behind what else Redis does; nobody waits for the books. */
const redisTimeoutMs = 10_000
const redisRemedy = 'Check REDIS_URL and the server, then run it again'

interface Stores extends BookStores {
  readonly notes: readonly string[]
}

async function openStores(config: Config, closers: (() => Promise<unknown>)[]): Promise<Stores> {
  const { dataDir } = config
  const notes: string[] = []
  if (config.database.url === undefined || config.redis.url === undefined) {
    await lockDataDir(dataDir, 'DATABASE_URL and REDIS_URL', closers)
  }
  const log = createLogger({ level: 'silent' })
  const { url } = config.database
  const sql = await openPostgresForReading(
    { url, dataDir, applicationName: 'tollgate books', statementTimeoutMs, log },
    closers,
  )
  const limits = await openLimits(config, closers, notes)
  return { limits, ledger: (question) => askLedger(sql, question), notes }
}

async function openLimits(
  config: Config,
  closers: (() => Promise<unknown>)[],
  notes: string[],
): Promise<() => Promise<LimitsReading>> {
  const { url } = config.redis
  if (url === undefined) {
    notes.push('Embedded limits keep their counters in the process: counters are not compared.')
    return () => readLocalLimits(join(config.dataDir, 'usage'))
  }
  const log = createLogger({ level: 'silent' })
  const redis = await connectRedis({ url, log, commandTimeoutMs: redisTimeoutMs }).catch((error: unknown) => {
    throw new Error(`${describeError(error)}. ${redisRemedy}`)
  })
  closers.push(async () => redis.disconnect())
  if (!config.access.rateLimiting) {
    notes.push('ENABLE_RATE_LIMITING is false: calls take nothing from counters, so counters are not compared.')
  }
  return async () => {
    try {
      const reading = await readRedisLimits(redis)
      return config.access.rateLimiting ? reading : { ...reading, counters: undefined }
    } catch (error) {
      throw new Error(
        `Redis could not be read: ${describeError(error)}. Check REDIS_URL and the server, then run it again`,
      )
    }
  }
}

async function askLedger(sql: Sql, question: LedgerQuestion): Promise<LedgerReading> {
  try {
    return await readLedger(sql, question)
  } catch (error) {
    // undefined_table
    const remedy =
      errorCode(error) === '42P01'
        ? 'This database has no ledger: check DATABASE_URL, or run "tollgate migrate"'
        : 'Check DATABASE_URL and the server, then run it again'
    throw new Error(`Postgres could not be read: ${describeError(error)}. ${remedy}`)
  }
}

function backendsOf({ backendLog: files = [] }: BooksOptions): BackendCalls | undefined {
  if (files.length === 0) return undefined
  return backendCalls(
    files.map((file) => {
      if (!existsSync(file)) throw new Error(`${file} does not exist: give the file that the backend's --log names`)
      try {
        return readPracticeLog(file)
      } catch (error) {
        throw new Error(`${file} could not be read: ${describeError(error)}. Give the log of a practice backend`)
      }
    }),
  )
}
